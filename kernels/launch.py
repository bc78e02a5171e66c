"""Which backend answers a call, and how its kernels are launched: static tables, nothing is tuned at run time."""

import importlib.util
import os
from typing import Literal, NamedTuple

import torch

Backend = Literal["auto", "eager", "triton"]

TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST = (8, 0)
_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None


class Refusal(NamedTuple):
    """Why the triton backend cannot answer; ``of_machine`` tells the machine's limits from the caller's arguments."""

    text: str
    of_machine: bool


def interpreted() -> bool:
    """Say whether Triton kernels run in its interpreter, on CPU tensors (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> Refusal | None:
    """Return why the triton backend cannot take such tensors, or None when it can."""
    if not _TRITON_INSTALLED:
        return Refusal("triton is not installed, backend='triton' needs it", True)
    if dtype not in TRITON_DTYPES:
        return Refusal(f"backend='triton' takes float16, bfloat16 and float32, got {dtype}", False)
    if head_dim % 8 or not 16 <= head_dim <= 256:
        return Refusal(f"backend='triton' takes head dims 16 to 256 in multiples of 8, got {head_dim}", False)
    if device.type != "cuda":
        return None if interpreted() else Refusal(f"no CUDA device for backend='triton', tensors are on {device}", True)
    if torch.cuda.get_device_capability(device) < OLDEST:
        found = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return Refusal(f"backend='triton' needs CUDA capability 8.0 or newer, {device} has {found}", True)
    return None


def choose(backend: Backend, device: torch.device, dtype: torch.dtype, head_dim: int) -> Literal["eager", "triton"]:
    """Return the backend for ``auto``: triton on a CUDA device that it can use, eager everywhere else."""
    if backend != "auto":
        return backend
    if device.type != "cuda":
        return "eager"
    return "eager" if refusal(device, dtype, head_dim) else "triton"
