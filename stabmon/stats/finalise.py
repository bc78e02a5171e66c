"""The arithmetic after the copy: one raw buffer becomes one row of series, on the host, all heads at once."""

import numpy as np
import numpy.typing as npt

from stabmon.metrics import Place
from stabmon.series import MISSING, Floats
from stabmon.stats.plan import Computed, Plan

Doubles = npt.NDArray[np.float64]


def finalise(raw: Floats, plan: Plan) -> Floats:
    """Return the row of ``plan.layout`` computed from the buffer ``raw`` [plan.width]; MISSING: not measured."""
    row = np.full(plan.layout.width, MISSING, dtype=np.float32)
    wide = raw.astype(np.float64)
    changed = raw.view(np.uint32) != plan.initial.view(np.uint32)  # bits, because MISSING is a NaN
    with np.errstate(all="ignore"):
        for computed in plan.computed:
            measure = _of_run if computed.metric.place is Place.RUN else _of_columns
            measure(row[computed.columns], wide, changed, computed)
    for name, at in plan.logged.items():
        row[plan.columns[name]] = raw[at]
    return row


def _of_columns(row: Floats, wide: Doubles, changed: npt.NDArray[np.bool_], computed: Computed) -> None:
    """Write a metric of heads or layers to its columns ``row``."""
    values = computed.metric.formula(*(wide[at] for at in computed.inputs))
    measured = np.logical_and.reduce(
        [changed[at] for at in computed.counted] + [wide[at] != 0 for at in computed.nonzero]
    )
    np.copyto(row, values.astype(np.float32), where=measured)


def _of_run(row: Floats, wide: Doubles, changed: npt.NDArray[np.bool_], computed: Computed) -> None:
    """Write a metric of the run to its column ``row``; its formula is given the elements that were measured."""
    if any(changed[at].any() for at in computed.counted):
        row[:] = computed.metric.formula(*(wide[at[changed[at]]] for at in computed.inputs))
