"""``stabmon reproduce``: the paper's claims in miniature, each with its figure, interval and verdict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from stabmon.reproduction.reproduce import Reproduction


def reproduce(
    subset: Annotated[
        Literal["cpu", "gpu"],
        typer.Option(help="cpu: a small part, more than an hour on two cores; gpu: the whole grid."),
    ] = "cpu",
    directory: Annotated[
        Path, typer.Option("--dir", file_okay=False, help="Folder for the runs; finished ones are not repeated.")
    ] = Path("runs/reproduce"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Train 30 models of some seconds each instead, a few minutes on a CPU.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no training after this time.")] = None,
    only_report: Annotated[bool, typer.Option("--report", help="Train nothing; judge what is finished.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print claims and arms as one JSON object.")] = False,
) -> None:
    """Train a grid of small models and judge the claims of the sigmoid attention paper by how they end."""
    from stabmon.reproduction import reproduce as reproduction
    from stabmon.reproduction.grid import Subset

    chosen: Subset = "quick" if quick else subset
    directory = directory / "quick" if quick else directory
    if not only_report:
        from stabmon.workloads.training import pick_device

        reproduction.train(
            chosen, directory, device=pick_device(device), jobs=jobs, minutes=minutes, progress=_progress
        )
    found = reproduction.collect(chosen, directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / reproduction.RESULT).write_text(found.model_dump_json(), encoding="utf-8")
    if as_json:
        print_json(found)
    else:
        Terminal().print(_table(found))


def _progress(done: int, total: int) -> None:
    Terminal(stderr=True).print(f"{done} of {total} trainings")


def _table(found: "Reproduction") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from stabmon.formatting import measured, signed

    table = Table("claim", "left", "right", "difference, nats", "seeds", "verdict", box=SIMPLE_HEAD)
    for one in found.results:
        ends = "" if one.low != one.low else f" [{signed(one.low)}, {signed(one.high)}]"
        difference = "-" if one.mean != one.mean else f"{signed(one.mean)}{ends}"
        table.add_row(
            one.claim.says, measured(one.left), measured(one.right), difference, str(one.seeds), one.verdict.value
        )
    return table
