"""``stabmon demo``: a naive model is trained, flagged, fixed and displayed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stabmon.cli.findings import by_group
from stabmon.cli.progress import training_bar
from stabmon.formatting import number
from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from stabmon.demo import DemoReport


_FINAL = "loss, mean of the last 20 steps"


def demo(
    directory: Annotated[Path, typer.Option("--dir", file_okay=False, help="Folder for the two runs.")] = Path("runs"),
    steps: Annotated[int | None, typer.Option(min=20, help="Optimizer steps of each training.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Do not open the page at the end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and do not open the page.")] = False,
) -> None:
    """Train a byte-level language model with b = 0 and again with the fix that stabmon names; compare them."""
    from stabmon import config as configuration
    from stabmon import demo as story
    from stabmon.workloads.training import pick_device

    console = Terminal(stderr=as_json)
    device = pick_device(device)
    config = story.default_config(device)
    if steps is not None:
        config = configuration.override(config, {"training.steps": steps})
    prepared = story.prepare(config, directory, device)
    runs = []
    for title, one in zip(("as it is", "with the suggested fix"), prepared, strict=True):
        console.rule(f"{one.name}: {title}")
        console.print(one.report)
        with training_bar(one.name, config.training.steps) as progress:
            runs.append(story.train(one, directory, device, progress))
    report = story.DemoReport(naive=runs[0], fixed=runs[1])
    if as_json:
        print_json(report)
        return
    console.print(_side_by_side(report))
    console.print(f"The fixed run ends {number(report.gain)} nats lower.")
    console.print(f"Both runs are in {directory}. In TensorBoard: tensorboard --logdir {directory}")
    if no_serve:
        console.print(f"The page: stabmon serve {directory}")
    else:
        from stabmon.server.serve import serve

        serve(directory, open_browser=True, view={"run": report.naive.name, "with": report.fixed.name})


def _side_by_side(report: "DemoReport") -> Table:
    table = Table(title="Side by side", title_justify="left")
    table.add_column("")
    rows: dict[str, list[str]] = {"bias": [], "healthy at step 0": [], _FINAL: [], "overhead": [], "findings": []}
    for run in (report.naive, report.fixed):
        table.add_column(run.name, justify="right")
        rows["bias"].append(number(run.bias, 4))
        rows["healthy at step 0"].append("yes" if run.healthy_at_step_zero else "no")
        rows[_FINAL].append(number(run.final_loss, 4))
        rows["overhead"].append("-" if run.overhead_percent is None else f"{number(run.overhead_percent)} %")
        rows["findings"].append("\n".join(by_group(run.findings)) or "none")
    for title, cells in rows.items():
        table.add_row(title, *cells)
    return table
