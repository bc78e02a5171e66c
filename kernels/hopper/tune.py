"""Times launches that the table could hold, beside cuDNN in the same run.

``python -m stabmon.kernels.hopper.tune [--json]``.

A launch whose output is wrong is reported as such and not timed. What is fastest goes into ``launch.TABLE`` by hand.
"""

import argparse
import json
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .. import accuracy
from ..problem import Problem
from ..speed import GRID, Cell
from .launch import MIXED, TANH, Launch, forward

CANDIDATES = {
    64: (
        Launch(3, 128, 2, 160, False),
        Launch(3, 64, 4, 160, True),
        Launch(3, 64, 2, 160, True),
        Launch(3, 64, 4, 160, False),
        Launch(2, 128, 2, 240, True),
    ),
    128: (
        Launch(2, 128, 2, 240, True),
        Launch(2, 128, 2, 240, False),
    ),
}
"""Launches that compile without spills in their loops, by padded head dim."""
FORMS = {"tanh": TANH, "mixed": MIXED}


def tune(milliseconds: int = 60) -> list[dict[str, Any]]:
    """Return one row a cell, form and launch: TFLOP/s, cuDNN's in the same cell, error over the rounding floor.

    Raises:
        RuntimeError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("tune needs a CUDA device of capability 9.0, this machine has none")
    errors = {
        (dim, causal, form, plan): _error(dim, causal, FORMS[form], plan)
        for dim, plans in CANDIDATES.items()
        for plan in plans
        for causal in (False, True)
        for form in FORMS
    }
    return [row for cell in GRID for row in _rows(cell, errors, milliseconds)]


def _rows(cell: Cell, errors: dict[Any, float], milliseconds: int) -> list[dict[str, Any]]:
    query, key, value = (torch.randn(cell.shape, device="cuda").bfloat16() for _ in range(3))
    output = torch.empty_like(query)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        peer = _speed(
            cell, lambda: scaled_dot_product_attention(query, key, value, is_causal=cell.is_causal), milliseconds
        )
    problem = _problem(query, key, value, cell.is_causal)
    rows = []
    for plan in CANDIDATES[cell.dim]:
        for name, form in FORMS.items():
            error = errors[cell.dim, cell.is_causal, name, plan]
            row = {**cell._asdict(), "form": name, **plan._asdict(), "error": round(error, 3), "cudnn": peer}
            if error <= accuracy.ALLOWED:
                row["speed"] = _speed(
                    cell, lambda form=form, plan=plan: forward(problem, output, False, form, plan), milliseconds
                )
            rows.append(row)
    return rows


def _problem(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Problem:
    return Problem(query, key, value, None, -math.log(key.size(2)), None, query.size(3) ** -0.5, is_causal)


def _error(dim: int, is_causal: bool, form: int, plan: Launch) -> float:
    """Return the error over the rounding floor at a length that no tile divides."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 1000, dim, device="cuda").bfloat16() for _ in range(3))
    case = accuracy.Case(query, key, value, -math.log(1000), torch.zeros_like(query), is_causal)
    output = torch.full_like(query, torch.nan)
    forward(_problem(query, key, value, is_causal), output, False, form, plan)
    exact, floor = accuracy.exact(case)["output"], accuracy.floor(case)["output"]
    return float((output.double() - exact).norm() / (floor - exact).norm())


def _speed(cell: Cell, call: Any, milliseconds: int) -> float:
    from triton.testing import do_bench

    median = float(do_bench(call, warmup=milliseconds // 4, rep=milliseconds, return_mode="median"))
    return round(cell.flops / median / 1e9, 1)


def table(rows: list[dict[str, Any]]) -> str:
    """Return ``rows`` as lines to read."""
    lines = []
    for row in rows:
        cell = f"d {row['dim']} {'causal' if row['is_causal'] else 'full'} n {row['length']}"
        plan = f"{row['consumers']} x {row['block_k']} x {row['stages']}{' overlap' if row['overlap'] else ''}"
        speed = f"{row['speed']:.0f}, cuDNN x{row['speed'] / row['cudnn']:.3f}" if "speed" in row else "wrong"
        lines.append(f"{cell:<22}{row['form']:<7}{plan:<20}error {row['error']:<7}{speed}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run ``tune`` from the command line."""
    parser = argparse.ArgumentParser(prog="python -m stabmon.kernels.hopper.tune", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    rows = tune()
    print(json.dumps(rows) if parser.parse_args(arguments).json else table(rows))


if __name__ == "__main__":
    main()
