"""Rules about what an attention computes, ATT: its norm, row mass, logits and weights."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.records import Attention, Cell, Evidence, Severity
from stabmon.rules import remedies
from stabmon.rules.registry import Sighting, Told, rule
from stabmon.rules.thresholds import AttentionLimits
from stabmon.rules.view import HOLD, Hit, Limit, Run
from stabmon.rules.words import beside, number, over_limit
from stabmon.series import Spot


@rule(
    "ATT001",
    "large-initial-attention-norm",
    severity=Severity.ERROR,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001",),
)
def large_initial_attention_norm(run: Run, limits: AttentionLimits) -> Iterator[Sighting]:
    """Flag sigmoid attention whose output is many times softmax's from the first step on.

    What it checks: the twin ratio (attention norm over that of softmax on the same q, k, v) against
        ``limits.twin_ratio_max`` where preflight measured it; else the row mass in the first ``limits.first_steps``
        steps against ``limits.row_mass_max``. A LayerScale that keeps the branch ratio under
        ``limits.tamed_branch_ratio_max`` silences it.
    Why it matters: nothing normalises a row of sigmoid attention. With b = 0 it sums to about n/2, the output is
        hundreds of times too large, and the loss looks normal: at step 50 it was within 0.06 of softmax's, at step
        250 it was 0.6 nats worse.
    Suggested fix: the bias at which rows sum to one (measured, else -log n); in vision LayerScale first. Where the
        bias is right for the length and the logits are wide, QK norm. From n = 4096 on, hybrid norm on top.
    When the fix is wrong: with ALiBi, which hides most keys: -log n would starve the rows, and the measured bias must
        be used. QK norm, LayerScale or hybrid norm in place of the bias helped little while b was 0.
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
        if attention is not None and remedies.is_sigmoid(attention) and not _tamed(run, attention, limits):
            yield Sighting(
                hit,
                partial(_tell_large, run, hit, attention),
                partial(remedies.for_large_start, run, attention),
                opens=run.step < limits.first_steps,
            )


def _tamed(run: Run, attention: Attention, limits: AttentionLimits) -> bool:
    ratio = run.value("branch_ratio", attention.layer) if attention.layer_scale else None
    return ratio is not None and ratio <= limits.tamed_branch_ratio_max


def _tell_large(run: Run, hit: Hit, attention: Attention) -> Told:
    metrics = [metric for metric in ("attention_norm", "twin_ratio", "row_mass") if metric != hit.metric]
    message = over_limit(hit) + beside(run, hit.layer, *metrics) + _bias_words(run, attention)
    bias, best = remedies.bias_of(run, attention), remedies.best_bias(run, attention)
    excess = remedies.bias_excess(run, attention)
    if excess is not None and excess <= remedies.SAME_BIAS:
        cause = "the bias fits the length, so the logits are wide at the start"
    elif bias is not None and best is not None:
        cause = f"the bias is {number(bias - best)} above b*, and nothing else normalises a row of sigmoid attention"
    else:
        cause = "nothing normalises a row of sigmoid attention, and the bias does not make up for the number of keys"
    return Told(message, cause, _cells(run, hit, "twin_ratio", "row_mass", "attention_norm", "bias", "best_bias"))


def _bias_words(run: Run, attention: Attention) -> str:
    bias, best = remedies.bias_of(run, attention), remedies.best_bias(run, attention)
    words = "" if bias is None else f"; b = {bias:.4g}"
    return words if best is None else f"{words}; rows sum to one near b* = {best:.4g}"


def _cells(run: Run, hit: Hit, *metrics: str) -> tuple[Cell, ...]:
    return run.cells(hit.layer, *dict.fromkeys((hit.metric, *metrics)), head=hit.head)


@rule("ATT002", "starved-rows", severity=Severity.WARNING, evidence=Evidence.MEASURED)
def starved_rows(run: Run, limits: AttentionLimits) -> Iterator[Sighting]:
    """Flag sigmoid attention whose rows sum to almost nothing.

    What it checks: the mean row mass of each head against ``limits.row_mass_min``; at least
        ``limits.starved_heads_min`` of a layer's heads must be under it within the first ``limits.first_steps``
        steps, at the first sample or for ``limits.confirmations`` samples in a row. Later it only follows what it
        found: heads that learn to be silent are no fault.
    Why it matters: the attention then adds nothing to the stream, its gradients are as small, and the model trains as
        if it had no attention: 1.84 instead of 1.64 after 250 steps with b four below -log n. Nothing in the loss
        curve says so.
    Suggested fix: raise b to where rows sum to one (measured, else -log n). With ALiBi drop it, or take the measured
        value.
    When the fix is wrong: for a learnable bias, which can climb by itself (runs that start at -10 are said to train
        well): there the finding is information only. Heads that starve as the run goes on: in a healthy run of 4
        layers 3 of 4 heads of one fell to 0.01 after 60 steps.
    References: arXiv 2409.04431, whose smallest configuration (n = 64, b = -10) has a row mass of 0.004; measured:
        ALiBi with -log n at n = 2048 has 0.002 to 0.18.
    """
    for hit in run.series("row_mass").below(limits.row_mass_min):
        attention = run.attention(hit.layer)
        if attention is None or not remedies.is_sigmoid(attention):
            continue
        yield Sighting(
            hit,
            partial(_tell_starved, run, hit, attention),
            partial(remedies.for_starved, run, attention),
            opens=run.step < limits.first_steps and hit.heads >= limits.starved_heads_min * hit.measured,
            confirmations=1 if run.samples == 1 else limits.confirmations,
            severity=Severity.INFO if attention.bias == "learnable" else None,
        )


