"""The series of a run over HTTP: a metric over steps and its heatmap, packed or as JSON."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from stabmon.records import RunState
from stabmon.series import Series, worst
from stabmon.server import encoding
from stabmon.server.encoding import FORMAT, MEDIA_TYPE, JsonSeries, as_json, pack
from stabmon.server.problems import OF_A_RUN, problems
from stabmon.server.requests import Revalidated, is_known, not_modified
from stabmon.server.selection import Selection
from stabmon.server.served import Served, reading
from stabmon.store import RunReader

SERIES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": JsonSeries,
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary", "description": encoding.__doc__}}},
        "description": "The series, packed or as JSON.",
    }
}
router = APIRouter(route_class=Revalidated, responses=problems(*OF_A_RUN) | SERIES)

MAX_POINTS = 2000
"""Most points a series; a longer one comes as buckets with their lowest and highest value."""
MAX_CELLS = 4000
"""Most columns of a heatmap."""
LARGEST = 2**63 - 1
"""Largest step, sample or cursor: that of an integer of the store."""

Layer = Annotated[str | None, Query(description="Give one column a head of this layer, not one a layer.")]
FirstStep = Annotated[int | None, Query(ge=-LARGEST, le=LARGEST, description="First step, included.")]
EndStep = Annotated[int | None, Query(ge=-LARGEST, le=LARGEST, description="Last step, excluded.")]
Form = Annotated[Literal["packed", "json"], Query(alias="format", description="Bytes of float32, or JSON.")]


@router.get("/runs/{name:run}/series/{metric}", response_class=Response)
def series(
    request: Request,
    store: Served,
    name: str,
    metric: str,
    layer: Layer = None,
    start: FirstStep = None,
    stop: EndStep = None,
    points: Annotated[int, Query(ge=2, le=MAX_POINTS, description="Most points a column.")] = MAX_POINTS,
    form: Form = "packed",
) -> Response:
    """Return a metric over steps; more steps than ``points`` come as buckets with their lowest and highest value."""
    with reading(store, name) as reader:
        return _answer(request, reader, form, lambda: Selection(metric, layer).read(reader, start, stop, points))


@router.get("/runs/{name:run}/heatmap/{metric}", response_class=Response)
def heatmap(
    request: Request,
    store: Served,
    name: str,
    metric: str,
    layer: Layer = None,
    start: FirstStep = None,
    stop: EndStep = None,
    points: Annotated[int, Query(ge=2, le=MAX_CELLS, description="Most columns of cells.")] = MAX_POINTS,
    form: Form = "packed",
) -> Response:
    """Return one value a cell, layer by step or, with ``layer``, head by step.

    A cell that stands for several steps shows the value furthest from healthy.
    """
    with reading(store, name) as reader:
        return _answer(request, reader, form, lambda: worst(Selection(metric, layer).read(reader, start, stop, points)))


def _answer(request: Request, reader: RunReader, form: str, make: Callable[[], Series]) -> Response:
    """Write a series in its form; of a run that has ended, one that the client has is not read again."""
    beat = reader.heartbeat()
    headers = {}
    if beat.state in (RunState.FINISHED, RunState.FAILED):
        headers["ETag"] = tag = f'W/"{FORMAT}-{form}-{beat.samples}-{beat.step}-{beat.time}"'
        if is_known(request, tag):
            return not_modified(tag)
    if form == "json":
        return Response(as_json(make()), media_type="application/json", headers=headers)
    return Response(pack(make()), media_type=MEDIA_TYPE, headers=headers)
