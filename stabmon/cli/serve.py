"""``stabmon serve``: the web page and the HTTP API over a folder of runs."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    directory: Annotated[Path, typer.Argument(help="Folder that holds the runs.")] = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8420,
    token: Annotated[str | None, typer.Option(envvar="STABMON_TOKEN", help="Secret that a client must send.")] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Show the runs of a folder, live, in a web page."""
    from stabmon.server.serve import serve as run

    run(directory, host=host, port=port, token=token, open_browser=open_page)
