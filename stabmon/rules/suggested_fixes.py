"""Fixes for each cause in this very model, best first.

The order is that of the measured runs: large at step 0, the bias first; growing later, QK norm; starved, raise the
bias; n >= 4096, hybrid norm on top; a lower learning rate after all of these. A cause outside the attention comes
before them: a norm on the stream itself (pre-norm) where logits or gradients grow, ALiBi in images (learned positions),
longer rows that are to follow (training at that length). A scheme of positions brings its own bias. Nothing is
suggested that the model has, and softmax never gets a bias.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from stabmon.fixes import row_mass
from stabmon.fixes.kinds.bias import bias_fix
from stabmon.fixes.kinds.clip import clip_fix
from stabmon.fixes.kinds.hybrid_norm import hybrid_norm_fix
from stabmon.fixes.kinds.layer_scale import layer_scale_fix, layer_scale_gain
from stabmon.fixes.kinds.learnable_bias import learnable_bias_fix
from stabmon.fixes.kinds.learning_rate import learning_rate_fix
from stabmon.fixes.kinds.length import length_fix
from stabmon.fixes.kinds.position import position_fix
from stabmon.fixes.kinds.pre_norm import pre_norm_fix
from stabmon.fixes.kinds.precision import precision_fix
from stabmon.fixes.kinds.qk_norm import qk_norm_fix
from stabmon.fixes.kinds.warmup import warmup_fix
from stabmon.fixes.record import Fix
from stabmon.formatting import number
from stabmon.records import Attention
from stabmon.rules import run_config
from stabmon.rules.families import ResidualLimits
from stabmon.rules.observed_norms import has_hybrid_norm, has_qk_norm
from stabmon.rules.view import Run

HYBRID_LENGTH = 4096
"""Length in keys from which hybrid norm is suggested; published language models needed it from there on."""
GAIN = 1e-4
"""Initial LayerScale gain; that of the published vision runs with sigmoid attention."""
LEARNING_RATE_FACTOR = 0.3
"""First step down for a learning rate that is too high; measured runs failed at 6e-3 and held at 1e-3."""
LEARNING_RATE_STEP_UP = 3.0
"""First step up for a learning rate that is too low."""
WARMUP = 100
"""Steps of a warm-up where there was none; published runs with sigmoid attention took 5,000 of 300,000."""
SAME_BIAS = 0.5
"""A bias nearer than this to -log n has been set for this length."""


def is_sigmoid(attention: Attention | None) -> bool:
    """Return whether a layer's rows are not normalised."""
    return attention is not None and attention.kind != "softmax"


def bias_of(run: Run, attention: Attention) -> float | None:
    """Return the bias in use: the median over heads as measured, or the number that the model states."""
    measured = run.value("bias", attention.layer)
    stated = attention.bias if isinstance(attention.bias, float) else None
    return stated if measured is None else measured


def length_of(run: Run, attention: Attention) -> float | None:
    """Return n: the longest training length where the model says it, else the number of keys seen."""
    return float(attention.max_length) if attention.max_length else run.value("keys", attention.layer)


def is_post_norm(run: Run) -> bool:
    """Return whether every block's output started with an rms of 1, which only a norm on the stream makes it."""
    first = run.series("residual_out").first
    return len(first) > 1 and bool(abs(first - 1).max() < ResidualLimits().post_norm_tolerance)


def bias_excess(run: Run, attention: Attention) -> float | None:
    """Return b + log n: 0 where the bias was set for this length, above it where rows sum to more than one."""
    bias, length = bias_of(run, attention), length_of(run, attention)
    return None if bias is None or not length else bias + math.log(length)


def best_bias(run: Run, attention: Attention) -> float | None:
    """Return the bias at which rows would sum to one.

    As measured (median over heads); else from the row mass that the present bias gives and, where the logits are near
    normal (not under ALiBi), their mean and standard deviation; else -log n. It is at most that of the run's start:
    where logits have collapsed since, a bias that makes up for them is one that no run wants. It is never above 0,
    where two keys of logit zero already sum to one.
    """
    measured = run.value("best_bias", attention.layer)
    if measured is not None:
        return round(min(measured, 0.0), 2)
    now = _solved(run, attention, run.value)
    if now is not None:
        start = _solved(run, attention, partial(_first_value, run))
        return round(min(now, 0.0 if start is None else start, 0.0), 2)
    length = length_of(run, attention)
    return None if attention.position == "alibi" or not length else _length_bias(length)


