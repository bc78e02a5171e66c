"""Fixes of one kind, with the values that fit this model at its start. No torch."""

from stabmon.config import RunConfig
from stabmon.fixes import registry
from stabmon.fixes.effect import with_effect
from stabmon.fixes.kind import LayerFacts
from stabmon.fixes.record import Fix
from stabmon.fixes.suggest import make
from stabmon.preflight_check.report import PreflightReport

_WHY = "as asked"


def fixes_of_kind(kind: str, config: RunConfig, report: PreflightReport, value: float | None = None) -> tuple[Fix, ...]:
    """Return the fixes of ``kind`` for the run ``config``: one a layer, or one where it is of the training.

    ``value`` is the number of the kind's constructor; None takes that of ``FixKind.default``.

    Raises:
        FixError: there is no such kind, or the run can have no fix of it.
    """
    of, depth = registry.find(kind), len(report.rows)
    if of.of_training:
        known = {"learning_rate": config.training.learning_rate}
        number, setting = of.default(config, LayerFacts(depth, known), value)
        return (with_effect(make(kind, None, _WHY, value=number, setting=setting), None, known),)
    rows = {row.layer: row.numbers for row in report.rows}
    made = []
    for attention in report.map.attentions:
        measured = rows[attention.layer]
        number, setting = of.default(config, LayerFacts(depth, measured), value)
        fix = make(kind, attention, _WHY, value=number, setting=setting)
        made.append(with_effect(fix, attention, measured))
    return tuple(made)
