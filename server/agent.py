"""An MCP server over a folder of runs, so that an agent can watch a training: it lists, reads and explains.

It reads the folder as the HTTP API does and changes nothing. A series is at most ``MOST`` points a column, since an
agent reads it as text.
"""

import json
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from stabmon import __version__, metrics, rules
from stabmon.errors import StabmonError
from stabmon.server.encoding import as_json
from stabmon.server.fleet import Fleet
from stabmon.server.routes import digest_of
from stabmon.server.selection import Selection
from stabmon.server.served import reading
from stabmon.store.run_folder import RunFolder

MOST = 500
"""Most points of a series."""
PATIENCE = 10.0
"""Seconds in which the runs of a folder are read for a list; those that are left are named as not read yet."""
ABOUT = """stabmon watches trainings of transformers with sigmoid attention. First list_runs, then findings of a run:
each has a cause and a fix. series gives the numbers behind one; rules and explain_metric say what they mean."""

Run = Annotated[str, Field(description="Name of the run, as list_runs has it.")]
Answer = TypeVar("Answer")


def agent_server(folder: Path) -> Any:
    """Return an ``mcp.server.MCPServer`` with the tools of this module over the runs in ``folder``.

    Raises:
        ImportError: the package mcp is not installed.
    """
    from mcp.server import MCPServer

    server = MCPServer("stabmon", version=__version__, instructions=ABOUT, log_level="WARNING")
    tools = Tools(folder)
    for tool in (tools.list_runs, tools.findings, tools.series, tools.rules, tools.explain_metric):
        server.tool()(_said(tool))
    return server


class Tools:
    """The tools, over one folder."""

    def __init__(self, folder: Path) -> None:
        self._store = RunFolder(folder)
        self._fleet = Fleet(self._store)

    def list_runs(self) -> dict[str, Any]:
        """List the runs: process, health, last step, number of findings by severity; newest first."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and any(run.pending for run in self._fleet.now()):
            time.sleep(0.01)
        listed = json.loads(self._fleet.json())
        shown = ("name", "process", "health", "findings", "planned", "pace", "config", "problem", "pending")
        return {"runs": [{key: run[key] for key in shown} | {"beat": run["beat"]} for run in listed["runs"]]}

    def findings(self, run: Run) -> dict[str, Any]:
        """Return the findings of a run as they are shown: verdict, then each with place, cause and fix."""
        with reading(self._store, run) as reader:
            found = digest_of(reader, reader.findings(), reader.heartbeat())
            missing = [one.text for one in reader.failures()]
        return _plain(found) | {"verdict": found.verdict, "missing": missing}

    def series(
        self,
        run: Run,
        metric: Annotated[str, Field(description="Such as loss, row_mass, attention_norm.")],
        layer: Annotated[str | None, Field(description="One column a head of this layer, not one a layer.")] = None,
        start: Annotated[int | None, Field(description="First step, included.")] = None,
        stop: Annotated[int | None, Field(description="Last step, excluded.")] = None,
        points: Annotated[int, Field(ge=2, le=MOST, description="Most points a column.")] = 50,
    ) -> dict[str, Any]:
        """Return a metric over steps; more steps than points come as buckets: mean, and the lowest and highest value.

        null was not measured; "NaN" and "Infinity" were, and are that.
        """
        with reading(self._store, run) as reader:
            found: dict[str, Any] = json.loads(as_json(Selection(metric, layer).read(reader, start, stop, points)))
        return found

    def rules(
        self, code: Annotated[str | None, Field(description="A code or name, such as ATT001; none lists all.")] = None
    ) -> dict[str, Any]:
        """Explain a rule: what it checks, why it matters, its limits and their sources, and when its fix is wrong."""
        if code is not None:
            return _plain(rules.document(code))
        documents = [rules.document(rule.code) for rule in rules.catalogue()]
        shown = ("code", "name", "severity", "title")
        return {"rules": [{key: _plain(one)[key] for key in shown} for one in documents]}

    def explain_metric(
        self, name: Annotated[str, Field(description="Such as row_mass, twin_ratio, branch_ratio.")]
    ) -> dict[str, Any]:
        """Explain a recorded metric: its definition, unit, and the value that a healthy run is near."""
        return _plain(metrics.document(name))


def _plain(record: BaseModel) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.model_dump_json())
    return found


def _said(tool: Callable[..., Answer]) -> Callable[..., Answer]:
    """Return ``tool`` with our errors as those of MCP: the agent gets the sentence, and can ask better."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def run(*arguments: Any, **named: Any) -> Answer:
        try:
            return tool(*arguments, **named)
        except HTTPException as error:
            raise ToolError(str(error.detail)) from error
        except (StabmonError, OSError) as error:
            raise ToolError(str(error)) from error

    return run
