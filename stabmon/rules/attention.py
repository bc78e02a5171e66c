"""Rules about attention at the start of a run, ATT: row mass too large or too small."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.findings import Reading
from stabmon.formatting import number
from stabmon.records import Attention, Evidence, Severity
from stabmon.rules import run_config, suggested_fixes
from stabmon.rules.baseline import has_learnt
from stabmon.rules.families import AttentionLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside, over_limit
from stabmon.rules.view import Hit, Run


@rule(
    "ATT001",
    "large-initial-attention-norm",
    severity=Severity.ERROR,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001",),
)
def large_initial_attention_norm(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag sigmoid attention whose output is many times that of softmax from the first step on.

    What it checks: the twin ratio (attention norm over that of softmax on the same q, k, v) against
        ``limits.twin_ratio_max`` where preflight measured it; else the row mass in the first ``limits.first_steps``
        steps, from the first sample on, against ``limits.row_mass_max``. Layers whose LayerScale keeps the branch ratio
        under ``limits.tamed_branch_ratio_max`` are not flagged.
    Why it matters: a row of sigmoid attention is not normalised. With b = 0 it sums to about n/2, the output is
        hundreds of times too large, and the loss looks normal: at step 50 it was within 0.06 of the loss with softmax,
        at step 250 it was 0.6 nats worse.
    Suggested fix: the bias at which rows sum to one; in vision then LayerScale (in place of the bias it fixed none of
        the runs of configs/evaluation.yaml in which it was tried). Where the bias fits the length and the logits have a
        large standard deviation, QK norm. From n = 4096 on, hybrid norm in addition.
    When the fix is wrong: with ALiBi, which gives most keys almost no weight: with -log n the row mass would be far
        below one, so use the measured bias. QK norm, LayerScale or hybrid norm in place of the bias helped little while
        b was 0.
    References: arXiv 2409.04431 on attention norms at the start of training; stabmon's runs of a byte-level language
        model, 8 layers, n = 1024: final loss 1.64 with b = -log n, 2.08 with b = -3, 2.19 with b = 0.
    """
    hits = {hit.layer: hit for hit in run.series("row_mass").above(limits.row_mass_max)}
    ratios = run.series("twin_ratio")
    if np.isfinite(ratios.now).any():
        hits = {layer: hit for layer, hit in hits.items() if not run.was_measured("twin_ratio", layer)}
        hits |= {hit.layer: hit for hit in ratios.above(limits.twin_ratio_max)}
    for layer, hit in hits.items():
        attention = run.attention(layer)
        if attention is not None and suggested_fixes.is_sigmoid(attention) and not _tamed(run, attention, limits):
            yield Observation(
                hit,
                partial(_explain_large, run, hit, attention),
                partial(suggested_fixes.for_large_start, run, attention),
                opens=run.step < limits.first_steps and _began_large(run, hit),
            )


def _began_large(run: Run, hit: Hit) -> bool:
    """Return whether a layer was over the limit at its first sample; what a step makes large is no start."""
    series = run.series(hit.metric)
    return not bool((series.first[series.within(hit.layer)] <= hit.limit).all())


def _tamed(run: Run, attention: Attention, limits: AttentionLimits) -> bool:
    ratio = run.value("branch_ratio", attention.layer) if attention.layer_scale else None
    return ratio is not None and ratio <= limits.tamed_branch_ratio_max


def _explain_large(run: Run, hit: Hit, attention: Attention) -> Explanation:
    metrics = [metric for metric in ("attention_norm", "twin_ratio", "row_mass") if metric != hit.metric]
    message = over_limit(hit) + beside(run, hit.layer, *metrics) + _bias_words(run, attention)
    bias, best = suggested_fixes.bias_of(run, attention), run.value("best_bias", attention.layer)
    excess = suggested_fixes.bias_excess(run, attention)
    if excess is not None and excess <= suggested_fixes.SAME_BIAS:
        cause = "the bias fits the length, so the logits have a large standard deviation at the start"
    elif bias is not None and best is not None:
        cause = (
            f"the bias is {number(bias - best)} above b*, and a row of sigmoid attention is not normalised otherwise"
        )
    elif excess is not None:
        cause = f"the bias is {number(excess)} above -log n, and a row of sigmoid attention is not normalised otherwise"
    else:
        cause = "a row of sigmoid attention is not normalised, and the bias does not compensate for the number of keys"
    return Explanation(
        message, cause, _cells(run, hit, "twin_ratio", "row_mass", "attention_norm", "bias", "best_bias")
    )


def _bias_words(run: Run, attention: Attention) -> str:
    """Return the bias, and b* where it was measured; an estimate from a run's worst step is not valid for its start."""
    bias, best = suggested_fixes.bias_of(run, attention), run.value("best_bias", attention.layer)
    words = "" if bias is None else f"; b = {number(bias, 4)}"
    return words if best is None else f"{words}; rows sum to one near b* = {number(best, 4)}"


