"""Stand-ins for the parts of Gluon that the kernels import."""

from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from . import machine, ptx
from .machine import Barrier, Pointer, Shared, Tile, bare


def _allocate(dtype: torch.dtype, shape: list[int], layout: Any) -> Any:
    if layout == "barrier":
        return SimpleNamespace(index=[Barrier() for _ in range(shape[0])].__getitem__)
    return Shared(torch.full(shape, torch.nan, dtype=dtype))


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if not isinstance(condition, Tile):
        return yes if condition else no
    layout = next((x.layout for x in (yes, no) if isinstance(x, Tile)), condition.layout)
    return Tile(torch.where(condition.values, bare(yes), bare(no)), layout)


def _assembly(text: str, constraints: str, values: list[Any], *, dtype: Any, is_pure: bool, pack: int) -> Any:
    if text.removeprefix("griddepcontrol.launch_dependents; ") == "mov.b32 $0, $1;":
        return values[0]
    if text.startswith("bar."):
        machine.ping_pong(text)
        return values[0]
    if "%nctaid" in text:
        return values[0]
    assert pack == 2
    tile = next(value for value in values if isinstance(value, Tile))
    operands = []
    for value in values:
        if constraints.endswith(",r"):
            operands.append(value.values.view(torch.int32))
            continue
        full = torch.as_tensor(bare(value), dtype=torch.float32).expand(tile.values.shape)
        operands += [full[..., 0::2], full[..., 1::2]]
    outputs = ("$0", "$1") if dtype == torch.float32 else ()
    first = max(1, len(outputs))
    low, high = ptx.run(text, {f"${i + first}": operand for i, operand in enumerate(operands)}, outputs)
    assert low.dtype == dtype
    return Tile(torch.stack([low, high], -1).flatten(-2), tile.layout)


def _assert(condition: bool) -> None:
    assert condition


def _store(pointer: Pointer, value: Any) -> None:
    pointer.base[bare(pointer.offset)] = bare(value)


def language() -> ModuleType:
    """Return what stands for ``gluon.language``: layouts are names, scalars are numbers, constants are themselves."""
    module = ModuleType("language")
    module.__dict__.update(
        constexpr=lambda value: value,
        tensor=Tile,
        shared_memory_descriptor=Shared,
        float32=torch.float32,
        int32=torch.int32,
        int64=torch.int64,
        bfloat16=torch.bfloat16,
        float16=torch.float16,
        program_id=lambda axis: machine.program.index,
        num_programs=lambda axis: machine.program.count,
        cdiv=lambda a, b: -(-a // b),
        minimum=min,
        maximum=max,
        where=_where,
        static_range=range,
        static_assert=_assert,
        tuple=tuple,
        arange=lambda start, end, layout: Tile(torch.arange(start, end), layout),
        zeros=lambda shape, dtype, layout: Tile(torch.zeros(shape, dtype=dtype), layout),
        load=lambda pointer: pointer.base[pointer.offset].item(),
        store=_store,
        sum=lambda tile, axis: Tile(tile.values.sum(axis), tile.layout),
        inline_asm_elementwise=_assembly,
        barrier=lambda: None,
        convert_layout=lambda tile, layout: Tile(tile.values, layout),
        allocate_shared_memory=_allocate,
        warp_specialize=machine.specialise,
        NVMMADistributedLayout=lambda *_: "product",
        NVMMASharedLayout=SimpleNamespace(get_default_for=lambda *_: "shared"),
        DotOperandLayout=lambda *_: "operand",
        SliceLayout=lambda *_: "slice",
    )
    return module


def hopper() -> ModuleType:
    """Return what stands for ``gluon.language.nvidia.hopper``, under the names of its newest release."""
    module = ModuleType("hopper")
    barrier = SimpleNamespace(
        MBarrierLayout=lambda: "barrier",
        init=lambda barrier, count: barrier.init(count),
        wait=Barrier.wait,
        arrive=machine.arrive,
        expect=lambda barrier, size: barrier.arrive(1, size),
    )
    module.__dict__.update(
        mbarrier=barrier,
        tma=SimpleNamespace(
            async_load=machine.load,
            async_store=machine.store,
            async_atomic_add=machine.add,
            store_wait=machine.store_wait,
        ),
        fence_async_shared=lambda: None,
        warpgroup_mma=machine.multiply,
        warpgroup_mma_wait=machine.multiply_wait,
    )
    return module
