"""Rules about attention that deteriorates during a run, ATT: queries, keys, logits, weights, norm."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.findings import Reading
from stabmon.formatting import number
from stabmon.records import Attention, Evidence, Severity
from stabmon.rules import suggested_fixes
from stabmon.rules.baseline import falls, has_learnt
from stabmon.rules.families import AttentionLimits
from stabmon.rules.observed_norms import has_hybrid_norm, has_qk_norm
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside, over_limit
from stabmon.rules.view import HOLD, Hit, Limit, Run
from stabmon.series import Spot


@rule(
    "ATT003",
    "logit-growth",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "UPD002", "ATT008"),
)
def logit_growth(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag logits that grow during the run, until the bias no longer keeps the row mass small.

    What it checks: the logits' standard deviation against ``limits.logit_std_max`` (an error from
        ``limits.logit_std_error``), where the row mass has passed ``limits.grown_row_mass_min`` as well; or the largest
        logit against ``limits.logit_max`` (softmax: ``limits.softmax_logit_max``). Each must also be
        ``limits.logit_growth_min`` times its value at the run's own start, for ``limits.confirmations`` samples in a
        row. It is information with QK norm, which bounds the logits; while the branch ratio, where it is recorded, is
        under ``limits.grown_branch_ratio_min``, or with hybrid norm has not grown ``limits.logit_growth_min``-fold;
        without a causal mask while the loss falls, by the medians of ``limits.learning_samples`` samples, or is under
        ``limits.learnt_share_max`` of its start; and with softmax up to ``limits.softmax_harmful_logit_min``.
    Why it matters: -log n is right at the start only. A row sums to exp(s²/2) for logits of standard deviation s, 6.8
        at s = 2 and 116 at s = 4 (n = 4096), and a single logit of log n has weight 0.5, so limits known from softmax
        are reached far too late.
    Suggested fix: QK norm; from n = 4096 on hybrid norm as well; where the model has them, a lower learning rate. In
        post-norm blocks pre-norm comes first; for images with ALiBi, learned positions.
    When the fix is wrong: where the row mass is too large from the first step: the bias is the cause (ATT001). QK norm
        in a trained model changes what it has learnt, so start again with it. Attention also sharpens as it learns:
        logits of standard deviation 7 and a row mass of 60 were harmless while the attention branch stayed in
        proportion to the stream.
    References: Wortsman et al., arXiv 2309.14322 (QK norm, also for pointwise attention); Kimi K2, arXiv 2507.20534 (QK
        clip at 100); measured at learning rate 6e-3: final loss 1.83 with QK norm, 2.35 without.
    """
    softmax = run.series("logit_max").by_layer(_is_softmax) > 0
    largest = np.where(softmax, limits.softmax_logit_max, limits.logit_max)
    hits = {hit.layer: hit for hit in _grown(run, "logit_max", largest, limits)}
    wide = _grown(run, "logit_std", limits.logit_std_max, limits)
    light = _light_layers(run, limits) if wide else set()
    for hit in wide:
        if suggested_fixes.is_sigmoid(run.attention(hit.layer)) and (hit.layer not in hits or hit.layer not in light):
            hits[hit.layer] = hit
    for hit in hits.values():
        attention = run.attention(hit.layer)
        if attention is None:
            continue
        is_error = hit.metric == "logit_std" and hit.value > limits.logit_std_error
        severity = Severity.ERROR if is_error else None
        yield Observation(
            hit,
            partial(_explain_growth, run, hit),
            partial(suggested_fixes.for_growth, run, attention),
            opens=hit.metric == "logit_max" or hit.layer not in light,
            confirmations=limits.confirmations,
            severity=Severity.INFO if _is_harmless(run, attention, hit.value, limits) else severity,
        )


def _is_harmless(run: Run, attention: Attention, logit: float, limits: AttentionLimits) -> bool:
    """Return whether growth that allows a logit of this size is known to be harmless, or is so far."""
    if not suggested_fixes.is_sigmoid(attention):
        return logit < limits.softmax_harmful_logit_min
    return has_qk_norm(run, attention) or _is_in_proportion(run, attention, limits)


