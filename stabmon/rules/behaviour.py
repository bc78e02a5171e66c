"""Rules about the training beside its softmax twin, BEH."""

from collections.abc import Iterator
from functools import partial

from stabmon.fixes.record import Fix
from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import suggested_fixes
from stabmon.rules.families import BehaviourLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.view import Hit, Run


@rule("BEH001", "behind-softmax", severity=Severity.WARNING, evidence=Evidence.MEASURED)
def behind_softmax(run: Run, limits: BehaviourLimits) -> Iterator[Observation]:
    """Flag a model that learns more slowly than the same model with softmax attention.

    What it checks: in a run with ``watch(race=True)``, the lower end of the interval of the gap, the loss of a shadow
        of this model less that of its softmax twin on the same batches, against ``limits.gap_min``. The interval is
        Student's t over means of four blocks of the last 16 batches, and the lowest of three in a row counts.
    Why it matters: a smooth curve of a run that ends far behind looks healthy to every detector: an 8B run ended at
        4.95 nats where its softmax twins ended at 2.54 and 2.63.
    Suggested fix: the first of QK norm and hybrid norm that the model does not have. Which one closes the gap in this
        model is measured by ``stabmon.race(model, step, recipes=True)``.
    When the fix is wrong: where sigmoid catches up: a gap of the first steps can close. One pair of shadows says
        nothing of other weights; race over several seeds before a long run is stopped.
    References: the 8B run of MrHuff/fast-polynomial-transcendentals (b = -log n, QK norm after RoPE); measured in
        miniature, docs/reproduce.md: 0.12 nats behind at n = 2048, 0.23 at 4096, closed by hybrid norm.
    """
    for hit in run.series("softmax_gap_low").above(limits.gap_min):
        yield Observation(hit, partial(_explain, run, hit), partial(_fixes, run))


def _explain(run: Run, hit: Hit) -> Explanation:
    mean, cost = run.value("softmax_gap", None), run.value("race_cost", None)
    message = f"{number(hit.value)} nats or more behind softmax, limit {number(hit.limit)}"
    message += "" if mean is None else f"; {number(mean)} over the last batches of the race"
    message += "" if cost is None else f", which has cost {number(100 * cost)} % of the training's time"
    cells = run.cells(None, "softmax_gap_low", "softmax_gap", "race_cost")
    return Explanation(message, "the same model with softmax attention learns faster on the same batches", cells)


def _fixes(run: Run) -> tuple[Fix, ...]:
    attention = next(iter(run.info.model.attentions), None)
    return () if attention is None else suggested_fixes.for_behind_softmax(run, attention)
