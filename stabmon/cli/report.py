"""``stabmon report``: a run as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from stabmon.terminal import OutputError, Terminal, print_json


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/naive.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; without it NAME.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a run's report: verdict, findings with fixes, charts, configuration, in one HTML file without a network."""
    from stabmon.reports.page import page
    from stabmon.store import open_run

    name = run.resolve().name
    file = Path(f"{name}.html") if output is None else output
    with open_run(run) as reader:
        text = page(name, reader)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror or error}") from error
    if as_json:
        print_json({"file": str(file), "bytes": len(text.encode())})
    else:
        Terminal().print(f"Wrote {file}", soft_wrap=True)
