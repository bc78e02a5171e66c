"""The service in Prometheus' text format: runs by process and health, open findings, samples, requests.

A scrape counts over the list of runs (``fleet``), which reads a run again only where its files changed; its size does
not grow with the number of runs.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stabmon import __version__
from stabmon.server.fleet import Fleet, FleetRun

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
Counts = Mapping[tuple[str, ...], int]
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Numbers:
    """The numbers of one service; ``text`` writes them."""

    def __init__(self, fleet: Fleet) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_OfRuns(fleet))
        self.seconds = Histogram(
            "stabmon_request_seconds",
            "Time until the headers of an answer are sent.",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=self.registry,
        )

        self.notices = PrometheusCounter(
            "stabmon_webhook_notices", "Notices by what became of them.", ("result",), registry=self.registry
        )

    def text(self) -> bytes:
        """Return all numbers of now."""
        return generate_latest(self.registry)


class Timed:
    """ASGI middleware that takes the time of every request, by its route and not by its path."""

    def __init__(self, app: ASGIApp, numbers: Numbers) -> None:
        self.app, self.numbers = app, numbers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on; note the time when its headers are sent."""
        start = time.perf_counter()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path_format", "other")
                method = scope["method"] if scope["method"] in METHODS else "other"
                labels = (method, route, str(message["status"]))
                self.numbers.seconds.labels(*labels).observe(time.perf_counter() - start)
            await send(message)

        await self.app(scope, receive, noted if scope["type"] == "http" else send)


class _OfRuns(Collector):
    """The numbers that are counted over the runs when they are asked for."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """Yield the families of now."""
        runs = self.fleet.now()
        yield _gauge("stabmon_info", "Version of the service.", ("version",), {(__version__,): 1})
        yield _gauge("stabmon_runs", "Runs by process and health.", ("process", "health"), Counter(map(_state, runs)))
        yield _gauge("stabmon_open_findings", "Open findings.", ("rule", "severity"), _open_findings(runs))
        beats = [run.beat for run in runs if run.beat is not None]
        samples: Counts = {(): sum(beat.samples for beat in beats)}
        dropped: Counts = {(): sum(beat.dropped for beat in beats)}
        yield _gauge("stabmon_stored_samples", "Samples that the runs of now hold.", (), samples)
        yield _gauge("stabmon_dropped_samples", "Samples that the runs of now have lost.", (), dropped)


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Counts) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _state(run: FleetRun) -> tuple[str, str]:
    """Return process and health of a run."""
    unknown = "unreadable" if run.problem else "unread"
    return (run.beat.state if run.beat else unknown, run.health.level if run.health else "unknown")


def _open_findings(runs: Iterable[FleetRun]) -> Counts:
    return Counter((one.code, one.severity) for run in runs for one in run.found if one.cleared is None)
