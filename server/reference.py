"""The documentation of the API as a page, made of its OpenAPI description; it loads nothing."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{white-space:pre-wrap}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #8884}
h2{margin-top:2.5rem;border-top:2px solid #8884;padding-top:1rem}h2 code{font-size:1.05rem;overflow-wrap:anywhere}
"""


class Operation(NamedTuple):
    """One request and its answers, in words."""

    method: str
    path: str
    text: str
    parameters: tuple[tuple[str, str, str], ...]
    """Name, type and meaning."""
    answers: tuple[tuple[str, str, str], ...]
    """Status, form and meaning."""
    events: tuple[tuple[str, str], ...]
    """Name and data of the events, where the answer is a stream."""


def operations(description: Schema) -> Iterator[Operation]:
    """Yield the requests of ``description``; HEAD, which follows from GET, is left out."""
    for path, item in description["paths"].items():
        for method, operation in item.items():
            if method != "head":
                yield _operation(method, path, operation)


def _operation(method: str, path: str, operation: Schema) -> Operation:
    parameters = [
        (f"{one['name']}{'' if one['in'] == 'query' else ' (' + one['in'] + ')'}", *_typed(one))
        for one in operation.get("parameters", [])
    ]
    answers = [
        (status, ", ".join(answer.get("content", {})) or "no body", answer["description"])
        for status, answer in operation["responses"].items()
    ]
    stream = operation["responses"].get("200", {}).get("content", {}).get("text/event-stream", {})
    events = [
        (one["properties"]["event"]["const"], type_of(one["properties"]["data"]["contentSchema"]))
        for one in stream.get("itemSchema", {}).get("oneOf", ())
    ]
    text = operation.get("description", operation["summary"])
    return Operation(method.upper(), path, text, tuple(parameters), tuple(answers), tuple(events))


def _typed(parameter: Schema) -> tuple[str, str]:
    schema = parameter["schema"]
    default = schema.get("default")
    usual = "" if default is None else f" Default: {default}."
    return type_of(schema), parameter.get("description", "") + usual


def type_of(schema: Schema) -> str:
    """Return a schema in a few words: "integer", "list of Finding", "packed or json", "text, optional"."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = [type_of(one) for one in schema["anyOf"]]
        return " or ".join(kind for kind in kinds if kind != "null") + (", optional" if "null" in kinds else "")
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("properties"):
        return "{" + ", ".join(f"{name}: {type_of(one)}" for name, one in schema["properties"].items()) + "}"
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    kind = str(schema.get("type", "object"))
    return "text" if kind == "string" else kind


def page(description: Schema) -> str:
    """Return the documentation as one HTML page."""
    head = f"<title>{escape(description['info']['title'])} API</title><style>{STYLE}</style>"
    parts = [f"<h1>{escape(description['info']['title'])} {escape(description['info']['version'])}: HTTP API</h1>"]
    parts += [f"<pre>{escape(description['info']['description'])}</pre>"]
    parts += [f'<p><a href="openapi.json">OpenAPI description</a></p>{_contents(description)}']
    parts += map(_section, operations(description))
    parts += [_record(name, schema) for name, schema in description["components"]["schemas"].items()]
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{head}{"".join(parts)}</html>'


def _contents(description: Schema) -> str:
    return _table(
        ("request", "answer"), ((_link(one), one.text.partition("\n\n")[0]) for one in operations(description))
    )


def _link(one: Operation) -> str:
    return f"{one.method} {one.path}"


def _section(one: Operation) -> str:
    text = f"<h2><code>{escape(_link(one))}</code></h2><p>{escape(one.text)}</p>"
    if one.parameters:
        text += _table(("parameter", "type", "meaning"), one.parameters)
    text += _table(("status", "form", "meaning"), one.answers)
    return text + (_table(("event", "data"), one.events) if one.events else "")


def _record(name: str, schema: Schema) -> str:
    fields = ((field, type_of(own), own.get("description", "")) for field, own in schema.get("properties", {}).items())
    values = f"<p>{escape(type_of(schema))}</p>" if "enum" in schema else _table(("field", "type", "meaning"), fields)
    return f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>{values}'


def _table(head: tuple[str, ...], rows: Any) -> str:
    titles = "".join(f"<th>{escape(cell)}" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<table><thead><tr>{titles}</thead><tbody>{lines}</tbody></table>"
