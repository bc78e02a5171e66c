"""Rules about the residual stream, RES."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.records import Evidence, Severity
from stabmon.rules import remedies
from stabmon.rules.registry import Sighting, Told, rule
from stabmon.rules.thresholds import ResidualLimits
from stabmon.rules.view import Hit, Run
from stabmon.rules.words import beside, over_limit


@rule(
    "RES001",
    "branch-dominates-residual",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "ATT001"),
)
def branch_dominates_residual(run: Run, limits: ResidualLimits) -> Iterator[Sighting]:
    """Flag an attention branch that drowns the residual stream it is added to.

    What it checks: the branch ratio, rms of the branch as added over rms of the stream, within the first
        ``limits.first_steps`` steps against ``limits.branch_ratio_max`` (with hybrid norm
        ``limits.hybrid_branch_ratio_max``). The first block's stream is the bare embedding, so its ratio is the
        largest: 2.1 to 3.8 in healthy pre-norm runs, 49 in a healthy run with hybrid norm, whose branch has unit rms
        whatever the embedding's is, and 103 or more when b was wrong.
    Why it matters: what the block was given is lost under what it adds, so later layers see attention output only.
    Suggested fix: LayerScale with a small initial gain. Where the bias is the cause, ATT001 says so, and this rule
        keeps quiet.
    When the fix is wrong: for a ratio that is learnt (it is not flagged); and while the rows are too heavy:
        LayerScale 1e-2 at b = 0 brought the ratio from 1073 to 11 and the loss from 2.19 to 2.14, where the right
        bias brings 1.64. With hybrid norm, scale the embedding or the norm's gain instead.
    References: LayerScale, arXiv 2103.17239; initial gain 1e-4 in the vision runs of arXiv 2409.04431; ratios
        measured on 8 layers, n = 1024.
    """
    series = run.series("branch_ratio")
    hybrid = series.by_layer(_is_hybrid) > 0
    for hit in series.above(np.where(hybrid, limits.hybrid_branch_ratio_max, limits.branch_ratio_max)):
        attention = run.attention(hit.layer)
        yield Sighting(
            hit,
            partial(_tell, run, hit),
            partial(remedies.for_large_branch, attention) if attention is not None else tuple,
            opens=run.step < limits.first_steps,
        )


def _is_hybrid(run: Run, layer: str | None) -> float:
    attention = run.attention(layer)
    return float(attention is not None and attention.hybrid_norm)


def _tell(run: Run, hit: Hit) -> Told:
    message = over_limit(hit) + beside(run, hit.layer, "residual_in", "attention_norm", "block_growth")
    cause = "the attention branch is added without a gain that keeps it near the stream's size"
    return Told(message, cause, run.cells(hit.layer, "branch_ratio", "residual_in", "block_growth"))
