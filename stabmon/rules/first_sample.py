"""Rules by arithmetic on the first sample, ATT and NUM: what a head can reach, and what a norm is given."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.findings import Reading
from stabmon.formatting import number
from stabmon.records import Attention, Evidence, NormInput, Severity
from stabmon.rules import suggested_fixes
from stabmon.rules.families import AttentionLimits, NumericLimits
from stabmon.rules.observed_norms import has_qk_norm
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.view import Hit, Run


@rule("ATT009", "bounded-weights", severity=Severity.INFO, evidence=Evidence.ARITHMETIC)
def bounded_weights(run: Run, limits: AttentionLimits) -> Iterator[Observation]:
    """Flag sigmoid attention under QK norm whose heads cannot look at one key alone.

    What it checks: at the run's first sample, sigmoid(‖q‖‖k‖/√head_dim + b), the largest weight that a head can reach
        while its queries and keys keep their norms, against ``limits.reachable_weight_min``. Only QK norm holds those
        norms.
    Why it matters: with gains of one ‖q‖‖k‖/√head_dim is √head_dim: a head of 64 dimensions with b = -log 4096 reaches
        0.42, one of 32 dimensions 0.07. Softmax divides by its row's sum, so it can reach one whatever the length.
    Suggested fix: hybrid norm, which gives a branch of small weights its size back. Fewer, wider heads, or larger first
        gains of the QK norm, are changed by hand.
    When the fix is wrong: where the gains learn and the run is long: twice the gains are four times the logit. The
        finding is information, and whether it does harm is for a race against softmax to show (``stabmon.race``).
    References: QK norm with learned gains, arXiv 2302.05442; the bound is arithmetic.
    """
    if run.samples > 1:
        return
    queries, keys = run.series("query_norm"), run.series("key_norm")
    if not queries.spots or len(queries.spots) != len(keys.spots):
        return
    logit = queries.now.astype(np.float64) * keys.now / np.sqrt(queries.by_layer(_dims)) + queries.by_layer(_bias)
    reach = 1 / (1 + np.exp(-logit))
    for hit in queries.over(limits.reachable_weight_min / reach, limits.reachable_weight_min):
        attention = run.attention(hit.layer)
        if attention is not None and hit.excess > 1 and has_qk_norm(run, attention):
            largest = limits.reachable_weight_min / hit.excess
            fixes = partial(suggested_fixes.for_bounded_weights, run, attention)
            yield Observation(hit, partial(_explain_bounded, run, hit, attention, largest), fixes)


def _dims(run: Run, layer: str | None) -> float:
    attention = run.attention(layer)
    return math.nan if attention is None else float(attention.head_dim)


def _bias(run: Run, layer: str | None) -> float:
    """Return the bias of a layer: as measured or stated, else -log of its keys; NaN for softmax."""
    attention, keys = run.attention(layer), run.value("keys", layer)
    if attention is None or not suggested_fixes.is_sigmoid(attention):
        return math.nan
    bias = suggested_fixes.bias_of(run, attention)
    return bias if bias is not None else math.nan if not keys else -math.log(keys)


def _explain_bounded(run: Run, hit: Hit, attention: Attention, largest: float) -> Explanation:
    message = (
        f"a head can give one key a weight of {number(largest)} at most, limit {number(hit.limit)}: "
        f"QK norm keeps ‖q‖ at {number(hit.value)}; b = {number(_bias(run, hit.layer), 4)}"
    )
    cause = f"a head of {attention.head_dim} dimensions has no logit that is large enough for a bias as low"
    cells = run.cells(hit.layer, "query_norm", "key_norm", "bias", "keys", head=hit.head)
    return Explanation(message, cause, cells)


@rule("NUM004", "norm-within-epsilon", severity=Severity.WARNING, evidence=Evidence.LITERATURE)
def norm_within_epsilon(run: Run, limits: NumericLimits) -> Iterator[Observation]:
    """Flag a norm whose input is so small that its eps decides the output.

    What it checks: in the first pass, the mean square of each norm's input (the variance, for a layer norm) over the
        norm's eps, against ``limits.norm_input_min``. An input of zeros, as a stream that starts at zero, is left out.
    Why it matters: x/√(mean x² + eps) is no norm of such an input: its output is small where unit size was meant, and
        grows with the input as if the norm were not there. Attention with rows far below one does that to the norm
        behind it.
    Suggested fix: an eps well below the square of what the norm is given, by hand; and where rows sum to almost
        nothing, the bias (ATT002).
    When the fix is wrong: in fp16, where eps below 6e-8 is zero; divide the input by less instead.
    References: RecTools issue 324, where an HSTU's layer norm is given attention outputs of rms 6e-5; the measure is
        arithmetic.
    """
    if run.samples > 1:
        return
    worst: dict[str | None, NormInput] = {}
    for norm in run.info.model.small_norms:
        layer = _layer(run, norm)
        if layer not in worst or _share(norm) < _share(worst[layer]):
            worst[layer] = norm
    for layer, norm in worst.items():
        if _share(norm) < limits.norm_input_min:
            excess = limits.norm_input_min / _share(norm)
            hit = Hit("norm_input", layer, None, _share(norm), limits.norm_input_min, excess, 1, 1)
            yield Observation(hit, partial(_explain_small, run, hit, norm))


def _share(norm: NormInput) -> float:
    return norm.mean_square / norm.eps


def _layer(run: Run, norm: NormInput) -> str | None:
    """Return the layer whose block holds a norm, the innermost of several; None where none does."""
    holding = [one for one in run.info.model.attentions if f"{norm.module}.".startswith(f"{one.block}.") and one.block]
    return max(holding, key=lambda one: len(one.block)).layer if holding else None


def _explain_small(run: Run, hit: Hit, norm: NormInput) -> Explanation:
    message = (
        f"the input of {norm.module or 'a norm'} has a mean square of {number(norm.mean_square)}, "
        f"{number(hit.value)} of its eps of {number(norm.eps)}, limit {number(hit.limit)}"
    )
    cell = Reading(metric="norm_input", layer=hit.layer, head=None, step=run.step, value=hit.value)
    others = run.cells(hit.layer, "row_mass", "residual_in")
    return Explanation(
        message, "what the norm is given is smaller than the number that keeps it finite", (cell, *others)
    )
