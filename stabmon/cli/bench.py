"""``stabmon bench``: what the kernels reach and what the monitor costs, measured on this machine."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def bench(
    overhead: Annotated[bool, typer.Option("--overhead", help="Measure the monitor's step-time overhead instead.")] = False,
    steps: Annotated[int, typer.Option(min=5, help="Steps with and without the monitor, with --overhead.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the fused kernels next to torch's own on a GPU, or the monitor's overhead on this machine."""
