"""A metric's declaration as a record, for the command line and the documentation."""

from difflib import get_close_matches

from stabmon.errors import ConfigError
from stabmon.metrics.declaration import Metric, OverHeads, Place, Reduction, When
from stabmon.metrics.registry import METRICS, RAW, inputs
from stabmon.records import Record

_OVER_PASSES = {
    Reduction.ADD: "all passes together",
    Reduction.MAX: "the largest of all passes",
    Reduction.SET: "as the last pass leaves it",
}


class MetricDocument(Record):
    """One entry of the glossary."""

    name: str
    place: Place
    unit: str
    text: str
    healthy: float | None
    """The value that a healthy run is near, where there is one."""
    over_heads: OverHeads | None
    """The reduction to one number a layer; None where it is one number a layer or a run."""
    over_passes: str
    """The reduction over the passes of one optimizer step, where gradients of several are accumulated."""
    when: When
    path: str
    """Place on the data's path."""
    inputs: tuple[str, ...]
    """Raw inputs of its formula; none where the user logs it."""


def document(name: str) -> MetricDocument:
    """Return the glossary's entry for ``name``.

    Raises:
        ConfigError: the glossary has no such metric; the message lists what it has.
    """
    if name not in METRICS:
        near = get_close_matches(name, METRICS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no metric {name!r}; {hint}there are: {', '.join(METRICS)}")
    return _document(METRICS[name])


def _document(metric: Metric) -> MetricDocument:
    return MetricDocument(
        name=metric.name,
        place=metric.place,
        unit=metric.unit,
        text=metric.text,
        healthy=metric.healthy,
        over_heads=metric.over_heads if metric.place is Place.HEAD else None,
        over_passes=_over_passes(metric),
        when=metric.when,
        path=metric.path.name.lower().replace("_", " "),
        inputs=() if metric.when is When.LOGGED else metric.inputs,
    )


def _over_passes(metric: Metric) -> str:
    """Return what the declarations of the metric's raw inputs say; numbers that users log replace each other."""
    if metric.when is When.LOGGED:
        return "the last number logged"
    raw = inputs(RAW.values())
    return ", ".join(dict.fromkeys(_OVER_PASSES[raw[name][0].reduction] for name in metric.inputs))
