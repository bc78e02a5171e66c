"""``python -m stabmon.rules.gallery``: train the reference runs of the rules again, and draw their plots."""

import json
from pathlib import Path
from typing import Annotated

import typer

from stabmon.rules.gallery.stored_runs import FOLDER, reference_runs

app = typer.Typer(add_completion=False, help="Reference runs and plots of the rules.")


@app.command()
def record(
    codes: Annotated[list[str] | None, typer.Argument(help="Codes of rules; all of them where none is given.")] = None,
    directory: Annotated[
        Path, typer.Option("--dir", help="Folder for the runs; those that are in it are not trained again.")
    ] = Path("runs/reference"),
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
) -> None:
    """Train a bad and a good run for each rule, check that the rule tells them apart, and write runs.json and plots."""
    from stabmon.workloads.reference_runs import record

    known = dict(reference_runs()) if codes else {}
    for runs in record(directory, device, codes or ()):
        known[runs.code] = runs
        typer.echo(f"{runs.code} flags the bad run at step {runs.bad.flagged}")
        lines = [json.dumps(known[code].model_dump(mode="json"), separators=(",", ":")) for code in sorted(known)]
        (FOLDER / "runs.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    reference_runs.cache_clear()
    draw()


@app.command()
def draw() -> None:
    """Draw plots/CODE.svg of each rule from runs.json."""
    from stabmon.rules.gallery import draw as drawing

    folder = FOLDER / "plots"
    folder.mkdir(exist_ok=True)
    for code, runs in reference_runs().items():
        (folder / f"{code}.svg").write_text(drawing.draw(runs), encoding="utf-8")
    typer.echo(f"{len(reference_runs())} plots in {folder}")


if __name__ == "__main__":
    app()
