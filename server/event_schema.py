"""The events of a live stream as schemas, for the description of the API."""

from collections.abc import Callable

Schema = dict[str, object]


def _event(kind: str, data: Schema) -> Schema:
    """Return the schema of one kind of event."""
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    parts = {"event": {"const": kind}, "data": text, "id": {"type": "string"}, "retry": {"type": "integer"}}
    return {"type": "object", "properties": parts, "required": ["event", "data"]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def stream_of(text: str, framed: Callable[[Schema], Schema] = lambda data: data) -> dict[int | str, Schema]:
    """Return the declaration of a stream; ``framed`` puts an event's own data into that of the stream.

    text: what a client has to know beside.
    """
    status = {"heartbeat": _ref("Heartbeat"), "age": {"type": "number"}}
    events: dict[str, Schema] = {
        "points": {"type": "object", "additionalProperties": {"type": "string", "contentEncoding": "base64"}},
        "status": {"type": "object", "properties": status},
        "findings": {"type": "array", "items": _ref("Finding")},
        "digest": _ref("Digest"),
        "failures": {"type": "array", "items": _ref("Failure")},
        "end": {"type": "object"},
        "gone": _ref("Problem"),
    }
    schema = {"oneOf": [_event(kind, framed(data)) for kind, data in events.items()]}
    return {200: {"description": text, "content": {"text/event-stream": {"itemSchema": schema}}}}


def numbered(data: Schema) -> Schema:
    """Return the data of an event in a stream of several runs."""
    return {
        "type": "object",
        "properties": {"follow": {"type": "integer"}, "cursor": {"type": "integer"}, "data": data},
    }