def _is_in_proportion(run: Run, attention: Attention, limits: AttentionLimits) -> bool:
    """Return whether, in one of the last samples, the branch was not large compared with the stream.

    Hybrid norm gives the branch one size: beside a small embedding it is large by design, and only what has grown since
    counts. Without a causal mask attention may sharpen as it likes while the loss falls. False where neither branch
    ratio nor loss is recorded.
    """
    if attention.is_causal is False and (
        falls(run, max(1, min(limits.learning_samples, run.samples // 2))) or has_learnt(run, limits.learnt_share_max)
    ):
        return True
    series = run.series("branch_ratio")
    where = series.within(attention.layer)
    recent = np.append(series.past(int(limits.confirmations) - 1)[:, where], series.now[where])
    largest: Limit = limits.grown_branch_ratio_min
    if has_hybrid_norm(run, attention) and where.stop > where.start:
        largest = max(largest, limits.logit_growth_min * float(np.nan_to_num(series.start[where]).max()))
    return bool((recent < largest).any())


def _is_softmax(run: Run, layer: str | None) -> float:
    return float(not suggested_fixes.is_sigmoid(run.attention(layer)))


def _grown(run: Run, metric: str, limit: Limit, limits: AttentionLimits) -> list[Hit]:
    series = run.series(metric)
    if not (series.now > limit * HOLD).any():
        return []
    return series.above(np.maximum(limit, limits.logit_growth_min * series.start))


def _light_layers(run: Run, limits: AttentionLimits) -> set[str | None]:
    """Return the layers whose row mass was measured and is not large, or has not grown, in any head."""
    mass = run.series("row_mass")
    heavy = mass.above(np.maximum(limits.grown_row_mass_min, limits.logit_growth_min * mass.start))
    measured = {spot.layer for spot, now in zip(mass.spots, np.isfinite(mass.now), strict=True) if now}
    return measured - {hit.layer for hit in heavy if hit.excess > 1}


def _explain_growth(run: Run, hit: Hit) -> Explanation:
    message = over_limit(hit) + _since_start(run, hit) + beside(run, hit.layer, "row_mass", "attention_norm")
    cause = "queries and keys have grown or aligned, and the bias fits the logits of the start"
    return Explanation(message, cause, _cells(run, hit, "logit_std", "logit_max", "row_mass", "query_norm", "key_norm"))


def _since_start(run: Run, hit: Hit) -> str:
    series = run.series(hit.metric)
    start = float(series.start[series.spots.index(Spot(hit.layer, hit.head))])
    return f", {number(start)} at the start of the run"


@rule(
    "ATT004",
    "saturated-attention",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "UPD002", "ATT001", "ATT003", "ATT008"),
)
def saturated_attention(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag attention whose weights become large during the run.

    What it checks: the share of weights above 0.5 against ``limits.saturated_fraction_max``; it must also be
        ``limits.logit_growth_min`` times its value at the run's own start, for ``limits.confirmations`` samples in a
        row. It is information with QK norm, which bounds the logits, and where ATT003 is for the branch ratio or the
        loss.
    Why it matters: a sigmoid near one has almost no gradient, so the weight of such a pair of tokens no longer changes,
        and with a tenth of n weights near one the row sums to n/10.
    Suggested fix: the bias, where it is learnable and has moved away from -log n; else QK norm, hybrid norm from n =
        4096 on, a lower learning rate.
    When the fix is wrong: for short sequences (n of 20 or less), where a tenth of a row is one or two keys, which
        softmax concentrates on as well.
    References: measured: 0.5 of the weights with b = 0, under 0.001 with b = -log n; Amazon SageMaker Debugger's rule
        for saturated activations.
    """
    series = run.series("saturated_fraction")
    if not (series.now > limits.saturated_fraction_max * HOLD).any():
        return
    for hit in series.above(np.maximum(limits.saturated_fraction_max, limits.logit_growth_min * series.start)):
        attention = run.attention(hit.layer)
        if attention is not None and suggested_fixes.is_sigmoid(attention):
            explain = partial(_explain_saturated, run, hit, attention)
            fixes = partial(suggested_fixes.for_saturated, run, attention)
            severity = Severity.INFO if _is_harmless(run, attention, 0.0, limits) else None
            yield Observation(hit, explain, fixes, confirmations=limits.confirmations, severity=severity)


def _explain_saturated(run: Run, hit: Hit, attention: Attention) -> Explanation:
    message = over_limit(hit) + _since_start(run, hit) + beside(run, hit.layer, "row_mass", "logit_mean", "logit_std")
    excess = suggested_fixes.bias_excess(run, attention)
    rose = excess is not None and excess > suggested_fixes.SAME_BIAS
    cause = f"the bias is {number(excess or 0)} above -log n" if rose else "the logits have risen above -b"
    return Explanation(message, cause, _cells(run, hit, "saturated_fraction", "logit_mean", "logit_std", "bias"))


@rule(
    "ATT005",
    "attention-norm-growth",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "UPD002", "ATT003", "ATT008"),
)
def attention_norm_growth(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag an attention norm that grows far beyond its value at the start of the run.

    What it checks: each head's attention norm against ``limits.norm_growth_max`` times its mean over the first five
        samples, for ``limits.confirmations`` samples in a row. Layers that were starved at the start
        (``limits.row_mass_min``) are left out. It is information where ATT003 is for the branch ratio or the loss.
    Why it matters: at a high learning rate it grew by four orders of magnitude in every run without QK norm, and by a
        factor of 8 with it; loss and gradient norm did not differ until the end.
    Suggested fix: QK norm; from n = 4096 on hybrid norm as well; where the model has them, a lower learning rate.
    When the fix is wrong: where the first samples are not typical, as with zero-initialised values or a resumed run:
        compare the numbers.
    References: measured, 8 layers, n = 1024, learning rate 6e-3: 67 to 1e6 without QK norm (loss 2.35), 118 to 1e3 with
        it (1.83).
    """
    series = run.series("attention_norm")
    for hit in series.above(limits.norm_growth_max * series.start):
        attention = run.attention(hit.layer)
        if attention is not None:
            yield Observation(
                hit,
                partial(_explain_norm_growth, run, hit),
                partial(suggested_fixes.for_growth, run, attention),
                opens=not _started_starved(run, hit, limits),
                confirmations=limits.confirmations,
                severity=Severity.INFO if _is_in_proportion(run, attention, limits) else None,
            )


def _started_starved(run: Run, hit: Hit, limits: AttentionLimits) -> bool:
    mass = run.series("row_mass")
    starts = [start for start, spot in zip(mass.start, mass.spots, strict=True) if spot == (hit.layer, hit.head)]
    return bool(starts) and bool(starts[0] < limits.row_mass_min)


def _explain_norm_growth(run: Run, hit: Hit) -> Explanation:
    message = over_limit(hit) + _since_start(run, hit) + beside(run, hit.layer, "row_mass", "logit_std")
    cause = "queries, keys and values grow together, as at a learning rate that is too high for a model without QK norm"
    return Explanation(
        message, cause, _cells(run, hit, "attention_norm", "row_mass", "logit_std", "query_norm", "key_norm")
    )


@rule(
    "ATT008",
    "query-key-growth",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "UPD002", "ATT003"),
)
def query_key_growth(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag queries and keys that grow without QK norm.

    What it checks: the largest logit that a query and a key of these norms can have (query norm times key norm over
        √head_dim) against ``limits.query_key_max`` (softmax: ``limits.softmax_query_key_max``), where it is also
        ``limits.query_key_growth_min`` times its value at the run's first sample, for ``limits.confirmations`` samples
        in a row. Layers with QK norm are left out. It is information while the row mass, where it is recorded, is less
        than ``limits.grown_row_mass_min`` in every head: large queries and keys then give small weights. As in ATT003
        it is also information while the branch ratio is under ``limits.grown_branch_ratio_min``, and with softmax up to
        ``limits.softmax_harmful_logit_min``.
    Why it matters: it bounds the logits and they grow with it, so it is the common cause of a wide logit distribution,
        a large row mass and a growing output. Where logits are large and it is not, queries and keys have aligned
        instead.
    Suggested fix: QK norm; a lower learning rate.
    When the fix is wrong: where the learning rate is too high for every weight (UPD002): QK norm then bounds the
        logits, and the rest of the model is still affected.
    References: bo-ke/llm-internal-medicine, pull request 48 (norms distinguish growth from alignment); Wortsman et al.,
        arXiv 2309.14322; measured, 4 layers, n = 128: 4 to 25 in healthy runs, 154 at learning rate 6e-2 (loss 2.57),
        6.1 with QK norm (2.42).
    """
    queries, keys = run.series("query_norm"), run.series("key_norm")
    if not queries.spots or len(queries.spots) != len(keys.spots):
        return
    scale = queries.by_layer(_inverse_root)
    now = queries.now * keys.now * scale
    if not (now > limits.query_key_max * HOLD).any():
        return
    softmax = queries.by_layer(_is_softmax) > 0
    largest = np.where(softmax, limits.softmax_query_key_max, limits.query_key_max)
    limit = np.maximum(largest, limits.query_key_growth_min * queries.first * keys.first * scale)
    with np.errstate(all="ignore"):
        hits = queries.over(now / limit, limit)
    for hit in hits:
        attention = run.attention(hit.layer)
        if attention is not None:
            explain, fixes = partial(_explain_query_key, run, hit), partial(suggested_fixes.for_growth, run, attention)
            masses = run.series("row_mass").of(hit.layer)
            light = (
                suggested_fixes.is_sigmoid(attention)
                and masses.size > 0
                and bool((masses < limits.grown_row_mass_min).all())
            )
            harmless = light or _is_harmless(run, attention, hit.excess * hit.limit, limits)
            severity = Severity.INFO if harmless else None
            yield Observation(hit, explain, fixes, confirmations=limits.confirmations, severity=severity)


def _inverse_root(run: Run, layer: str | None) -> float:
    attention = run.attention(layer)
    return math.nan if attention is None or has_qk_norm(run, attention) else 1 / math.sqrt(attention.head_dim)


def _explain_query_key(run: Run, hit: Hit) -> Explanation:
    message = (
        f"queries and keys of norms that allow a logit of {number(hit.excess * hit.limit)}{hit.where}, "
        f"limit {number(hit.limit)}{beside(run, hit.layer, 'query_norm', 'key_norm', 'logit_max', 'logit_std')}"
    )
    cause = "the size of queries and keys is not bounded, and the updates make them grow"
    return Explanation(message, cause, _cells(run, hit, "query_norm", "key_norm", "logit_max", "logit_std"))


def _cells(run: Run, hit: Hit, *metrics: str) -> tuple[Reading, ...]:
    return run.cells(hit.layer, *dict.fromkeys((hit.metric, *metrics)), head=hit.head)