def _cells(run: Run, hit: Hit, *metrics: str) -> tuple[Reading, ...]:
    return run.cells(hit.layer, *dict.fromkeys((hit.metric, *metrics)), head=hit.head)


@rule("ATT002", "starved-rows", severity=Severity.WARNING, evidence=Evidence.MEASURED)
def starved_rows(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag sigmoid attention whose rows sum to almost nothing.

    What it checks: the mean row mass of each head against ``limits.row_mass_min``; at least
        ``limits.starved_heads_min`` of a layer's heads must be under it within the first ``limits.first_steps`` steps,
        at the first sample or for ``limits.confirmations`` samples in a row. Later no finding opens: heads that become
        inactive by learning are normal. Without a causal mask the finding is information, until that share of heads has
        been below ``limits.unmasked_row_mass_max`` for ``limits.starved_samples`` samples from the first on, while the
        branch ratio was measured and is under ``limits.dead_branch_ratio_max``, no head of any layer has a row mass of
        ``limits.recovered_row_mass_min`` and the loss is above ``limits.learnt_share_max`` of its start.
    Why it matters: the attention then adds nothing to the stream, its gradients are as small, and the model trains as
        if it had no attention: 1.84 instead of 1.64 nats after 250 steps with b four below -log n. The loss curve does
        not show it. In a causal model attention is the only path between tokens. Other models may not need it, such as
        a speech encoder that classifies each frame by itself, and some recover: one layer with attention makes up for
        those without.
    Suggested fix: raise b to the value at which rows sum to one. With ALiBi remove b, or use the measured value; for
        images use learned positions in place of ALiBi.
    When the fix is wrong: for a learnable bias, which can rise by itself (runs that start at -10 are reported to train
        well): the finding is information, unless the learning rate times the planned steps, the largest distance that
        Adam moves a weight, is too small to reach -log n. For heads whose row mass falls later in the run: in a healthy
        run of 4 layers 3 of 4 heads of one layer fell to 0.01 after 60 steps.
    References: arXiv 2409.04431, whose smallest configuration (n = 64, b = -10) has a row mass of 0.004; measured:
        ALiBi with -log n at n = 2048 has 0.002 to 0.18.
    """
    for hit in run.series("row_mass").below(limits.row_mass_min):
        attention = run.attention(hit.layer)
        if attention is None or not suggested_fixes.is_sigmoid(attention):
            continue
        yield Observation(
            hit,
            partial(_explain_starved, run, hit, attention),
            partial(suggested_fixes.for_starved, run, attention),
            opens=_starts(run, limits) and hit.heads >= limits.starved_heads_min * hit.measured,
            confirmations=1 if run.samples == 1 else limits.confirmations,
            severity=None if _is_harmful(run, attention, limits) else Severity.INFO,
        )


def _starts(run: Run, limits: AttentionLimits) -> bool:
    """Return whether a finding may open or become more severe: at the start, or when rows should have recovered."""
    return run.step < limits.first_steps or run.samples == limits.starved_samples


def _is_harmful(run: Run, attention: Attention, limits: AttentionLimits) -> bool:
    """Return whether starved rows are known to be harmful, in this kind of model or by their course in this run."""
    if attention.bias == "learnable" and _climbs(run, attention):
        return False
    return attention.is_causal is not False or _stays_starved(run, attention, limits)


def _climbs(run: Run, attention: Attention) -> bool:
    reach, excess = run_config.reach(run), suggested_fixes.bias_excess(run, attention)
    return reach is None or excess is None or reach >= -excess


def _stays_starved(run: Run, attention: Attention, limits: AttentionLimits) -> bool:
    if run.samples < limits.starved_samples or has_learnt(run, limits.learnt_share_max):
        return False
    series, ratio = run.series("row_mass"), run.value("branch_ratio", attention.layer)
    if (series.now >= limits.recovered_row_mass_min).any():
        return False
    past = series.past(int(limits.starved_samples))[:, series.within(attention.layer)]
    starved = float((past < limits.unmasked_row_mass_max).all(axis=0).mean())
    return starved >= limits.starved_heads_min and ratio is not None and ratio < limits.dead_branch_ratio_max


def _explain_starved(run: Run, hit: Hit, attention: Attention) -> Explanation:
    message = over_limit(hit) + beside(run, hit.layer, "attention_norm", "twin_ratio") + _bias_words(run, attention)
    excess = suggested_fixes.bias_excess(run, attention)
    if attention.position == "alibi":
        cause = "ALiBi already gives most keys almost no weight, and -log n accounts for them a second time"
    elif excess is not None and excess < -suggested_fixes.SAME_BIAS:
        cause = f"the bias is {number(-excess)} below -log n"
    else:
        cause = "the logits are far below zero: queries and keys have opposite directions"
    return Explanation(message, cause, _cells(run, hit, "row_mass", "attention_norm", "bias", "best_bias"))
