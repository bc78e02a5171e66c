"""``stabmon evaluate``: how well rules, causes and fixes fit runs of known outcome."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from stabmon.evaluation.report import Evaluation
    from stabmon.rules import Limits

Half = Literal["tuning", "held-out", "all"]


def evaluate(
    matrix: Annotated[
        Path | None, typer.Argument(help="A YAML file of configurations; the one that ships where none is given.")
    ] = None,
    directory: Annotated[
        Path,
        typer.Option(
            "--dir", file_okay=False, help="Folder for runs and results; finished runs in it are not repeated."
        ),
    ] = Path("runs/evaluation"),
    subset: Annotated[
        Literal["all", "cpu"], typer.Option(help="cpu: the 30 runs that two cores finish in 15 minutes.")
    ] = "all",
    half: Annotated[Half, typer.Option(help="Which half's figures are printed.")] = "held-out",
    limits: Annotated[Path | None, typer.Option(help="A YAML file of thresholds, instead of the defaults.")] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Search thresholds on the tuning half and write limits.yaml.")
    ] = False,
    apply_fixes: Annotated[
        bool, typer.Option("--apply-fixes/--no-apply-fixes", help="Train failed runs again with their first fix.")
    ] = True,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    families: Annotated[
        Literal["own", "foreign"],
        typer.Option(help="foreign: models written without stabmon's modules, two families of them never tuned on."),
    ] = "own",
    steps: Annotated[int | None, typer.Option(min=40, help="With --families foreign: steps of each training.")] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="With --families foreign: train nothing, judge the stored runs again.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Print a stored result again, from its folder or file, without any training.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures and verdicts as one JSON object.")] = False,
) -> None:
    """Train a matrix of runs, label each by its outcome, and print how rules, causes and fixes fit the labels."""
    from stabmon.evaluation import report as reports

    if families == "own" and (replay or steps is not None):
        raise typer.BadParameter("--replay and --steps are options of --families foreign")
    if report is not None:
        _print_foreign(report, as_json) if families == "foreign" else _print(reports.read(report), half, as_json)
        return
    if families == "foreign":
        _foreign(directory / "foreign", subset, steps, limits, jobs, device, replay)
        for split in ("tuning", "held-out"):
            _print_foreign(directory / "foreign" / split, as_json)
        return
    from stabmon.config import MATRIX
    from stabmon.evaluation import evaluate as evaluation
    from stabmon.evaluation import matrix as matrices
    from stabmon.workloads.training import pick_device

    shipped = Path(matrices.__file__).parent.parent / "configs" / MATRIX
    runs = matrices.runs_of(matrices.load(matrix or shipped), cpu_only=subset == "cpu")
    device, chosen = pick_device(device), _limits(limits)
    with _bars() as progress:
        execution = evaluation.Execution(directory, device, jobs, progress)
        found = evaluation.evaluate(runs, execution, chosen, tune=tune, apply_fixes=apply_fixes)
    _print(found, half, as_json)


def _foreign(
    folder: Path, subset: str, steps: int | None, limits: Path | None, jobs: int, device: str | None, replay: bool
) -> None:
    from stabmon.evaluation.foreign import evaluate as foreign
    from stabmon.evaluation.foreign.setup import SIZES
    from stabmon.workloads.training import pick_device

    size = SIZES["cpu" if subset == "cpu" else "gpu"]
    size = size if steps is None else size.model_copy(update={"steps": steps})
    where = foreign.Folder(folder, pick_device(device), _limits(limits))
    with _bars() as progress:
        foreign.evaluate(size, where, jobs=jobs, progress=progress, replay=replay)


def _print_foreign(path: Path, as_json: bool) -> None:
    from stabmon.evaluation.foreign import report

    found = report.read(path)
    if as_json:
        print_json(found)
    else:
        Terminal().print(report.table(found))


def _limits(path: Path | None) -> "Limits":
    from stabmon.rules import Limits
    from stabmon.rules.limits import read

    return read(path) if path else Limits()


def _print(found: "Evaluation", half: Half, as_json: bool) -> None:
    from stabmon.evaluation import report

    chosen = None if half == "all" else half
    if as_json:
        print_json(json.loads(report.as_json(found, chosen)))
    else:
        Terminal().print(report.tables(found, chosen))


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each part of the work on standard error while the block runs."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Terminal(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show