def _tell_starved(run: Run, hit: Hit, attention: Attention) -> Told:
    message = over_limit(hit) + beside(run, hit.layer, "attention_norm", "twin_ratio") + _bias_words(run, attention)
    excess = remedies.bias_excess(run, attention)
    if attention.position == "alibi":
        cause = "ALiBi hides most keys already, and the bias counts them a second time"
    elif excess is not None and excess < -remedies.SAME_BIAS:
        cause = f"the bias is {number(-excess)} below -log n"
    else:
        cause = "the logits are far below zero: queries and keys point away from each other"
    return Told(message, cause, _cells(run, hit, "row_mass", "attention_norm", "bias", "best_bias"))


@rule("ATT003", "logit-growth", severity=Severity.WARNING, evidence=Evidence.MEASURED, symptom_of=("UPD001"))
def logit_growth(run: Run, limits: AttentionLimits) -> Iterator[Sighting]:
    """Flag logits that grow as the run goes on, until the bias no longer keeps the rows small.

    What it checks: the logits' standard deviation against ``limits.logit_std_max`` (``limits.logit_std_error`` makes
        it an error), where the row mass has passed ``limits.grown_row_mass_min`` as well; or the largest logit
        against ``limits.logit_max`` (softmax: ``limits.softmax_logit_max``). Each must also be
        ``limits.logit_growth_min`` times its value at the run's own start, for ``limits.confirmations`` samples in a
        row.
    Why it matters: -log n fixes the start only. A row sums to exp(s²/2) for logits of standard deviation s, 6.8 at s
        = 2 and 116 at s = 4 (n = 4096), and a logit of log n alone gives weight 0.5, so limits known from softmax
        come far too late.
    Suggested fix: QK norm; from n = 4096 on hybrid norm as well; where the model has them, a lower learning rate.
    When the fix is wrong: where the rows are too heavy from the first step: that is the bias (ATT001). Putting QK
        norm into a model that has trained changes what it has learnt, so start again with it.
    References: Wortsman et al., arXiv 2309.14322 (QK norm, also for pointwise attention); Kimi K2, arXiv 2507.20534
        (QK clip at 100); measured at learning rate 6e-3: final loss 1.83 with QK norm, 2.35 without.
    """
    softmax = run.series("logit_max").by_layer(_is_softmax) > 0
    largest = np.where(softmax, limits.softmax_logit_max, limits.logit_max)
    hits = {hit.layer: hit for hit in _grown(run, "logit_max", largest, limits)}
    for hit in _grown(run, "logit_std", limits.logit_std_max, limits):
        if remedies.is_sigmoid(run.attention(hit.layer)) and (hit.layer not in hits or _does_harm(run, hit, limits)):
            hits[hit.layer] = hit
    for hit in hits.values():
        attention = run.attention(hit.layer)
        if attention is None:
            continue
        is_error = hit.metric == "logit_std" and hit.value > limits.logit_std_error
        yield Sighting(
            hit,
            partial(_tell_growth, run, hit),
            partial(remedies.for_growth, run, attention),
            opens=hit.metric == "logit_max" or _does_harm(run, hit, limits),
            confirmations=limits.confirmations,
            severity=Severity.ERROR if is_error else None,
        )


def _is_softmax(run: Run, layer: str | None) -> float:
    return float(not remedies.is_sigmoid(run.attention(layer)))


def _grown(run: Run, metric: str, limit: Limit, limits: AttentionLimits) -> list[Hit]:
    series = run.series(metric)
    if not (series.now > limit * HOLD).any():
        return []
    return series.above(np.maximum(limit, limits.logit_growth_min * series.start))


def _does_harm(run: Run, hit: Hit, limits: AttentionLimits) -> bool:
    """Return whether the layer's row mass is large and has grown in some head; True where it is not recorded."""
    mass = run.series("row_mass")
    now = mass.of(hit.layer)
    if not np.isfinite(now).any():
        return True
    heavy = mass.above(np.maximum(limits.grown_row_mass_min, limits.logit_growth_min * mass.start))
    return any(other.layer == hit.layer and other.excess > 1 for other in heavy)


