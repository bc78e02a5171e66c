"""``stabmon export``: a run's numbers for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stabmon.formatting import plural
from stabmon.terminal import Terminal, print_json


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/naive.")],
    form: Annotated[
        Literal["csv", "parquet"],
        typer.Option("--format", help="parquet needs pyarrow: pip install 'stabmon[parquet]'."),
    ] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; without it NAME.csv or NAME.parquet.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write every sample of a run to a file, a column for each metric, layer and head, with its unit."""
    from stabmon.reports.export import export as write
    from stabmon.reports.export import fields
    from stabmon.store import open_run

    with open_run(run) as reader:
        file = Path(f"{run.resolve().name}.{form}") if output is None else output
        samples, columns = write(reader, file, form), len(fields(reader))
    if as_json:
        print_json({"file": str(file), "samples": samples, "columns": columns})
    else:
        Terminal().print(f"Wrote {plural(samples, 'sample')} of {plural(columns, 'column')} to {file}", soft_wrap=True)
