"""The HTTP API: runs, findings, series, heatmaps and the rule catalogue. Read-only; a run is named by its folder."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response

from stabmon import rules
from stabmon.errors import ConfigError
from stabmon.findings import Digest, Finding
from stabmon.findings import digest as words_of
from stabmon.findings.digest import in_order
from stabmon.metrics import Place, describe
from stabmon.records import Heartbeat, Record, RunInfo, RunState
from stabmon.rules import RuleDocument, gallery
from stabmon.series import Layout, Series
from stabmon.server.encoding import FORMAT, MEDIA_TYPE, pack, worst
from stabmon.server.fleet import Fleet, RunList
from stabmon.server.folder import Folder, reading
from stabmon.server.requests import Revalidated, is_known, not_modified
from stabmon.server.selection import Selection
from stabmon.store import RunReader

router = APIRouter(route_class=Revalidated)

MAX_POINTS = 2000
"""Most points a series; a longer one comes as buckets with their lowest and highest value."""
MAX_CELLS = 4000
"""Most columns of a heatmap."""

Layer = Annotated[str | None, Query(description="Give one column a head of this layer, not one a layer.")]
LARGEST = 2**63 - 1
"""Largest step, sample or cursor: that of an integer of the store."""
FirstStep = Annotated[int | None, Query(ge=-LARGEST, le=LARGEST, description="First step, included.")]
EndStep = Annotated[int | None, Query(ge=-LARGEST, le=LARGEST, description="Last step, excluded.")]
BINARY: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        "description": "Packed float32 series.",
    }
}


PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}, "description": "The picture."}
}


class MetricInfo(Record):
    """One recorded metric, with the glossary's words and where it was recorded."""

    name: str
    place: Place
    unit: str
    text: str
    healthy: float | None
    layers: tuple[str | None, ...]
    heads: tuple[int, ...]
    """Number of columns of each of ``layers``."""


class RunDetail(Record):
    """One run: what it is, its present state, what it records."""

    name: str
    info: RunInfo
    heartbeat: Heartbeat
    """Its ``time`` against the answer's ``Date`` says how old it is, whatever the clock of the client."""
    metrics: tuple[MetricInfo, ...]
    sampled: int
    """Samples of all attempts: the cursor of a live stream that begins with what comes next."""


@router.get("/runs", response_model=RunList)
def runs(request: Request) -> Response:
    """List the runs, newest first, each with its process, health, progress and the settings in which it differs.

    A run with ``pending`` has not been read yet, or has changed since: ask again.
    """
    fleet = request.app.state.fleet
    assert isinstance(fleet, Fleet)
    return Response(fleet.json(), media_type="application/json")


@router.get("/runs/{name}")
def run(folder: Folder, name: str) -> RunDetail:
    """Describe one run."""
    with reading(folder, name) as reader:
        beat = reader.heartbeat()
        return RunDetail(
            name=name,
            info=reader.info,
            heartbeat=beat,
            metrics=tuple(recorded(reader.layout)),
            sampled=beat.samples,
        )


@router.get("/runs/{name}/findings")
def findings(folder: Folder, name: str) -> tuple[Finding, ...]:
    """List a run's findings in the digest's order: open first, then by severity and by the step of opening."""
    with reading(folder, name) as reader:
        return in_order(reader.findings())


@router.get("/runs/{name}/digest")
def digest(folder: Folder, name: str) -> Digest:
    """Return a run's findings as they are shown: health, counts, and entries in order, symptoms under their cause.

    ``keys`` of an entry name findings as ``CODE:LAYER:OPENED``.
    """
    with reading(folder, name) as reader:
        return digest_of(reader, reader.findings(), reader.heartbeat())


@router.get("/runs/{name}/series/{metric}", response_class=Response, responses=BINARY)
def series(
    request: Request,
    folder: Folder,
    name: str,
    metric: str,
    layer: Layer = None,
    start: FirstStep = None,
    stop: EndStep = None,
    points: Annotated[int, Query(ge=2, le=MAX_POINTS, description="Most points a column.")] = MAX_POINTS,
) -> Response:
    """Return a metric over steps; more steps than ``points`` come as buckets with their lowest and highest value."""
    with reading(folder, name) as reader:
        return answer(request, reader, lambda: Selection(metric, layer).read(reader, start, stop, points))


@router.get("/runs/{name}/heatmap/{metric}", response_class=Response, responses=BINARY)
def heatmap(
    request: Request,
    folder: Folder,
    name: str,
    metric: str,
    layer: Layer = None,
    start: FirstStep = None,
    stop: EndStep = None,
    points: Annotated[int, Query(ge=2, le=MAX_CELLS, description="Most columns of cells.")] = MAX_POINTS,
) -> Response:
    """Return one value a cell, layer by step or, with ``layer``, head by step.

    A cell that stands for several steps shows the value furthest from healthy.
    """
    with reading(folder, name) as reader:
        return answer(request, reader, lambda: worst(Selection(metric, layer).read(reader, start, stop, points)))


@router.get("/rules")
def catalogue() -> tuple[RuleDocument, ...]:
    """List every rule with its documentation and limits."""
    return tuple(rules.document(rule.code) for rule in rules.catalogue())


@router.get("/rules/{code}/plot", response_class=Response, responses=PICTURE)
def plot(code: str) -> Response:
    """Return the reference plot of a rule, a bad and a good run side by side, as SVG; 404 for a rule without one."""
    try:
        path = gallery.plot_of(code)
    except ConfigError as error:
        raise HTTPException(404, str(error)) from None
    if path is None:
        raise HTTPException(404, f"rule {code} has no reference plot")
    headers = {"Cache-Control": "max-age=3600"}
    return Response(path.read_text(encoding="utf-8"), media_type="image/svg+xml", headers=headers)


def digest_of(reader: RunReader, found: Sequence[Finding], beat: Heartbeat) -> Digest:
    """Return the digest of ``found`` in a run whose heartbeat is ``beat``."""
    layers = len(reader.info.model.attentions)
    return words_of(found, layers=layers, beat=beat)


def recorded(layout: Layout) -> Iterable[MetricInfo]:
    """Describe the metrics of ``layout`` in the glossary's order."""
    for name in layout.metrics:
        columns = layout.of_metric(name)
        known = describe(name, Place.LAYER if columns[0].layer else Place.RUN)
        yield MetricInfo(
            name=name,
            place=known.place,
            unit=known.unit,
            text=known.text,
            healthy=known.healthy,
            layers=tuple(column.layer for column in columns),
            heads=tuple(column.size for column in columns),
        )


def answer(request: Request, reader: RunReader, make: Callable[[], Series]) -> Response:
    """Pack a series; of a run that has ended, one that the client has is not read again."""
    beat = reader.heartbeat()
    headers = {}
    if beat.state in (RunState.FINISHED, RunState.FAILED):
        headers["ETag"] = tag = f'W/"{FORMAT}-{beat.samples}-{beat.step}-{beat.time}"'
        if is_known(request, tag):
            return not_modified(tag)
    return Response(pack(make()), media_type=MEDIA_TYPE, headers=headers)
