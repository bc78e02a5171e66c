"""The HTTP API: runs, findings and the rule catalogue. Read-only; a run is named by its folder."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from stabmon import rules
from stabmon.errors import ConfigError
from stabmon.findings import Digest, Finding
from stabmon.findings import digest as words_of
from stabmon.findings.digest import in_order
from stabmon.metrics import METRICS, MetricDocument, Place, describe, document
from stabmon.records import Failure, Heartbeat, Record, RunInfo
from stabmon.rules import Limits, RuleDocument, gallery
from stabmon.series import Layout
from stabmon.server.fleet import Fleet, RunList
from stabmon.server.problems import OF_A_RUN, problems
from stabmon.server.requests import Revalidated
from stabmon.server.run_address import RUN
from stabmon.server.served import Served, reading
from stabmon.store import RunReader

router = APIRouter(route_class=Revalidated)
last = APIRouter(route_class=Revalidated)
"""To be included after all other routers: a run's address may hold slashes, and takes whatever they do not."""

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
    low: float | None
    """Limit of the run's rules below which they flag it; None where there is none."""
    high: float | None
    """Limit above which they flag it. A rule may ask for more than this, such as the first steps."""
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
    bytes: int
    """Size of the run's file."""
    sampled: int
    """Samples of all attempts: the cursor of a live stream that begins with what comes next."""


@router.get("/runs", response_model=RunList, responses=problems(409))
def runs(request: Request) -> Response:
    """List the runs, newest first, each with its process, health, progress and the settings in which it differs.

    A run with ``pending`` has not been read yet, or has changed since: ask again.
    """
    fleet = request.app.state.fleet
    assert isinstance(fleet, Fleet)
    return Response(fleet.json(), media_type="application/json")


@last.get(RUN, responses=problems(*OF_A_RUN))
def run(store: Served, name: str) -> RunDetail:
    """Describe one run."""
    with reading(store, name) as reader:
        return detail_of(reader, name)


@router.get("/runs/{name:run}/findings", responses=problems(*OF_A_RUN))
def findings(store: Served, name: str) -> tuple[Finding, ...]:
    """List a run's findings in the digest's order: open first, then by severity and by the step of opening."""
    with reading(store, name) as reader:
        return in_order(reader.findings())


@router.get("/runs/{name:run}/digest", responses=problems(*OF_A_RUN))
def digest(store: Served, name: str) -> Digest:
    """Return a run's findings as they are shown: health, counts, and entries in order, symptoms under their cause.

    ``keys`` of an entry name findings as ``CODE:LAYER:OPENED``.
    """
    with reading(store, name) as reader:
        return digest_of(reader, reader.findings(), reader.heartbeat())


@router.get("/runs/{name:run}/failures", responses=problems(*OF_A_RUN))
def failures(store: Served, name: str) -> tuple[Failure, ...]:
    """List what is missing in a run and why, in the order in which it was seen; the run's other numbers are right."""
    with reading(store, name) as reader:
        return reader.failures()


@router.get("/glossary")
def glossary() -> tuple[MetricDocument, ...]:
    """List every metric that stabmon can record, with what it means."""
    return tuple(document(name) for name in METRICS)


@router.get("/rules")
def catalogue() -> tuple[RuleDocument, ...]:
    """List every rule with its documentation and limits."""
    return tuple(rules.document(rule.code) for rule in rules.catalogue())


@router.get("/rules/{code}/plot", response_class=Response, responses=PICTURE | problems(404, 422))
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


def detail_of(reader: RunReader, name: str) -> RunDetail:
    """Describe the run ``name`` that ``reader`` has open."""
    beat = reader.heartbeat()
    return RunDetail(
        name=name,
        info=reader.info,
        heartbeat=beat,
        metrics=tuple(recorded(reader.layout, limits_of(reader.info))),
        bytes=reader.sizes.bytes,
        sampled=beat.samples,
    )


def limits_of(info: RunInfo) -> Limits:
    """Return the limits of a run's rules; the defaults where it has some that this stabmon does not know."""
    try:
        return Limits.from_mapping(info.limits)
    except ConfigError:
        return Limits()


def digest_of(reader: RunReader, found: Sequence[Finding], beat: Heartbeat) -> Digest:
    """Return the digest of ``found`` in a run whose heartbeat is ``beat``."""
    layers = len(reader.info.model.attentions)
    return words_of(found, layers=layers, beat=beat)


def recorded(layout: Layout, limits: Limits) -> Iterable[MetricInfo]:
    """Describe the metrics of ``layout`` in the glossary's order."""
    for name in layout.metrics:
        columns = layout.of_metric(name)
        known = describe(name, Place.LAYER if columns[0].layer else Place.RUN)
        low, high = limits.band(name)
        yield MetricInfo(
            name=name,
            place=known.place,
            unit=known.unit,
            text=known.text,
            healthy=known.healthy,
            low=low,
            high=high,
            layers=tuple(column.layer for column in columns),
            heads=tuple(column.size for column in columns),
        )
