"""``stabmon train``: run one documented configuration with the monitor on."""

from pathlib import Path
from typing import Annotated

import typer

from stabmon.formatting import number
from stabmon.terminal import Terminal, print_json


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a documented run such as naive.")],
    directory: Annotated[Path, typer.Option("--dir", file_okay=False, help="Folder for the run.")] = Path("runs"),
    name: Annotated[
        str | None, typer.Option(help="Name of the run; the configuration's own where none is given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps, instead of the configuration's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; the GPU where there is one.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings and the loss as one JSON object.")
    ] = False,
) -> None:
    """Train a small real model as a YAML file says; the exit code is 1 where a finding is an error."""
    from stabmon import config as configuration
    from stabmon.cli.findings import table
    from stabmon.cli.progress import training_bar
    from stabmon.records import Severity
    from stabmon.store import fresh_name
    from stabmon.workloads import training

    console = Terminal(stderr=as_json)
    loaded = configuration.load(config)
    if steps is not None:
        loaded = configuration.override(loaded, {"training.steps": steps})
    name = fresh_name(directory, name or loaded.name)
    device = training.pick_device(device)
    with training_bar(name, loaded.training.steps) as progress:
        result = training.train(loaded, directory=directory, name=name, device=device, progress=progress)
    if as_json:
        print_json(result.model_dump(exclude={"losses"}))
    else:
        console.print(f"{name}: final loss {number(result.final_loss, 4)} {result.unit}, in {result.path}")
        if result.validation_loss is not None:
            length = loaded.training.evaluate_length
            console.print(f"validation loss {number(result.validation_loss, 4)} {result.unit} at length {length}")
        console.print(table(result.findings) if result.findings else "No findings.")
    if any(finding.severity is Severity.ERROR for finding in result.findings):
        raise typer.Exit(1)
