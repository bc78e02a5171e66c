"""Speed of the kernels beside torch's own fused softmax attention in the same run; no speed before correctness.

``python -m stabmon.kernels.bench [--backend NAME] [--cells NAMES] [--host] [--grid NAME] [--output FILE]
[--json]``.
``speed.py`` says what is timed, ``timing.py`` how; ``figure.py`` draws results.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..api import sigmoid_attention
from ..problem import Backend
from . import accuracy, host, masks, small_grids
from .speed import GRID, PEERS, STATISTICS_GRID, Cell, cell_name, cost_of_statistics, speeds
from .timing import ROUNDS, machine

LENGTHS = (1024, 4096, 16384)
"""Lengths at which the accuracy is measured."""


def bench(
    cells: Sequence[Cell] = GRID,
    graphed: Sequence[Cell] = STATISTICS_GRID,
    *,
    rounds: int = ROUNDS,
    dtype: torch.dtype = torch.bfloat16,
    backend: Backend = "auto",
) -> dict[str, Any]:
    """Check, then time ``cells`` on the current CUDA device, and the cost of statistics in ``graphed``.

    rounds: batches of each contender of a cell. dtype: of query, key and value. backend: as in ``sigmoid_attention``.

    Returns:
        device, versions, dtype, backend, accuracy (largest error over floor by result), lengths (errors over floor at
        each of ``LENGTHS``), memory (bytes: the peak of a forward and backward pass, and what it is made of), cells
        (TFLOP/s forward and backward, and the cost of statistics as a share of the forward's time), means (geometric
        means of the ratios to each peer), statistics (that cost in CUDA graphs).

    Raises:
        RuntimeError: there is no CUDA device, or a result is further from float64 than the floor allows.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("bench needs a CUDA device, this machine has none")
    worst = check(dtype, backend=backend)
    attend = partial(sigmoid_attention, backend=backend)
    rows = [speeds(cell, rounds, dtype, attend) for cell in cells]
    return {
        **machine(),
        "dtype": str(dtype).removeprefix("torch."),
        "backend": backend,
        "rounds": rounds,
        "accuracy": worst,
        "lengths": [over_length(dim, length, dtype, attend) for dim in (64, 128) for length in LENGTHS],
        "memory": memory(Cell(64, 16384, False), dtype, attend),
        "cells": rows,
        "means": means_over_peers(rows),
        "statistics": [cost_of_statistics(cell, rounds, dtype, attend) for cell in graphed],
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
    tensors: q, k, v and dO and the gradients of q, k and v. workspace: dQ in float32, or 0 for a backend that needs no
    more than the tensors.
    """
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    leaves = [torch.empty(cell.shape, dtype=dtype, device="cuda").normal_().requires_grad_() for _ in range(3)]
    grad = torch.empty(cell.shape, dtype=dtype, device="cuda").normal_()
    edge = torch.autograd.graph.get_gradient_edge(attend(*leaves, bias=-math.log(cell.length)))
    torch.autograd.grad((edge,), leaves, (grad,))
    peak = torch.cuda.max_memory_allocated() - before
    tensors = 7 * grad.numel() * grad.element_size()
    return {"peak": peak, "tensors": tensors, "workspace": 4 * grad.numel() if peak > tensors else 0}


def _random_case(
    dim: int, length: int, is_causal: bool, bias: Tensor | None, dtype: torch.dtype, heads: int = 4
) -> accuracy.Case:
    torch.manual_seed(0)
    query, key, value, grad = (torch.randn(1, heads, length, dim, device="cuda").to(dtype) for _ in range(4))
    return accuracy.Case(query, key, value, -math.log(length) if bias is None else bias, grad, is_causal)


def means_over_peers(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
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
        reached = "".join(f"{row['forward'][way]:>15.0f} / {row['backward'][way]:>6.0f}" for way in columns)
        lines.append(f"{cell_name(row):<22}{reached}   {_shares(row['statistics'])}")
    lines += [
        f"{name:<22}"
        + ", ".join(f"{peer} ×{mean} (worst ×{_worst(result, name, peer):.2f})" for peer, mean in means.items())
        for name, means in result["means"].items()
    ]
    lines.append("forward in CUDA graphs, µs; statistics: sums, rows")
    lines += [f"{cell_name(row):<22}{row['microseconds']:>8.1f}   {_shares(row)}" for row in result["statistics"]]
    return "\n".join(lines)


def _worst(result: Mapping[str, Any], name: str, peer: str) -> float:
    direction, ours = name.split("/")
    return min(float(row[direction][ours] / row[direction][peer]) for row in result["cells"])


def _shares(cost: Mapping[str, float]) -> str:
    return f"{cost['sums']:+.1%} {cost['rows']:+.1%}"


def _before_speed(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines before any speed: accuracy of the results, and the memory that they take."""
    yield "error over floor: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in result["accuracy"].items())
    for at in result["lengths"]:
        ratios = ", ".join(f"{name} {at[name]:.2f}" for name in accuracy.NAMES if name in at)
        yield f"error over floor, d {at['dim']} n {at['length']}: {ratios}"
    peak, tensors, workspace = (result["memory"][name] / 1e6 for name in ("peak", "tensors", "workspace"))
    made_of = f"q, k, v, dO, dQ, dK, dV {tensors:.0f}" + (f", dQ in float32 {workspace:.0f}" if workspace else "")
    yield f"peak memory at n = 16384, MB: {peak:.0f}; {made_of}"


def answer(
    cells: str | None, backend: Backend, rounds: int, of_host: bool, output: Path | None, grid: str | None = None
) -> tuple[dict[str, Any], str]:
    """Return what the command line asks for, and as text.

    cells: names separated by commas, or None for all. of_host: time the host instead. output: where results are kept.
    grid: time a grid of ``small_grids``, or "masks", instead.

    Raises:
        ValueError: arguments that do not go together, or an unknown cell.
        RuntimeError: as in ``bench``.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    if output is not None and (cells is not None or of_host or grid is not None):
        raise ValueError("--output keeps runs of all cells; leave out --cells, --host and --grid")
    if grid is not None:
        if cells is not None or of_host or backend != "auto":
            raise ValueError("--grid times all backends; leave out --backend, --cells, --host and --output")
        if grid == "masks":
            found = masks.measure(rounds)
            return found, masks.table(found)
        found = small_grids.measure(grid, rounds)
        return found, small_grids.table(found)
    if of_host:
        found = host.host(rounds)
        return found, host.table(found)
    if cells is None:
        result = bench(rounds=rounds, backend=backend)
    else:
        named = [Cell.parse(name) for name in cells.split(",")]
        result = bench(named, named, rounds=rounds, backend=backend)
    if output is not None:
        keep(result, output)
    return result, table(result)


def keep(result: dict[str, Any], path: Path) -> None:
    """Write ``result`` into the file ``path`` under its backend's name; what other backends reached stays there."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[result["backend"]] = result
    path.write_text(json.dumps(results, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Run ``bench`` from the command line."""
    parser = argparse.ArgumentParser(prog="python -m stabmon.kernels.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="batches of each contender, default: %(default)s")
    parser.add_argument("--cells", help="only these, such as d128-causal-2048,d64-full-8192")
    parser.add_argument("--host", action="store_true", help="time the host for one call on tiny tensors instead")
    parser.add_argument(
        "--grid", choices=[*small_grids.GRIDS, "masks"], help="time small grids in CUDA graphs, or masks, instead"
    )
    parser.add_argument("--output", type=Path, help="a file of results to keep this one in, under its backend's name")
    options = parser.parse_args(arguments)
    try:
        result, text = answer(
            options.cells, options.backend, options.rounds, options.host, options.output, options.grid
        )
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    print(json.dumps(result) if options.json else text)
