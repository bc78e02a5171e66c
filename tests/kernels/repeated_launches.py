"""Launch kernels on a machine without a GPU and compare with what Triton would launch: ``python repeated_launches.py``.

A driver stands in that loads nothing and notes which compiled kernel it is to launch, and with which arguments. Fails
where a launcher takes another kernel than ``kernel[grid](...)``, or hands other arguments to it.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from stabmon.kernels.launching.launcher import Launcher
from tests.kernels.absent_device import Device


class Launch(NamedTuple):
    launched: Any
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


launches: list[Launch] = []


class Note:
    """The launcher that Triton makes for each compiled kernel."""

    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, x: int, y: int, z: int, stream: int, function: Any, *rest: Any) -> None:
        launches.append(Launch(self, (x, y, z), rest[4:]))  # after metadata and hooks


class Loader:
    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 2**18}

    def load_binary(self, *_: Any) -> tuple[object, int, int, int, int]:
        return object(), 1, 0, 0, 1024

    def unload_module(self, module: object) -> None:
        pass


class Driver(Device):
    """A driver whose launches are noted."""

    utils, launcher_cls = Loader(), Note


@triton.jit(do_not_specialize=["free", "late"])
def by_pointer(X, Y, Z, step, free, factor, late, HAS_Z: tl.constexpr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    x = tl.load(X + at * step).to(tl.float32) * factor + free + late
    if HAS_Z:
        x += tl.load(Z + at)
    tl.store(Y + at, x.to(Y.dtype.element_ty))


@triton.jit(do_not_specialize=["free", "late"])
def by_descriptor(X, Y, Z, step, free, factor, late, HAS_Z: tl.constexpr, SIZE: tl.constexpr):
    x = tl.sum(X.load([0, 0]).to(tl.float32), 1) * factor + free + late + step
    tl.store(Y + tl.arange(0, SIZE), x.to(Y.dtype.element_ty))


def describe(tensor: torch.Tensor) -> TensorDescriptor:
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [16, 16])


def shown(argument: Any) -> Any:
    return (type(argument), vars(argument)) if isinstance(argument, TensorDescriptor) else argument


def tensors(dtype: torch.dtype, offset: int, has_z: bool) -> tuple[torch.Tensor | None, ...]:
    y, z = (torch.zeros(32, dtype=dtype)[offset:] for _ in range(2))
    return torch.zeros(16, 16, dtype=torch.float16), y, z if has_z else None


def compare(kernel: Any, step: int, free: int) -> None:
    """Launch every kind of tensor three times in a row, so that later launches are those that the launcher knows."""
    operands = (describe if kernel is by_descriptor else None, None, None)
    for has_z in (False, True):
        constants = {"HAS_Z": has_z, "SIZE": 16, "num_warps": 1}
        launcher = Launcher(kernel, (3, 2), operands, (step, free), constants)
        for repeat in range(3):
            for dtype, offset in ((torch.float16, 0), (torch.float16, 1), (torch.float32, 0), (torch.float32, 4)):
                given = tensors(dtype, offset, has_z)
                launcher(given, 0.5 + repeat, repeat)
                first = given[0] if operands[0] is None else describe(given[0])
                kernel[3, 2](first, *given[1:], step, free, 0.5 + repeat, repeat, **constants)
                found, expected = launches[-2:]
                assert found[:2] == expected[:2], (kernel, dtype, offset, repeat)
                for mine, its in zip(found.arguments, expected.arguments, strict=True):
                    mine, its = shown(mine), shown(its)
                    assert mine is its or mine == its, (mine, its)
        assert len(launcher._compiled) == 3, "aligned and not in float16; both aligned in float32"


if __name__ == "__main__":
    triton.runtime.driver.set_active(Driver((9, 0)))
    for kernel in (by_pointer, by_descriptor):
        for step, free in ((1, 1), (16, 16), (3, 3)):
            compare(kernel, step, free)
    assert len({launch.launched for launch in launches}) > 12
    print(len(launches))
