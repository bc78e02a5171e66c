"""The command line: one file a command, each importing what it needs only when it runs.

Exit codes: 0 healthy, 1 findings at error level (``preflight``, ``findings`` and ``train``), 2 wrong use.
"""

import sys

import typer
from rich.console import Console

from stabmon import __version__
from stabmon.cli import ab_test, bench, demo, evaluate, findings, metrics, preflight, rules, serve, train
from stabmon.errors import StabmonError

app = typer.Typer(
    name="stabmon",
    help="The stability monitor for transformers that train with sigmoid attention.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    demo.demo,
    train.train,
    preflight.preflight,
    serve.serve,
    findings.findings,
    rules.rules,
    metrics.metrics,
    evaluate.evaluate,
    bench.bench,
):
    app.command()(command)
app.command("try")(ab_test.try_fix)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    """Watch, diagnose and mend the training of sigmoid attention."""
    if show:
        typer.echo(f"stabmon {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; an error meant for the user is printed without a traceback and exits with 2."""
    try:
        app()
    except StabmonError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(2)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
