"""The MCP server, asked by the package's own client in this process, and as a command over standard streams."""

import sys

import anyio
import pytest

from stabmon.server.agent import agent_server

mcp = pytest.importorskip("mcp")


@pytest.fixture
def ask(two_runs):
    """Call a tool of a server over two runs; return its answer, or the text of its error."""

    def call(tool: str, **arguments):
        async def run():
            async with mcp.Client(agent_server(two_runs.directory)) as client:
                return await client.call_tool(tool, arguments)

        result = anyio.run(run)
        return result.content[0].text if result.is_error else result.structured_content

    return call


def test_the_tools_are_listed_with_what_they_do(two_runs):
    async def run():
        async with mcp.Client(agent_server(two_runs.directory)) as client:
            return (await client.list_tools()).tools

    tools = anyio.run(run)
    assert [tool.name for tool in tools] == ["list_runs", "findings", "series", "rules", "explain_metric"]
    assert all(tool.description for tool in tools)
    assert tools[2].input_schema["properties"]["points"]["maximum"] == 500


def test_runs_are_listed_with_process_and_health(ask):
    runs = ask("list_runs")["runs"]
    assert [(run["name"], run["health"]["title"]) for run in runs] == [
        ("fixed", "Healthy"),
        ("naive", "Unhealthy since step 0"),
    ]
    assert runs[1]["beat"]["step"] == 299
    assert runs[1]["findings"] == {"error": 5, "warning": 1}


def test_findings_come_with_verdict_cause_and_fix(ask):
    found = ask("findings", run="naive")
    assert found["verdict"].startswith("Unhealthy since step 0")
    assert found["entries"][0]["code"] == "ATT001"
    assert found["entries"][0]["fix"].startswith("bias = -5.545")
    assert found["missing"] == []


def test_a_series_keeps_nan_and_what_is_missing_apart(ask):
    found = ask("series", run="naive", metric="attention_norm", layer="layers.2", start=118, stop=122)
    assert found["steps"] == [118, 119, 120, 121]
    assert found["values"][1][2] == "NaN"
    assert ask("series", run="naive", metric="row_mass", start=200, stop=202)["values"][0] == [None, None]
    buckets = ask("series", run="naive", metric="loss", points=10)
    assert len(buckets["steps"]) <= 10
    assert buckets["low"][0][0] <= buckets["values"][0][0] <= buckets["high"][0][0]


def test_rules_and_metrics_are_explained(ask):
    assert {"ATT001", "NUM001"} <= {rule["code"] for rule in ask("rules")["rules"]}
    assert ask("rules", code="starved-rows")["code"] == "ATT002"
    assert ask("explain_metric", name="row_mass")["healthy"] == 1.0


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("findings", {"run": "nope"}, "there is no run 'nope'"),
        ("series", {"run": "naive", "metric": "lost"}, "does not record 'lost'; it records: attention_norm"),
        ("series", {"run": "../two0/naive", "metric": "loss"}, "there is no run"),
        ("rules", {"code": "ATT01"}, "did you mean 'ATT001'"),
        ("explain_metric", {"name": "row_mas"}, "did you mean 'row_mass'"),
        ("series", {"run": "naive", "metric": "loss", "points": 100_000}, "less than or equal to 500"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_question_is_answered_with_what_to_ask(tool, arguments, said, ask):
    assert said in ask(tool, **arguments)


def test_the_command_speaks_over_standard_streams(two_runs):
    command = mcp.StdioServerParameters(command=sys.executable, args=["-m", "stabmon", "mcp", str(two_runs.directory)])

    async def run():
        async with mcp.Client(command) as client:
            return await client.call_tool("findings", {"run": "naive"})

    assert anyio.run(run).structured_content["health"]["level"] == "error"
