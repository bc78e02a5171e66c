"""The glossary: every metric by name, and the raw inputs that they are computed from."""

from collections.abc import Iterable

from stabmon.metrics import attention, block, run
from stabmon.metrics.declaration import DataPath, Metric, Per, Place, Raw, When

METRICS: dict[str, Metric] = {}
"""Every metric by name, in the order in which they are shown and lie in a row."""
RAW: dict[str, Raw] = {}
"""Every raw input by name."""

_PLACES = {Place.HEAD: set(Per), Place.LAYER: {Per.ATTENTION, Per.BLOCK, Per.RUN}, Place.RUN: set(Per)}
"""The raw inputs from which a metric of a place can be computed."""


def register(metric: Metric, *raw: Raw) -> None:
    """Add ``metric`` to the glossary, and ``raw`` to the inputs; models that are watched from now on record it.

    Raises:
        ValueError: a name is taken, or the formula names an input that does not exist or has too many numbers.
    """
    taken = [one.name for one in raw if one.name in RAW] + [metric.name] * (metric.name in METRICS)
    if taken:
        raise ValueError(f"{', '.join(taken)} is declared already; choose another name")
    if metric.when is not When.LOGGED:
        _check(metric, inputs([*RAW.values(), *raw]))
    RAW.update({one.name: one for one in raw})
    METRICS[metric.name] = metric


def unregister(metric: Metric, *raw: Raw) -> None:
    """Take ``metric`` and ``raw`` out again."""
    del METRICS[metric.name]
    for one in raw:
        del RAW[one.name]


def inputs(raw: Iterable[Raw]) -> dict[str, tuple[Raw, int]]:
    """Return by the name that formulas use: the raw input, and the column in it."""
    return {name: (one, column) for one in raw for column, name in enumerate(one.inputs)}


def is_logged(name: str) -> bool:
    """Return whether users give this number to ``monitor.log``; a name that the glossary lacks is such a number."""
    return name not in METRICS or METRICS[name].when is When.LOGGED


def describe(name: str, place: Place) -> Metric:
    """Return the declaration of ``name``; of a metric that is not in the glossary, what can be said of any."""
    return METRICS.get(name) or Metric(name, place, "", DataPath.LOSS, unit="as logged", when=When.LOGGED)


def on_path(name: str) -> tuple[DataPath, int]:
    """Return where on the data's path the metric ``name`` is, and its rank among those of one place.

    A metric that is not in the glossary comes after those of its layer.
    """
    names = list(METRICS)
    return (METRICS[name].path, names.index(name)) if name in METRICS else (DataPath.LOSS, len(names))


def _check(metric: Metric, known: dict[str, tuple[Raw, int]]) -> None:
    for name in (*metric.inputs, *metric.counted):
        if name not in known:
            raise ValueError(f"{metric.name} needs the raw input {name!r}; there are: {', '.join(known)}")
        if known[name][0].per not in _PLACES[metric.place]:
            raise ValueError(f"{metric.name} is one number a {metric.place}, but {name} is one number a head")


for _module in (attention, block, run):
    RAW.update({one.name: one for one in _module.RAW})
for _module in (attention, block, run):
    for _metric in _module.METRICS:
        register(_metric)