def _solved(run: Run, attention: Attention, value: Callable[[str, str | None], float | None]) -> float | None:
    """Return the bias at which rows would sum to one by the numbers that ``value`` gives; None where those do not."""
    bias, mass = value("bias", attention.layer), value("row_mass", attention.layer)
    bias = bias_of(run, attention) if bias is None else bias
    if bias is None or mass is None:
        return None
    names = () if attention.position == "alibi" else ("logit_mean", "logit_std")
    return row_mass.best_bias(mass, bias, *(value(name, attention.layer) or 0.0 for name in names))


def _first_value(run: Run, metric: str, layer: str | None) -> float | None:
    series = run.series(metric)
    values = series.first[series.within(layer)]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None


def for_large_start(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return the fixes for an attention whose output is too large from the first step on.

    Rows longer than the model was made for, with a bias that fits what it was made for, are a matter of length.
    """
    excess, seen = bias_excess(run, attention), run.value("keys", attention.layer)
    wide = excess is not None and excess <= SAME_BIAS
    if wide and seen is not None and attention.max_length and seen > attention.max_length:
        return for_longer(run, attention, seen)
    bias = _bias(run, attention, "rows then sum to about one, as softmax's do")
    norm = _qk_norm(run, attention, "the bias sets the start only: when logits grow nothing else renormalises a row")
    scale = _layer_scale(attention) if run_config.workload(run) == "vision" else ()
    first = (*_pre_norm(run, attention), *norm, *bias, *scale) if wide else (*bias, *scale, *norm)
    return (*_learned(run, attention), *first, *_hybrid(run, attention))


def for_starved(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return the fixes for rows that sum to almost nothing."""
    alibi = attention.position == "alibi"
    why = "ALiBi already hides most keys, so -log n counts them twice" if alibi else "rows then sum to about one again"
    return (*_learned(run, attention), *_raised_bias(run, attention, why))


def for_growth(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return the fixes for logits or outputs that grow as the run goes on."""
    norm = _qk_norm(run, attention, "it bounds the logits by √head_dim times the gains, whatever the weights do")
    slower = learning_rate_fix(LEARNING_RATE_FACTOR, "logits grow with the learning rate")
    before = (*_pre_norm(run, attention), *_learned(run, attention))
    return (*before, *norm, *_hybrid(run, attention), slower)


def for_saturated(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return the fixes for weights that have become large: the bias where it rose, else as for growth."""
    excess = bias_excess(run, attention)
    rose = excess is not None and excess > math.log(4)
    bias = _bias(run, attention, "the bias has left -log n") if rose else ()
    return (*bias, *for_growth(run, attention))


def for_behind_softmax(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return what may close the gap to softmax, of what the model does not have; a race measures which one does."""
    why = "in a miniature it closed most of the gap; race it (stabmon.race, recipes=True) before a run takes it"
    hybrid = () if has_hybrid_norm(run, attention) else (hybrid_norm_fix(attention, why),)
    return (*_qk_norm(run, attention, "it makes sigmoid less sensitive to the learning rate"), *hybrid)


def for_bounded_weights(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return the fix for heads whose weights all stay small: a norm on what they make."""
    if has_hybrid_norm(run, attention) or not is_sigmoid(attention):
        return ()
    return (hybrid_norm_fix(attention, "the branch then has its size although no weight is large"),)


def for_large_branch(attention: Attention) -> tuple[Fix, ...]:
    """Return the fixes for a branch that drowns the residual stream."""
    return _layer_scale(attention)


def for_bias_of_other_length(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return the fix for a bias that belongs to another length: -log n for the longer of what is stated and seen.

    Under ALiBi, which hides most of them, the bias at which rows sum to one; in images learned positions first.
    """
    if attention.position == "alibi":
        return (*_learned(run, attention), *_bias(run, attention, "rows sum to about one then: ALiBi hides most keys"))
    seen = run.value("keys", attention.layer) or 0.0
    length = max(seen, float(attention.max_length or 0))
    if not is_sigmoid(attention) or length <= 0:
        return ()
    return (bias_fix(attention, _length_bias(length), f"-log n for n = {number(length)}"),)


def for_longest(attention: Attention, length: float) -> tuple[Fix, ...]:
    """Return the bias for rows of ``length`` keys, the longest that are to come."""
    return (bias_fix(attention, _length_bias(length), f"-log n for the longest n, {number(length)}"),)


def for_longer(run: Run, attention: Attention, length: float) -> tuple[Fix, ...]:
    """Return the fixes for rows of ``length`` keys, longer than the model was made for.

    Where they follow in an evaluation, training at that length comes first, then ALiBi in place of RoPE, which costs
    less and fixes less: angles that were never trained stay so under any bias. Then the bias for that length, from the
    one in use where that fits the training's length.
    """
    bias, made_for = bias_of(run, attention), attention.max_length
    fits = bias is not None and made_for is not None and attention.position == "alibi"
    value = bias - math.log(length / made_for) if fits and bias is not None and made_for else -math.log(length)
    fix = bias_fix(attention, round(value, 2), f"for rows of {number(length)} keys, where such rows are used")
    return (*_trained_longer(run, attention), *_alibi(run, attention), fix)


def slower(why: str) -> tuple[Fix, ...]:
    """Return the fix that lowers the learning rate."""
    return (learning_rate_fix(LEARNING_RATE_FACTOR, why),)


def for_dead(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return the fixes for rows that have become inactive: the bias, then a norm that keeps logits from falling.

    Whether a model that has learnt with inactive heads is better with them active, only a trial shows.
    """
    raised = (
        fix.model_copy(update={"why": f"{fix.why}; compare it in a trial (stabmon.trial) before a run takes it"})
        for fix in for_starved(run, attention)
    )
    return (*raised, *_qk_norm(run, attention, "it bounds how far below zero logits can fall"))


def for_uneven(attention: Attention) -> tuple[Fix, ...]:
    """Return the fix that lets each head find its own row mass."""
    if not is_sigmoid(attention) or attention.bias == "learnable":
        return ()
    return (learnable_bias_fix(attention, "each head then finds its own row mass"),)


def calmer(run: Run, why: str) -> tuple[Fix, ...]:
    """Return the fixes for gradients that are too large: pre-norm and clipping where missing, then a lower rate."""
    attention = next(iter(run.info.model.attentions), None)
    before = () if attention is None else _pre_norm(run, attention)
    return (*before, *if_unclipped(run), *slower(why))


def if_unclipped(run: Run) -> tuple[Fix, ...]:
    """Return clipping, where the run's configuration says that there is none."""
    if not run.info.config or run_config.clip(run) is not None:
        return ()
    return (clip_fix(1.0, "without clipping one such step moves every weight"),)


def for_small_gradients(run: Run) -> tuple[Fix, ...]:
    """Return the fix for gradients that fp16 rounds to zero; elsewhere Adam's eps, which no fix changes."""
    return (precision_fix("bf16", "fp16 ends at 6e-8"),) if run_config.is_fp16(run) else ()


def for_overflow(run: Run) -> tuple[Fix, ...]:
    """Return the fix for numbers beyond fp16's largest, 65504."""
    return (precision_fix("bf16", "its largest number is 3e38, fp16's 65504"),) if run_config.is_fp16(run) else ()


def for_vanishing(run: Run, layer: str | None) -> tuple[Fix, ...]:
    """Return the fix for gradients that shrink over depth."""
    return for_post_norm(run, run.attention(layer))


def for_post_norm(run: Run, attention: Attention | None) -> tuple[Fix, ...]:
    """Return the fixes for a norm on the stream itself."""
    if attention is None:
        return ()
    norm = pre_norm_fix(attention, "the stream then passes every block unchanged, and so does the gradient")
    return (norm, _warmup(run, "post-norm needs a warm-up where pre-norm does without"))


def for_stuck_loss(run: Run) -> tuple[Fix, ...]:
    """Return the fix for a loss that has not fallen."""
    return (learning_rate_fix(LEARNING_RATE_STEP_UP, "a loss that does not fall may need larger steps"),)


def for_deep_vision(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return LayerScale with the first gain for this depth."""
    gain = layer_scale_gain(len(run.info.model.attentions))
    return (layer_scale_fix(attention, gain, "many branches then add up to little at the start"),)


def warmer(run: Run, why: str) -> tuple[Fix, ...]:
    """Return the fix that makes the first updates small, and the one that makes all of them smaller."""
    return (_warmup(run, why), *slower("where a warm-up is not enough, the rate itself is too high"))


def for_high_rate(run: Run, layer: str | None) -> tuple[Fix, ...]:
    """Return the fixes for updates that are large beside the weights."""
    attention = run.attention(layer)
    rate = slower("the stream has outgrown its start many times over")
    if attention is None:
        return rate
    return (*_pre_norm(run, attention), *_qk_norm(run, attention, "it makes a higher learning rate stable"), *rate)


def _warmup(run: Run, why: str) -> Fix:
    """Return a warm-up of ``WARMUP`` steps, or of half the run where that is planned to be shorter."""
    planned = run_config.steps(run)
    return warmup_fix(WARMUP if planned is None else max(1, min(WARMUP, int(planned) // 2)), why)


def _length_bias(length: float) -> float:
    """Return -log n, as it is written into a configuration."""
    return round(-math.log(length), 2)


def _bias(run: Run, attention: Attention, why: str) -> tuple[Fix, ...]:
    value = best_bias(run, attention) if is_sigmoid(attention) else None
    return () if value is None else (bias_fix(attention, value, why),)


def _raised_bias(run: Run, attention: Attention, why: str) -> tuple[Fix, ...]:
    """Return a larger bias; none where the present one is that of the start, so that the logits are the cause."""
    bias, fixes = bias_of(run, attention), _bias(run, attention, why)
    return tuple(fix for fix in fixes if bias is None or fix.needed > bias + SAME_BIAS)


def _qk_norm(run: Run, attention: Attention, why: str) -> tuple[Fix, ...]:
    return () if has_qk_norm(run, attention) else (qk_norm_fix(attention, why),)


def _pre_norm(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return pre-norm, where the stream itself is normed; QK norm and a lower rate leave that as it is."""
    why = "every block norms the stream itself, and no setting of the attention limits what then grows"
    return (pre_norm_fix(attention, why),) if is_post_norm(run) else ()


def _learned(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return learned positions for images under ALiBi: a row of pixels below is a neighbour, and ALiBi hides it."""
    if attention.position != "alibi" or run_config.workload(run) != "vision":
        return ()
    length = length_of(run, attention)
    bias = _length_bias(length) if is_sigmoid(attention) and length else None
    return (position_fix(attention, "learned", "ALiBi's distance is that in a text, not in an image", bias),)


def _trained_longer(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return training at the length of the evaluation that is to follow, where that is longer."""
    made_for, evaluated = attention.max_length, run_config.evaluate_length(run)
    if made_for is None or evaluated is None or evaluated <= made_for:
        return ()
    return (length_fix(evaluated, "neither the bias nor positions beyond the training's length were learnt"),)


def _alibi(run: Run, attention: Attention) -> tuple[Fix, ...]:
    """Return ALiBi for a model with RoPE whose evaluation is longer than its training; in images it is not the one."""
    made_for, evaluated = attention.max_length, run_config.evaluate_length(run)
    is_text = attention.position == "rope" and run_config.workload(run) != "vision"
    if not is_text or made_for is None or evaluated is None or evaluated <= made_for:
        return ()
    bias = round(row_mass.alibi_bias(attention.heads, made_for, bool(attention.is_causal)), 2)
    why = "a row then sums to the same at every length, and no distance is met that was not trained"
    return (position_fix(attention, "alibi", why, bias),)


def _hybrid(run: Run, attention: Attention) -> tuple[Fix, ...]:
    length = length_of(run, attention) or 0
    if has_hybrid_norm(run, attention) or not is_sigmoid(attention) or length < HYBRID_LENGTH:
        return ()
    return (hybrid_norm_fix(attention, f"from n = {HYBRID_LENGTH} on QK norm alone was not enough"),)


def _layer_scale(attention: Attention) -> tuple[Fix, ...]:
    if attention.layer_scale:
        return ()
    return (layer_scale_fix(attention, GAIN, "the branch starts small and grows only as far as it helps"),)
