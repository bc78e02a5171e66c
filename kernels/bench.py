"""How fast the kernels are, beside torch's own fused softmax attention in the same run; no speed before correctness.

``python -m stabmon.kernels.bench [--backend NAME] [--json]``.
FLOP = 4·B·H·N²·D forward, half when causal, 2.5 times that backward. ``figure.py`` draws results.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from . import accuracy
from .api import sigmoid_attention
from .auxiliary import AuxRequest
from .launch import Backend

TOKENS, WIDTH = 16384, 2048
PEERS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


class Cell(NamedTuple):
    """One shape to time: TOKENS tokens of WIDTH features, cut into sequences of ``length`` and heads of ``dim``."""

    dim: int
    length: int
    is_causal: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[B, H, N, D]."""
        return max(1, TOKENS // self.length), WIDTH // self.dim, self.length, self.dim

    @property
    def flops(self) -> float:
        """Floating-point operations of one forward pass."""
        batch, heads, length, dim = self.shape
        return 4.0 * batch * heads * length * length * dim / (2 if self.is_causal else 1)


LENGTHS = (1024, 4096, 16384)
"""Where the accuracy is measured."""
GRID = tuple(Cell(d, n, causal) for d in (64, 128) for causal in (False, True) for n in (2048, 8192, 16384))


def bench(
    cells: Iterable[Cell] = GRID,
    *,
    milliseconds: int = 80,
    dtype: torch.dtype = torch.bfloat16,
    backend: Backend = "auto",
) -> dict[str, Any]:
    """Check, then time ``cells`` on the current CUDA device.

    milliseconds: how long each timing repeats; the median counts. backend: as in ``sigmoid_attention``.

    Returns:
        device, versions, dtype, backend, accuracy (largest error over floor by result), lengths (errors over floor at
        each of ``LENGTHS``), memory (bytes: the peak of a forward and backward pass, and what it is made of), cells
        (TFLOP/s forward and backward, and the cost of statistics as a share of the forward's time), means (geometric
        means of the ratios to each peer).

    Raises:
        RuntimeError: there is no CUDA device, or a result is further from float64 than the floor allows.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("bench needs a CUDA device, this machine has none")
    import triton

    worst = check(dtype, backend=backend)
    attend = partial(sigmoid_attention, backend=backend)
    rows = [_measure(cell, milliseconds, dtype, attend) for cell in cells]
    return {
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "dtype": str(dtype).removeprefix("torch."),
        "backend": backend,
        "accuracy": worst,
        "lengths": [over_length(dim, length, dtype, attend) for dim in (64, 128) for length in LENGTHS],
        "memory": memory(Cell(64, 16384, False), dtype, attend),
        "cells": rows,
        "means": _means(rows),
    }


def check(dtype: torch.dtype, device: str = "cuda", backend: Backend = "auto") -> dict[str, float]:
    """Return the largest error over floor of each result, over a few shapes.

    Raises:
        RuntimeError: one is above ``accuracy.ALLOWED``.
    """
    learnable = torch.full((4,), -math.log(1000), device=device)
    calls = [(dim, 1000, causal, bias) for dim in (64, 128) for causal in (False, True) for bias in (None, learnable)]
    attend = partial(sigmoid_attention, backend=backend)
    worst: dict[str, float] = {}
    for dim, length, is_causal, bias in [*calls, (64, 8192, False, None)]:
        case = _random_case(dim, length, is_causal, bias, dtype)
        for name, ratio in accuracy.ratios(case, accuracy.run(attend, case)).items():
            worst[name] = max(worst.get(name, 0.0), ratio)
    red = {name: ratio for name, ratio in worst.items() if not ratio <= accuracy.ALLOWED}
    if red:
        raise RuntimeError(
            f"errors over the rounding floor must be at most {accuracy.ALLOWED}, got {red}; nothing was timed"
        )
    return worst


def over_length(dim: int, length: int, dtype: torch.dtype, attend: Callable[..., Tensor]) -> dict[str, Any]:
    """Return the error over floor of output and gradients at one length, of one head with b = −log n."""
    case = _random_case(dim, length, False, None, dtype, heads=1)
    found = accuracy.ratios(case, accuracy.run(attend, case))
    return {"dim": dim, "length": length} | {name: round(ratio, 3) for name, ratio in found.items()}


def memory(cell: Cell, dtype: torch.dtype, attend: Callable[..., Tensor]) -> dict[str, int]:
    """Return the bytes that a forward and backward pass holds at its peak, and those of its tensors.

    peak: all that is allocated, inputs too; the output is dropped before the backward pass, which does not need it.
    tensors: q, k, v and dO and the gradients of q, k and v. workspace: dQ in float32.
    """
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    leaves = [torch.empty(cell.shape, dtype=dtype, device="cuda").normal_().requires_grad_() for _ in range(3)]
    grad = torch.empty(cell.shape, dtype=dtype, device="cuda").normal_()
    edge = torch.autograd.graph.get_gradient_edge(attend(*leaves, bias=-math.log(cell.length)))
    torch.autograd.grad((edge,), leaves, (grad,))
    peak = torch.cuda.max_memory_allocated() - before
    return {"peak": peak, "tensors": 7 * grad.numel() * grad.element_size(), "workspace": 4 * grad.numel()}


def _random_case(
    dim: int, length: int, is_causal: bool, bias: Tensor | None, dtype: torch.dtype, heads: int = 4
) -> accuracy.Case:
    torch.manual_seed(0)
    query, key, value, grad = (torch.randn(1, heads, length, dim, device="cuda").to(dtype) for _ in range(4))
    return accuracy.Case(query, key, value, -math.log(length) if bias is None else bias, grad, is_causal)


def _measure(cell: Cell, milliseconds: int, dtype: torch.dtype, attend: Callable[..., Any]) -> dict[str, Any]:
    query, key, value = (torch.randn(cell.shape, device="cuda").to(dtype).requires_grad_() for _ in range(3))
    tensors = [query, key, value]
    grad = torch.randn(cell.shape, device="cuda").to(dtype)
    bias = torch.full(cell.shape[1:2], -math.log(cell.length), device="cuda", requires_grad=True)
    length_bias = -math.log(cell.length)
    ways: dict[str, Callable[[], Tensor]] = {
        "fixed": lambda: attend(query, key, value, bias=length_bias, is_causal=cell.is_causal),
        "learnable": lambda: attend(query, key, value, bias=bias, is_causal=cell.is_causal),
    }
    peers = {name: partial(_softmax, peer, query, key, value, is_causal=cell.is_causal) for name, peer in PEERS.items()}
    row: dict[str, Any] = {**cell._asdict(), "forward": {}, "backward": {}}
    for name, way in (ways | peers).items():
        leaves = [*tensors, bias] if name == "learnable" else tensors
        forward, backward = _times(way, leaves, grad, milliseconds)
        row["forward"][name] = round(cell.flops / forward / 1e9, 1)
        row["backward"][name] = round(2.5 * cell.flops / backward / 1e9, 1)
    row["statistics"] = _cost_of_statistics(cell, tensors, length_bias, milliseconds, attend)
    return row


def _softmax(peer: SDPBackend, query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Tensor:
    with sdpa_kernel(peer):
        return scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def _times(way: Callable[[], Tensor], leaves: list[Tensor], grad: Tensor, milliseconds: int) -> tuple[float, float]:
    """Return the median milliseconds of a forward and of a backward pass."""
    with torch.no_grad():
        forward = _median(way, milliseconds)
    output = way()
    return forward, _median(lambda: torch.autograd.grad(output, leaves, grad, retain_graph=True), milliseconds)


def _cost_of_statistics(
    cell: Cell, tensors: list[Tensor], bias: float, milliseconds: int, attend: Callable[..., Any]
) -> dict[str, float]:
    """Return by what share of the forward's time the output sums, and sums and sampled rows, lengthen it.

    Rows are those that a monitor samples by default: 16 of one sequence a call.
    """
    query, key, value = tensors
    options: dict[str, Any] = {"bias": bias, "is_causal": cell.is_causal}

    def time(request: AuxRequest | None) -> float:
        return _median(lambda: attend(query, key, value, return_aux=request, **options), milliseconds)

    with torch.no_grad():
        off, sums, rows = time(None), time(AuxRequest(rows=0)), time(AuxRequest(rows=16, sequences=1))
    return {"sums": round(sums / off - 1, 4), "rows": round(rows / off - 1, 4)}


def _median(call: Callable[[], object], milliseconds: int) -> float:
    from triton.testing import do_bench

    return float(do_bench(call, warmup=milliseconds // 4, rep=milliseconds, return_mode="median"))


def _means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the geometric mean over the cells of our speed over each peer's, by direction and kind of bias."""
    return {
        f"{direction}/{ours}": {
            peer: round(
                math.exp(sum(math.log(row[direction][ours] / row[direction][peer]) for row in rows) / len(rows)), 3
            )
            for peer in PEERS
        }
        for direction in ("forward", "backward")
        for ours in ("fixed", "learnable")
    }


def table(result: dict[str, Any]) -> str:
    """Return ``result`` as a table to read."""
    columns = ("fixed", "learnable", *PEERS)
    lines = [
        ", ".join(
            [result["device"], *(f"{name} {known}" for name, known in result["versions"].items()), result["dtype"]]
        ),
        *_before_speed(result),
        "TFLOP/s".ljust(22) + "".join(f"{name:>24}" for name in columns) + "   statistics: sums, rows",
    ]
    for row in result["cells"]:
        name = f"d {row['dim']} {'causal' if row['is_causal'] else 'full'} n {row['length']}"
        speeds = "".join(f"{row['forward'][way]:>15.0f} / {row['backward'][way]:>6.0f}" for way in columns)
        lines.append(f"{name:<22}{speeds}   {row['statistics']['sums']:+.1%} {row['statistics']['rows']:+.1%}")
    lines += [
        f"{name:<22}" + ", ".join(f"{peer} ×{mean}" for peer, mean in means.items())
        for name, means in result["means"].items()
    ]
    return "\n".join(lines)


def _before_speed(result: dict[str, Any]) -> Iterator[str]:
    """Yield what is told before any speed: how exact the results are, and what memory they take."""
    yield "error over floor: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in result["accuracy"].items())
    for at in result["lengths"]:
        ratios = ", ".join(f"{name} {at[name]:.2f}" for name in accuracy.NAMES if name in at)
        yield f"error over floor, d {at['dim']} n {at['length']}: {ratios}"
    peak, tensors, workspace = (result["memory"][name] / 1e6 for name in ("peak", "tensors", "workspace"))
    made_of = f"q, k, v, dO, dQ, dK, dV {tensors:.0f}, dQ in float32 {workspace:.0f}"
    yield f"peak memory at n = 16384, MB: {peak:.0f}; {made_of}"


def main(arguments: list[str] | None = None) -> None:
    """Run ``bench`` from the command line."""
    parser = argparse.ArgumentParser(prog="python -m stabmon.kernels.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--milliseconds", type=int, default=80, help="how long each timing repeats")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto", help="default: %(default)s")
    options = parser.parse_args(arguments)
    result = bench(milliseconds=options.milliseconds, backend=options.backend)
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
