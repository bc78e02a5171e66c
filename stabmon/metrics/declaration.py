"""The form of a metric's declaration, and of the raw inputs in the device buffer that it is computed from."""

import inspect
from collections.abc import Callable
from enum import Flag, IntEnum, StrEnum, auto
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.records import Attention

Doubles = npt.NDArray[np.float64]


class Place(StrEnum):
    """The unit of the model that a metric is measured for: each head, each layer, or the run."""

    HEAD = "head"
    LAYER = "layer"
    RUN = "run"


class OverHeads(StrEnum):
    """The reduction of one number a head to one number a layer."""

    ROOT_SUM_SQUARE = "root_sum_square"
    ROOT_MEAN_SQUARE = "root_mean_square"
    MEAN = "mean"
    MAX = "max"


class When(StrEnum):
    """The runs that have a metric."""

    ALWAYS = "always"
    TRAINING = "training"
    """Not in the single pass of ``preflight``."""
    PREFLIGHT = "preflight"
    """In the single pass of ``preflight`` alone."""
    OPTIMIZER = "optimizer"
    """In runs whose optimizer ``watch`` was given."""
    DISTRIBUTED = "distributed"
    """In runs of several processes."""
    LOGGED = "logged"
    """In runs whose user gives it to ``monitor.log``; it has no formula."""


class DataPath(IntEnum):
    """The places on the data's path, first to last: the layers one after another, the loss, and back."""

    INPUT = auto()
    PROJECTION = auto()
    BIAS = auto()
    LOGITS = auto()
    WEIGHTS = auto()
    OUTPUT = auto()
    LAYER_SCALE = auto()
    BRANCH = auto()
    BLOCK_OUTPUT = auto()
    LOSS = auto()
    GRADIENT = auto()


class Shown(Flag):
    """The views with room for a few metrics; the page, the store and the API have every one."""

    NOWHERE = 0
    PREFLIGHT = auto()
    """A column of preflight's report."""
    CURVE = auto()
    """A curve a layer in TensorBoard."""
    HEATMAP = auto()
    """Heatmaps in TensorBoard."""


class Reduction(StrEnum):
    """The combination of a raw input over the calls of one step; it starts a step at 0, -inf or ``MISSING``."""

    ADD = "add"
    MAX = "max"
    SET = "set"


class OverProcesses(StrEnum):
    """The combination of a raw input over the processes of a training that measured it."""

    SUM = "sum"
    MAX = "max"
    MEAN = "mean"
    ROOT_MEAN_SQUARE = "root_mean_square"


_OVER_PROCESSES = {
    Reduction.ADD: OverProcesses.SUM,
    Reduction.MAX: OverProcesses.MAX,
    Reduction.SET: OverProcesses.MEAN,
}


class Per(StrEnum):
    """The part of a model that has a raw input of its own; a block's is shared by its attentions."""

    HEAD = "head"
    ATTENTION = "attention"
    BLOCK = "block"
    RUN = "run"


class Raw(NamedTuple):
    """Numbers that a hook writes into the device buffer.

    name: the key of the slice that holds them.
    columns: names of several numbers that lie side by side, [heads, columns]; a single one has the raw input's name.
    is_norm: whether it is a norm, of which each process knows its own shards': they join as a root mean square.
    """

    name: str
    per: Per
    reduction: Reduction
    columns: tuple[str, ...] = ()
    is_norm: bool = False

    @property
    def over_processes(self) -> OverProcesses:
        """The combination over processes: sums add, numbers that are set are averaged."""
        return OverProcesses.ROOT_MEAN_SQUARE if self.is_norm else _OVER_PROCESSES[self.reduction]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names under which formulas know the numbers."""
        return self.columns or (self.name,)


def identity(value: Doubles) -> Doubles:
    """Return ``value``: the formula of a metric that is its raw input."""
    return value


class Metric(NamedTuple):
    """One recorded quantity.

    name: the key in stores, rules, tags and the HTTP API.
    text: what it is, as the glossary prints it.
    path: where on the data's path it is measured; within one place the glossary's order counts.
    formula: from raw inputs, which its parameters name, to values, float64: one element a head or a layer. For a metric
        of the run, a parameter holds all elements that were measured, [k].
        By default the value is the raw input of the metric's own name.
    counted: raw inputs that must have changed since the step began, else the metric is ``MISSING``; for a metric of the
        run, one of them. By default the formula's inputs.
    nonzero: raw inputs that the value is missing for where they are 0: a ratio to a stream of zeros says nothing.
    unit: "1" for a pure number.
    healthy: the value a healthy run is near, where there is one; the page centres its colours on it.
    where: the attentions that have it.
    """

    name: str
    place: Place
    text: str
    path: DataPath
    formula: Callable[..., Doubles] = identity
    counted: tuple[str, ...] = ()
    nonzero: tuple[str, ...] = ()
    unit: str = "1"
    over_heads: OverHeads = OverHeads.MEAN
    healthy: float | None = None
    when: When = When.ALWAYS
    where: Callable[[Attention], bool] = lambda attention: True
    shown: Shown = Shown.NOWHERE

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw inputs of the formula, in its order."""
        return (self.name,) if self.formula is identity else tuple(inspect.signature(self.formula).parameters)
