"""``stabmon mcp``: the runs of a folder for an agent."""

from pathlib import Path
from typing import Annotated

import typer

from stabmon.errors import ConfigError


def mcp(
    directory: Annotated[Path, typer.Argument(help="Folder that holds the runs.")] = Path("runs"),
) -> None:
    """Let an agent list and read runs, by the Model Context Protocol over standard input and output.

    Tools: list_runs, findings, series, rules, explain_metric. An agent's configuration names this command:
    {"command": "stabmon", "args": ["mcp", "runs"]}. Needs the extra: pip install 'stabmon[mcp]'.
    """
    from stabmon.server.agent import agent_server

    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a folder; give the folder that holds the runs")
    try:
        server = agent_server(directory)
    except ImportError as error:
        raise ConfigError("this needs the package mcp: pip install 'stabmon[mcp]'") from error
    server.run()
