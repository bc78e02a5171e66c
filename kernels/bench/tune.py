"""Timings of hopper configurations that the table could hold, beside cuDNN in the same run.

``python -m stabmon.kernels.bench.tune [--json]``.

A launch whose output is wrong is reported as such and not timed. The fastest is copied by hand into ``TABLE`` of
hopper/forward_launch.py.
"""

import argparse
import json
import math
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from ..hopper.forward_launch import ForwardConfig, forward
from ..problem import Problem
from ..sigmoid_forms import MIXED, TANH
from . import accuracy
from .speed import GRID, Cell, cell_name, softmax
from .timing import ROUNDS, medians

CANDIDATES = {
    64: (
        ForwardConfig(4, 64, 4, 112, False),
        ForwardConfig(4, 64, 8, 112, False),
        ForwardConfig(2, 128, 4, 240, True),
    ),
    128: (
        ForwardConfig(2, 128, 2, 240, True),
        ForwardConfig(2, 64, 4, 240, True),
    ),
}
"""Launches that compile without spills in their loops, by padded head dim."""
FORMS = {"tanh": TANH, "mixed": MIXED}


def tune(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Return one row a cell, form and launch: TFLOP/s, cuDNN's in the same cell, error over the rounding floor.

    rounds: how often each is timed.

    Raises:
        RuntimeError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("tune needs a CUDA device of capability 9.0, this machine has none")
    errors = {
        (dim, causal, form, config): _error(dim, causal, FORMS[form], config)
        for dim, configs in CANDIDATES.items()
        for config in configs
        for causal in (False, True)
        for form in FORMS
    }
    return [row for cell in GRID for row in _rows(cell, errors, rounds)]


def _rows(cell: Cell, errors: dict[Any, float], rounds: int) -> list[dict[str, Any]]:
    query, key, value = (torch.randn(cell.shape, device="cuda").bfloat16() for _ in range(3))
    output = torch.empty_like(query)
    problem = _problem(query, key, value, cell.is_causal)
    tried = list(product(CANDIDATES[cell.dim], FORMS))
    right = [at for at in tried if errors[cell.dim, cell.is_causal, at[1], at[0]] <= accuracy.ALLOWED]
    peer = partial(softmax, SDPBackend.CUDNN_ATTENTION, query, key, value, is_causal=cell.is_causal)
    ours = {str(at): partial(forward, problem, output, None, FORMS[at[1]], at[0]) for at in right}
    speeds = {name: round(cell.flops / time / 1e9, 1) for name, time in medians({"cudnn": peer} | ours, rounds).items()}
    rows = []
    for config, form in tried:
        error = round(errors[cell.dim, cell.is_causal, form, config], 3)
        row = {**cell._asdict(), "form": form, **config._asdict(), "error": error, "cudnn": speeds["cudnn"]}
        rows.append(row | {"speed": speeds[str((config, form))]} if (config, form) in right else row)
    return rows


def _problem(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Problem:
    return Problem(query, key, value, None, -math.log(key.size(2)), None, query.size(3) ** -0.5, is_causal)


def _error(dim: int, is_causal: bool, form: int, config: ForwardConfig) -> float:
    """Return the error over the rounding floor at a length that no tile divides."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 1000, dim, device="cuda").bfloat16() for _ in range(3))
    case = accuracy.Case(query, key, value, -math.log(1000), torch.zeros_like(query), is_causal)
    output = torch.full_like(query, torch.nan)
    forward(_problem(query, key, value, is_causal), output, None, form, config)
    exact, floor = accuracy.exact(case)["output"], accuracy.floor(case)["output"]
    return float((output.double() - exact).norm() / (floor - exact).norm())


def table(rows: list[dict[str, Any]]) -> str:
    """Return ``rows`` as lines to read."""
    lines = []
    for row in rows:
        config = f"{row['consumers']} x {row['block_k']} x {row['stages']}{' overlapped' if row['overlapped'] else ''}"
        speed = f"{row['speed']:.0f}, cuDNN x{row['speed'] / row['cudnn']:.3f}" if "speed" in row else "wrong"
        lines.append(f"{cell_name(row):<22}{row['form']:<7}{config:<28}error {row['error']:<7}{speed}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run ``tune`` from the command line."""
    parser = argparse.ArgumentParser(prog="python -m stabmon.kernels.bench.tune", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args(arguments)
    try:
        rows = tune()
    except RuntimeError as error:
        parser.error(str(error))
    print(json.dumps(rows) if options.json else table(rows))


if __name__ == "__main__":
    main()
