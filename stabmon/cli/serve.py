"""``stabmon serve``: the web page and the HTTP API over a folder of runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stabmon.errors import ConfigError
from stabmon.terminal import Terminal

if TYPE_CHECKING:
    from stabmon.store.interface import Store

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="STABMON_STORE",
        help="A team's store in place of the folder: postgresql+psycopg://user@host/name.",
    ),
]


def serve(
    directory: Annotated[Path, typer.Argument(help="Folder that holds the runs.")] = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8420,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the secret that a client must send; or set STABMON_TOKEN to it.")
    ] = None,
    webhook: Annotated[
        list[str] | None,
        typer.Option(
            envvar="STABMON_WEBHOOK",
            help="Address that gets a message when a finding opens or clears or a run ends badly; slack+https://... "
            "for Slack's form. Users of this machine can read it, those of the variable not.",
        ),
    ] = None,
    store: StoreOption = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Show the runs of a folder, live, in a web page.

    With a token, the printed address lets one browser in, once; the token itself is never printed, and is no argument,
    because every user of a machine can read those of every process.
    """
    from stabmon.server.serve import serve as run

    token = os.environ.get("STABMON_TOKEN") if token_file is None else _read(token_file)
    run(
        open_store(directory, store),
        host=host,
        port=port,
        token=token,
        open_browser=open_page,
        webhooks=webhook or (),
        announce=_announce,
    )


def open_store(directory: Path, store: str | None) -> "Path | Store":
    """Return the team's store at the address ``store``, or the folder where there is none."""
    if store is None:
        return directory
    from stabmon.store.postgres import PostgresStore

    return PostgresStore(store)


def _read(file: Path) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token from {file}: {error}") from error


def _announce(line: str) -> None:
    Terminal().print(line, soft_wrap=True)
