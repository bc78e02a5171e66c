"""``stabmon bench``: what the kernels reach and what the monitor costs, measured on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from stabmon.terminal import Terminal, print_json

WIDTH = 132
"""Columns that a table takes where the terminal has fewer, or is none: its lines are not wrapped."""


class Backend(StrEnum):
    """An implementation of sigmoid attention."""

    auto = "auto"
    eager = "eager"
    triton = "triton"
    split_keys = "split_keys"
    hopper = "hopper"


class Model(StrEnum):
    """A model whose steps are timed and that no configuration describes."""

    gpt_124m = "gpt-124m"


class Grid(StrEnum):
    """Grids that do not fill a device, and masks."""

    decode = "decode"
    small = "small"
    masks = "masks"


def bench(
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Measure what the monitor costs a step instead, next to other hooks.")
    ] = False,
    config: Annotated[str, typer.Option(help="The run whose steps are timed, with --overhead.")] = "demo",
    model: Annotated[
        Model | None, typer.Option(help="Time this model instead: 12 layers, 768 wide, 16k tokens a step on a GPU.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Compile the models by torch.compile, with --overhead.")
    ] = False,
    steps: Annotated[int, typer.Option(min=8, help="Timed steps of each contender, with --overhead.")] = 120,
    steps_long: Annotated[
        int | None, typer.Option(min=10, help="Train a small model on the CPU so long instead, with --overhead.")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=2, help="Train so many processes under DDP instead, with --overhead.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    backend: Annotated[Backend, typer.Option(help="The backend that is timed.")] = Backend.auto,
    rounds: Annotated[int, typer.Option(min=1, help="Batches of each contender of a shape.")] = 30,
    cells: Annotated[
        str | None, typer.Option(help="Only these shapes, such as d128-causal-2048,d64-full-8192.")
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Time the host for one call on tiny tensors instead.")] = False,
    grid: Annotated[
        Grid | None, typer.Option(help="Time small grids in CUDA graphs instead, decoding or small batches, or masks.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="A file of results to keep this one in, under its backend's name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the fused kernels next to torch's own on a GPU, or the monitor's overhead on this machine."""
    if overhead:
        if backend != Backend.auto or cells is not None or host or grid is not None or output is not None:
            raise typer.BadParameter(
                "--overhead times steps; leave out --backend, --cells, --host, --grid and --output"
            )
        if steps_long:
            found, shown = _long(steps_long)
        elif ranks:
            found, shown = _ranks(ranks, steps, device, model)
        else:
            found, shown = _overhead(config, model, steps, device, compiled)
    elif model is not None or compiled or steps_long is not None or ranks is not None:
        raise typer.BadParameter("--model, --compiled, --ranks and --steps-long are options of --overhead")
    else:
        found, shown = _kernels(backend, rounds, cells, host, output, grid)
    if as_json:
        print_json(found)
    else:
        Terminal(width=max(Terminal().width, WIDTH)).print(shown, soft_wrap=True)


def _kernels(
    backend: Backend, rounds: int, cells: str | None, host: bool, output: Path | None, grid: Grid | None
) -> tuple[dict[str, Any], RenderableType]:
    import torch

    from stabmon.kernels.bench import benchmark

    if not torch.cuda.is_available():
        raise typer.BadParameter(
            "the kernels are timed on a CUDA device, this machine has none; --overhead runs anywhere"
        )
    try:
        return benchmark.answer(cells, backend.value, rounds, host, output, grid and grid.value)
    except (ValueError, RuntimeError) as error:
        raise typer.BadParameter(str(error)) from None


def _overhead(
    config: str, model: Model | None, steps: int, device: str | None, compiled: bool
) -> tuple[dict[str, Any], RenderableType]:
    from stabmon import config as configuration
    from stabmon import overhead
    from stabmon.workloads.training import pick_device

    where = pick_device(device)
    task = overhead.gpt_124m(where) if model else overhead.configured(configuration.load(config), where)
    found = overhead.measure(task, steps, compiled=compiled)
    return found, overhead.table(found)


def _ranks(ranks: int, steps: int, device: str | None, model: Model | None) -> tuple[dict[str, Any], RenderableType]:
    import torch

    from stabmon import overhead
    from stabmon.workloads.training import pick_device

    try:
        found = overhead.ranks(ranks, steps, torch.device(pick_device(device)).type, large=model is not None)
    except RuntimeError as error:
        raise typer.BadParameter(str(error)) from None
    return found, overhead.ranks_table(found)


def _long(steps: int) -> tuple[dict[str, Any], RenderableType]:
    from stabmon import overhead

    found = overhead.long_run(steps)
    return found, overhead.long_table(found)