def _tell_growth(run: Run, hit: Hit) -> Told:
    message = over_limit(hit) + _since_start(run, hit) + beside(run, hit.layer, "row_mass", "attention_norm")
    cause = "queries and keys have grown or aligned, and the bias was set for the logits of the start"
    return Told(message, cause, _cells(run, hit, "logit_std", "logit_max", "row_mass", "query_norm", "key_norm"))


def _since_start(run: Run, hit: Hit) -> str:
    series = run.series(hit.metric)
    start = float(series.start[series.spots.index(Spot(hit.layer, hit.head))])
    return f", {number(start)} at the start of the run"


@rule(
    "ATT004",
    "saturated-attention",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "ATT001", "ATT003"),
)
def saturated_attention(run: Run, limits: AttentionLimits) -> Iterator[Sighting]:
    """Flag attention whose weights become large as the run goes on.

    What it checks: the share of weights above 0.5 against ``limits.saturated_fraction_max``; it must also be
        ``limits.logit_growth_min`` times its value at the run's own start, for ``limits.confirmations`` samples in a
        row.
    Why it matters: a sigmoid near one has almost no slope, so such a pair of tokens no longer learns, and with a
        tenth of n weights near one the row sums to n/10.
    Suggested fix: the bias, where it is learnable and has left -log n; else QK norm, hybrid norm from n = 4096 on, a
        lower learning rate.
    When the fix is wrong: for short sequences (n of 20 or less), where a tenth of a row is one or two keys, as
        softmax also has.
    References: measured: 0.5 of the weights with b = 0, under 0.001 with b = -log n; Amazon SageMaker Debugger's rule
        for saturated activations.
    """
    series = run.series("saturated_fraction")
    if not (series.now > limits.saturated_fraction_max * HOLD).any():
        return
    for hit in series.above(np.maximum(limits.saturated_fraction_max, limits.logit_growth_min * series.start)):
        attention = run.attention(hit.layer)
        if attention is not None and remedies.is_sigmoid(attention):
            tell = partial(_tell_saturated, run, hit, attention)
            fixes = partial(remedies.for_saturated, run, attention)
            yield Sighting(hit, tell, fixes, confirmations=limits.confirmations)


def _tell_saturated(run: Run, hit: Hit, attention: Attention) -> Told:
    message = over_limit(hit) + _since_start(run, hit) + beside(run, hit.layer, "row_mass", "logit_mean", "logit_std")
    excess = remedies.bias_excess(run, attention)
    rose = excess is not None and excess > remedies.SAME_BIAS
    cause = (
        f"the bias is {number(excess or 0)} above -log n" if rose else "the logits have risen to the bias and beyond"
    )
    return Told(message, cause, _cells(run, hit, "saturated_fraction", "logit_mean", "logit_std", "bias"))


@rule(
    "ATT005",
    "attention-norm-growth",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "UPD002", "ATT003"),
)
def attention_norm_growth(run: Run, limits: AttentionLimits) -> Iterator[Sighting]:
    """Flag an attention norm that grows far beyond its value at the start of the run.

    What it checks: each head's attention norm against ``limits.norm_growth_max`` times its mean over the first five
        samples, for ``limits.confirmations`` samples in a row. Layers that started starved (``limits.row_mass_min``)
        are left out.
    Why it matters: at a high learning rate it grew by four orders of magnitude in every run without QK norm, and
        eightfold with it; loss and gradient norm did not tell the two apart until the end.
    Suggested fix: QK norm; from n = 4096 on hybrid norm as well; where the model has them, a lower learning rate.
    When the fix is wrong: where the start was no start, such as zero-initialised values or a resumed run: compare the
        numbers.
    References: measured, 8 layers, n = 1024, learning rate 6e-3: 67 to 1e6 without QK norm (loss 2.35), 118 to 1e3
        with it (1.83).
    """
    series = run.series("attention_norm")
    for hit in series.above(limits.norm_growth_max * series.start):
        attention = run.attention(hit.layer)
        if attention is not None:
            yield Sighting(
                hit,
                partial(_tell_norm_growth, run, hit),
                partial(remedies.for_growth, run, attention),
                opens=not _started_starved(run, hit, limits),
                confirmations=limits.confirmations,
            )


def _started_starved(run: Run, hit: Hit, limits: AttentionLimits) -> bool:
    mass = run.series("row_mass")
    starts = [start for start, spot in zip(mass.start, mass.spots, strict=True) if spot == (hit.layer, hit.head)]
    return bool(starts) and bool(starts[0] < limits.row_mass_min)


def _tell_norm_growth(run: Run, hit: Hit) -> Told:
    message = over_limit(hit) + _since_start(run, hit) + beside(run, hit.layer, "row_mass", "logit_std")
    cause = "queries, keys and values grow together, as they do at a learning rate that is too high without QK norm"
    return Told(message, cause, _cells(run, hit, "attention_norm", "row_mass", "logit_std", "query_norm", "key_norm"))
