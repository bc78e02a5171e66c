"""``stabmon bench``: what the kernels reach and what the monitor costs, measured on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stabmon.terminal import Terminal, print_json


class Backend(StrEnum):
    """An implementation of sigmoid attention."""

    auto = "auto"
    eager = "eager"
    triton = "triton"
    split_keys = "split_keys"
    hopper = "hopper"


class Grid(StrEnum):
    """Grids that do not fill a device."""

    decode = "decode"
    small = "small"


def bench(
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Measure the monitor's step-time overhead instead.")
    ] = False,
    config: Annotated[str, typer.Option(help="The run whose steps are timed, with --overhead.")] = "demo",
    steps: Annotated[int, typer.Option(min=8, help="Steps with and without the monitor, with --overhead.")] = 120,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    backend: Annotated[Backend, typer.Option(help="The backend that is timed.")] = Backend.auto,
    rounds: Annotated[int, typer.Option(min=1, help="Batches of each contender of a shape.")] = 30,
    cells: Annotated[
        str | None, typer.Option(help="Only these shapes, such as d128-causal-2048,d64-full-8192.")
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Time the host for one call on tiny tensors instead.")] = False,
    grid: Annotated[
        Grid | None, typer.Option(help="Time small grids in CUDA graphs instead: decoding, or small batches.")
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
        found = _overhead(config, steps, device)
        text = (
            f"{found['config']} on {found['device']}, every step sampled: {found['milliseconds_with']:.1f} ms a step "
            f"with the monitor, {found['milliseconds_without']:.1f} ms without; ratio {found['ratio']:.4f} "
            f"(95 % interval {found['ratio_low']:.4f} to {found['ratio_high']:.4f})"
        )
    else:
        found, text = _kernels(backend, rounds, cells, host, output, grid)
    if as_json:
        print_json(found)
    else:
        Terminal().print(text, soft_wrap=True)


def _kernels(
    backend: Backend, rounds: int, cells: str | None, host: bool, output: Path | None, grid: Grid | None
) -> tuple[dict[str, Any], str]:
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


def _overhead(config: str, steps: int, device: str | None) -> dict[str, Any]:
    from stabmon import config as configuration
    from stabmon.overhead import measure
    from stabmon.workloads.training import pick_device

    return measure(configuration.load(config), steps, pick_device(device))
