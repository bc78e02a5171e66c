"""The command line: one file a command, each importing what it needs only when it runs; ``run.py`` ends the process."""

import typer

from stabmon import __version__
from stabmon.cli import (
    ab_test,
    bench,
    compare,
    demo,
    evaluate,
    export,
    findings,
    mcp,
    metrics,
    preflight,
    report,
    reproduce,
    rules,
    selftest,
    serve,
    token,
    train,
)
from stabmon.cli.run import EXIT_CODES, ended
from stabmon.terminal import Terminal

app = typer.Typer(
    name="stabmon",
    help="The stability monitor for transformers that train with sigmoid attention.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    demo.demo,
    train.train,
    preflight.preflight,
    serve.serve,
    mcp.mcp,
    findings.findings,
    report.report,
    export.export,
    compare.compare,
    rules.rules,
    metrics.metrics,
    evaluate.evaluate,
    reproduce.reproduce,
    bench.bench,
    selftest.selftest,
):
    app.command()(command)
app.command("try")(ab_test.try_fix)
app.add_typer(token.app, name="token")


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    """Watch, diagnose and fix the training of sigmoid attention."""
    if show:
        Terminal().print(f"stabmon {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and end the process with one of its exit codes."""
    raise SystemExit(ended(app))
