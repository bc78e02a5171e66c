"""Sigmoid attention against float64: eager against its formula, fused backends against the rounding floor."""

from functools import partial
from typing import Literal

import torch

from stabmon.kernels import sigmoid_attention
from stabmon.kernels.bench.accuracy import ALLOWED, Case, ratios, run
from stabmon.selftest.check import SkippedError, require

EAGER_ALLOWED = 64 * torch.finfo(torch.float32).eps
"""Relative error of float32 by norm: products of 32 numbers and sums over 96 keys, each of which rounds."""


def eager() -> str:
    """Compare output and gradients of the eager backend in float32 with the formula in float64."""
    worst = 0.0
    for is_causal in (False, True):
        case = _case(torch.float32, "cpu", is_causal)
        found = run(partial(sigmoid_attention, backend="eager"), case)
        truth = run(_formula, _in_float64(case))
        for name, tensor in truth.items():
            error = float((found[name].double() - tensor).norm() / tensor.norm())
            require(error <= EAGER_ALLOWED, f"{name} is wrong by {error:.2g}, allowed {EAGER_ALLOWED:.2g}")
            worst = max(worst, error)
    return f"output and gradients within {worst:.2g} of float64"


def triton() -> str:
    """Compare the triton backend with the rounding floor."""
    return _fused("triton")


def hopper() -> str:
    """Compare the hopper backend with the rounding floor."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0):
        raise SkippedError(f"needs CUDA capability 9.0, {torch.cuda.get_device_name()} has another")
    return _fused("hopper")


def _fused(backend: Literal["triton", "hopper"]) -> str:
    if not torch.cuda.is_available():
        raise SkippedError("this machine has no CUDA device")
    worst = 0.0
    for is_causal in (False, True):
        case = _case(torch.bfloat16, "cuda", is_causal, length=256, width=64)
        found = run(partial(sigmoid_attention, backend=backend), case)
        for name, ratio in ratios(case, found).items():
            require(ratio <= ALLOWED, f"the error of {name} is {ratio:.2f} times the floor, allowed {ALLOWED}")
            worst = max(worst, ratio)
    return f"errors of output and gradients at most {worst:.2f} times the unavoidable rounding"


def _case(dtype: torch.dtype, device: str, is_causal: bool, length: int = 96, width: int = 32) -> Case:
    generator = torch.Generator().manual_seed(0)
    tensors = torch.randn(4, 2, 3, length, width, generator=generator).to(device, dtype)
    bias = torch.tensor([-4.0, -5.0, 0.5], device=device)
    return Case(tensors[0], tensors[1], tensors[2], bias, tensors[3], is_causal)


def _in_float64(case: Case) -> Case:
    query, key, value, bias, grad = (torch.as_tensor(one).double() for one in case[:5])
    return case._replace(query=query, key=key, value=value, bias=bias, grad=grad)


def _formula(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: object) -> torch.Tensor:
    """Return sigmoid(q kᵀ / √D + b) v over the keys that a query sees, written out."""
    bias = options["bias"]
    assert isinstance(bias, torch.Tensor)
    weights = torch.sigmoid(query @ key.transpose(-1, -2) / query.size(-1) ** 0.5 + bias[:, None, None])
    return (weights.tril() if options["is_causal"] else weights) @ value
