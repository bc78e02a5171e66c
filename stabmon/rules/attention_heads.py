"""Rules about heads, ATT: a layer whose attention is dead, a head with an output far larger than the others."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import suggested_fixes
from stabmon.rules.baseline import has_learnt
from stabmon.rules.families import AttentionLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside, over_limit
from stabmon.rules.view import Hit, Run

CAUSES = ("UPD001", "ATT002", "ATT003", "ATT008")


@rule("ATT006", "dead-attention-layer", severity=Severity.WARNING, evidence=Evidence.MEASURED, symptom_of=CAUSES)
def dead_attention_layer(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag a layer whose heads have all become inactive since the start.

    What it checks: whether all heads' row mass is under ``limits.dead_row_mass_max`` and the branch ratio, where it is
        recorded, under ``limits.dead_branch_ratio_max``, for ``limits.lasting`` samples in a row, in a layer whose row
        mass was above ``limits.row_mass_min`` at the run's first sample. It is information once the loss has fallen
        under ``limits.learnt_share_max`` of its start: the task then hardly needs that attention.
    Why it matters: where every weight of a row is near zero, its gradient is too, so the layer does not recover: its
        parameters and its time are wasted.
    Suggested fix: raise the bias to the value at which rows sum to one (as measured); QK norm, where logits fell far
        below zero.
    When the fix is wrong: for single heads, which become inactive in healthy runs and are not flagged.
    References: measured: single heads fell to a row mass of 0.0001 in a healthy run at learning rate 2e-2 (2.30, the
        best of its kind), while each layer kept one head above 0.05; arXiv 2409.04431 on starved rows.
    """
    series = run.series("row_mass")
    if not (series.now < limits.dead_row_mass_max).any():
        return
    for hit in series.below(limits.dead_row_mass_max):
        attention, ratio = run.attention(hit.layer), run.value("branch_ratio", hit.layer)
        alive = series.first[series.within(hit.layer)] > limits.row_mass_min
        inactive = hit.heads == hit.measured and (ratio is None or ratio < limits.dead_branch_ratio_max)
        if attention is not None and suggested_fixes.is_sigmoid(attention) and inactive and bool(alive.any()):
            explain, fixes = partial(_explain_died, run, hit), partial(suggested_fixes.for_dead, run, attention)
            severity = Severity.INFO if has_learnt(run, limits.learnt_share_max) else None
            yield Observation(hit, explain, fixes, confirmations=limits.lasting, severity=severity)


def _explain_died(run: Run, hit: Hit) -> Explanation:
    message = over_limit(hit) + beside(run, hit.layer, "branch_ratio", "logit_mean", "logit_std")
    cells = run.cells(hit.layer, "row_mass", "branch_ratio", "logit_mean", "bias", head=hit.head)
    return Explanation(message, "the logits have fallen far below the bias in every head", cells)


@rule("ATT007", "uneven-heads", severity=Severity.INFO, evidence=Evidence.MEASURED, symptom_of=CAUSES)
def uneven_heads(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag a layer in which one head's output is many times that of the others.

    What it checks: the largest attention norm of a layer's heads over their median, against
        ``limits.uneven_heads_max``, for ``limits.lasting`` samples in a row.
    Why it matters: the output of a softmax head is an average of values, so norms are similar. Those of sigmoid heads
        can differ: the output projection is then dominated by one head, and the others have almost no effect.
    Suggested fix: none that is reliable; with a learnable bias each head learns its own row mass.
    When the fix is wrong: where the run learns well: heads of a healthy run at a high learning rate differed by 18,000.
    References: measured, 4 layers of 4 heads: 4 to 25 in healthy runs, 580 with b = -10, 18,000 in one healthy run
        whose heads had died one by one.
    """
    series = run.series("attention_norm")
    shape = series.rectangle
    if shape is None or shape[1] < 2:
        return
    heads = series.now.reshape(shape)
    # Cheap first: where the smallest head is not far below the largest, neither is the median.
    if not (heads.max(axis=1) > limits.uneven_heads_max * heads.min(axis=1)).any():
        return
    with np.errstate(all="ignore"):
        ratio = heads / np.median(heads, axis=1, keepdims=True)
    for hit in series.over((ratio / limits.uneven_heads_max).reshape(-1), limits.uneven_heads_max):
        attention = run.attention(hit.layer)
        if attention is not None:
            fixes = partial(suggested_fixes.for_uneven, attention)
            yield Observation(hit, partial(_explain_uneven, run, hit), fixes, confirmations=limits.lasting)


def _explain_uneven(run: Run, hit: Hit) -> Explanation:
    ratio = hit.excess * hit.limit
    message = f"attention norm {number(hit.value)} in head {hit.head}, {number(ratio)} times the median head's"
    cells = run.cells(hit.layer, "attention_norm", "row_mass", "bias", head=hit.head)
    return Explanation(
        message + beside(run, hit.layer, "row_mass"), "the output of the other heads is almost zero", cells
    )
