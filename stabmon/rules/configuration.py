"""Rules about a run's configuration, CFG: arithmetic checks before anything goes wrong."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.fixes import row_mass
from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import run_config, suggested_fixes
from stabmon.rules.families import ConfigurationLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.view import HOLD, Hit, Run


@rule(
    "CFG001",
    "bias-length-mismatch",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("ATT001", "ATT002"),
)
def bias_length_mismatch(run: Run, limits: ConfigurationLimits) -> Iterator[Observation]:
    """Flag a bias that fits another sequence length.

    What it checks: in the first ``limits.first_steps`` steps, whether exp(b)·n is within a factor of
        ``limits.bias_length_factor_max`` of 1; n is the number of keys seen, or the longest training length where that
        is more; under ALiBi the number of them that its slopes leave visible, median over heads. Learnable biases and
        layers with LayerScale are left out, and so is a bias too large under ALiBi, which may need none (ATT001 covers
        those). A bias that is too negative is information without a causal mask: ATT002 reports it later where it is
        harmful.
    Why it matters: exp(b)·n is the row mass for logits near zero. With b = -3 at n = 1024 a model ended at 2.08 instead
        of 1.64 nats.
    Suggested fix: b = -log n for the length in use; where lengths vary, for the longest. Under ALiBi the measured bias
        at which rows sum to one; for images learned positions in place of ALiBi.
    When the fix is wrong: where b was chosen deliberately and the measured row mass is near one: the row mass decides,
        so ignore this rule.
    References: arXiv 2409.04431 (b = -log n for the longest training length); arXiv 2108.12409 (the slopes of ALiBi,
        which leave 32 keys of 256 with four heads); measured: final loss 2.08 at exp(b)·n = 51, 1.84 at 0.018, 1.64 at
        1; rows under ALiBi with -log n sum to 0.002 to 0.18 at n = 2048.
    """
    for hit in _other_length(run, limits):
        attention = run.attention(hit.layer)
        if attention is not None and suggested_fixes.is_sigmoid(attention):
            fixes = partial(suggested_fixes.for_bias_of_other_length, run, attention)
            light = hit.value < hit.limit and attention.is_causal is False
            yield Observation(
                hit,
                partial(_explain_other, run, hit),
                fixes,
                opens=run.step < limits.first_steps,
                severity=Severity.INFO if light else None,
            )


@rule("CFG002", "exceeds-training-length", severity=Severity.WARNING, evidence=Evidence.LITERATURE)
def exceeds_training_length(run: Run, limits: ConfigurationLimits) -> Iterator[Observation]:
    """Flag sequences longer than the model's training length, in training or in the planned evaluation.

    What it checks: at any step, whether there are more keys than the longest training length that the model states; at
        the first sample, whether the evaluation in the run's configuration is longer by more than
        ``limits.longer_factor_max``, for sigmoid attention whose bias does not follow the length.
    Why it matters: the row mass grows with the number of keys, and b does not change. A model evaluated at twice its
        training length with a fixed b went from 3.19 to 7.46 nats, at 8 times to 14.5; softmax to 6.28.
    Suggested fix: train at the length of the evaluation, with the bias for that length. Where that is too expensive and
        positions are RoPE (not for images), ALiBi, with the bias at which its rows sum to one; where the trained
        weights must stay, b = -log n for the longer length, set only where longer sequences are used.
    When the fix is wrong: where the longer rows were measured to sum to one, as can be the case with ALiBi.
    References: arXiv 2501.13428 (loss at 1 to 8 times the training length); ALiBi for longer input, arXiv 2108.12409;
        measured, evaluated at four times a training length of 128: 2.77 with RoPE and -log 128, 2.70 with RoPE and -log
        512, 2.26 with ALiBi, and 2.26 with RoPE trained at 512, which took ten times as long to train.
    """
    longer = run.series("keys")
    stated = longer.by_layer(_stated)
    hits = [hit for hit in longer.above(stated) if hit.excess > 1] if (longer.now > stated).any() else []
    evaluated = longer.by_layer(_evaluated_length)
    if not hits and (evaluated > limits.longer_factor_max * stated).any():
        ratio = evaluated / stated / limits.longer_factor_max
        hits = [
            hit._replace(value=hit.excess * hit.limit * limits.longer_factor_max)
            for hit in longer.over(ratio, stated)
            if hit.excess > 1
        ]
    for hit in hits:
        attention = run.attention(hit.layer)
        if attention is not None and suggested_fixes.is_sigmoid(attention):
            fixes = partial(suggested_fixes.for_longer, run, attention, hit.value)
            yield Observation(hit, partial(_explain_longer, run, hit), fixes)


@rule("CFG003", "outgrown-bias", severity=Severity.WARNING, evidence=Evidence.ARITHMETIC)
def outgrown_bias(run: Run, limits: ConfigurationLimits) -> Iterator[Observation]:
    """Flag a bias that fits the rows of the first sample and not the longest that are to come.

    What it checks: at the first sample, whether the longest length that the run's configuration states
        (``longest_length``, as a data loader knows it) exceeds the keys that were seen by more than
        ``limits.bias_length_factor_max``, where exp(b)·n fits the keys seen and no longer the longest. A bias that
        follows the length or learns, LayerScale and ALiBi are left out.
    Why it matters: batches of short sequences look healthy at step 0; the first long one has rows that sum to many
        times one.
    Suggested fix: b = -log n for the longest length.
    When the fix is wrong: where almost all sequences are short, and the longest are cut or packed; then the bias for
        the usual length is the better one.
    References: arXiv 2409.04431 (b = -log n for the longest training length); what a bias for another length costs was
        measured for CFG001.
    """
    longest = run_config.longest_length(run)
    if longest is None or run.samples > 1:
        return
    series = run.series("bias")
    keys = series.beside("keys").astype(np.float64)
    counted = np.isfinite(series.by_layer(_counted))
    mass_now, widest = np.exp(series.now) * keys, limits.bias_length_factor_max
    outgrown = counted & (mass_now < widest) & (longest > widest * keys)
    excess = np.where(outgrown, np.exp(series.now) * longest / widest, np.nan)
    for hit in series.over(excess, widest):
        attention = run.attention(hit.layer)
        if attention is not None and hit.excess > 1 and suggested_fixes.is_sigmoid(attention):
            fixes = partial(suggested_fixes.for_longest, attention, longest)
            yield Observation(hit, partial(_explain_outgrown, run, hit, longest), fixes)


def _explain_outgrown(run: Run, hit: Hit, longest: float) -> Explanation:
    mass = math.exp(hit.value) * longest
    message = (
        f"b = {number(hit.value, 4)}{hit.where} fits the {number(run.value('keys', hit.layer) or 0)} keys seen; "
        f"exp(b)·n is {number(mass)} at the longest length of {number(longest)}, limit {number(hit.limit)}"
    )
    cells = run.cells(hit.layer, "bias", "keys", "row_mass", head=hit.head)
    return Explanation(message, "the bias is that of short rows, and longer ones are to come", cells)


def _evaluated_length(run: Run, layer: str | None) -> float:
    """Return the length of the planned evaluation; NaN for a layer whose bias follows the length."""
    attention, length = run.attention(layer), run_config.evaluate_length(run)
    return math.nan if length is None or attention is None or attention.bias is None else length


def _other_length(run: Run, limits: ConfigurationLimits) -> list[Hit]:
    """Return the layers whose exp(b)·n is far from 1, as hits of the bias."""
    series = run.series("bias")
    keys = series.beside("keys")
    with np.errstate(divide="ignore"):
        length = np.log(np.maximum(np.where(np.isfinite(keys), keys, 0), series.by_layer(_counted)))
    left = series.by_layer(_left_by_alibi)
    length = np.where(np.isfinite(left), np.log(left), length)
    away = np.abs(series.now + length)
    away = np.where(np.isfinite(left) & (series.now + length > 0), np.nan, away)  # published models go without a bias
    widest = math.log(limits.bias_length_factor_max)
    if not (away > widest + math.log(HOLD)).any():
        return []
    side = np.where(series.now + length > 0, widest, -widest)
    return series.over(np.exp(np.minimum(away - widest, 700.0)), side - length)


def _counted(run: Run, layer: str | None) -> float:
    """Return the stated length of a layer, 0 where it states none; NaN where the rule does not apply."""
    attention = run.attention(layer)
    if attention is None or attention.bias == "learnable" or attention.position == "alibi" or attention.layer_scale:
        return math.nan
    return float(attention.max_length or 0)


def _left_by_alibi(run: Run, layer: str | None) -> float:
    """Return the number of keys that ALiBi leaves visible at the stated length; NaN where the rule does not apply."""
    attention = run.attention(layer)
    if attention is None or attention.position != "alibi" or not attention.max_length:
        return math.nan
    if attention.bias == "learnable" or attention.layer_scale:
        return math.nan
    return math.exp(-row_mass.alibi_bias(attention.heads, attention.max_length, attention.is_causal is not False))


def _stated(run: Run, layer: str | None) -> float:
    attention = run.attention(layer)
    return float(attention.max_length or math.nan) if attention is not None else math.nan


def _explain_other(run: Run, hit: Hit) -> Explanation:
    left = _left_by_alibi(run, hit.layer)
    length = _length(run, hit) if math.isnan(left) else left
    mass = math.exp(min(hit.value, 700.0)) * length
    message = (
        f"b = {number(hit.value, 4)}{hit.where} gives exp(b)·n = {number(mass)} for n = {number(length)}, where 1 fits"
    )
    cause = f"this bias is -log n for n = {number(math.exp(min(-hit.value, 700.0)))}"
    if not math.isnan(left):
        cause = f"{cause}, and of {number(_length(run, hit))} keys ALiBi leaves {number(left)} visible"
    return Explanation(message, cause, run.cells(hit.layer, "bias", "keys", "row_mass", head=hit.head))


def _length(run: Run, hit: Hit) -> float:
    attention = run.attention(hit.layer)
    return max(run.value("keys", hit.layer) or 0.0, float((attention.max_length if attention else None) or 0))


def _explain_longer(run: Run, hit: Hit) -> Explanation:
    message = f"{number(hit.value)} keys in a row, where the model states a longest length of {number(hit.limit)}"
    cause = "with a bias for shorter rows, longer ones sum to more than one"
    return Explanation(message, cause, run.cells(hit.layer, "keys", "bias", "row_mass"))
