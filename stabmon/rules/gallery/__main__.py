"""``python -m stabmon.rules.gallery``: train the reference runs of the rules again, and draw their plots."""

import json
from pathlib import Path
from typing import Annotated

import typer

from stabmon.rules.gallery.stored_runs import FOLDER, ReferenceRuns, reference_runs

app = typer.Typer(add_completion=False, help="Reference runs and plots of the rules.")


Output = Annotated[Path, typer.Option(help="Folder for runs.json and the folder of plots.")]


@app.command()
def record(
    codes: Annotated[list[str] | None, typer.Argument(help="Codes of rules; all of them where none is given.")] = None,
    directory: Annotated[
        Path, typer.Option("--dir", help="Folder for the runs; those that are in it are not trained again.")
    ] = Path("runs/reference"),
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    output: Output = FOLDER,
) -> None:
    """Train a bad and a good run for each rule, check that it flags only the bad one, and write runs.json and plots."""
    from stabmon.workloads.reference_runs import record

    known = dict(reference_runs()) if codes else {}
    for runs in record(directory, device, codes or ()):
        known[runs.code] = runs
        typer.echo(f"{runs.code} flags the bad run at step {runs.bad.flagged}")
        lines = [json.dumps(known[code].model_dump(mode="json"), separators=(",", ":")) for code in sorted(known)]
        (output / "runs.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
        write_plot(runs, output)


@app.command()
def draw(output: Output = FOLDER) -> None:
    """Draw plots/CODE.svg of each rule from the stored runs."""
    for runs in reference_runs().values():
        write_plot(runs, output)
    typer.echo(f"{len(reference_runs())} plots in {output / 'plots'}")


def write_plot(runs: ReferenceRuns, output: Path) -> None:
    """Draw the plot of one rule."""
    from stabmon.rules.gallery.draw import draw

    path = output / "plots" / f"{runs.code}.svg"
    path.parent.mkdir(exist_ok=True)
    path.write_text(draw(runs), encoding="utf-8")


if __name__ == "__main__":
    app()
