"""Carries out the straight-line PTX of inline assembly on tensors of 32 bits, exactly where the GPU approximates."""

import re
import struct
from collections.abc import Callable

import torch
from torch import Tensor

Registers = dict[str, Tensor]


def run(text: str, registers: Registers, outputs: tuple[str, ...] = ()) -> tuple[Tensor, ...]:
    """Return ``outputs``, or what the last statement, a ``cvt`` to a pair, packs: low and high half."""
    for statement in re.sub(r"[{}]", "", text).split(";"):
        code, _, rest = statement.strip().partition(" ")
        if not code or code == ".reg":
            continue
        target, *names = (name.strip() for name in rest.split(","))
        kind = code.split(".")[0]
        if kind == "mov" and len(names) == 2:
            halves = registers[names[1]].view(torch.float16)
            registers[target], registers[names[0]] = halves[..., 0::2], halves[..., 1::2]
            continue
        given = [_read(name, registers) for name in names]
        if code == "cvt.f32.f16":
            registers[target] = given[0].float()
            continue
        if kind == "cvt":
            half = torch.bfloat16 if "bf16x2" in code else torch.float16
            high, low = ((x.relu() if ".relu" in code else x).to(half) for x in given)
            return low, high
        registers[target] = _STEPS[kind](*given)
    assert outputs, "no cvt in the assembly"
    return tuple(registers[name].view(torch.float32) for name in outputs)


def _read(name: str, registers: Registers) -> Tensor:
    if name.startswith("0f"):
        return torch.tensor(struct.unpack(">f", bytes.fromhex(name[2:]))[0])
    if name.startswith("0x"):
        return torch.tensor(int(name, 16)).to(torch.int32)
    if name.isdecimal():
        return torch.tensor(int(name))
    return registers[name]


_STEPS: dict[str, Callable[..., Tensor]] = {
    "fma": lambda a, b, c: (a.double() * b.double() + c.double()).float(),
    "tanh": torch.tanh,
    "ex2": torch.exp2,
    "rcp": torch.reciprocal,
    "neg": torch.neg,
    "add": torch.add,
    "mov": lambda x: x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.float32),
    "sub": lambda a, b: a - b,
    "shl": lambda a, b: a << b,
    "and": lambda a, b: a & b,
}
