"""Rules about the residual stream, RES."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import run_config, suggested_fixes
from stabmon.rules.families import ResidualLimits
from stabmon.rules.observed_norms import has_hybrid_norm
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside, over_limit
from stabmon.rules.view import Hit, Run


@rule(
    "RES001",
    "branch-dominates-residual",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "ATT001"),
)
def branch_dominates_residual(run: Run, limits: ResidualLimits) -> Iterator[Observation]:
    """Flag an attention branch far larger than the residual stream it is added to.

    What it checks: the branch ratio, rms of the branch as added over rms of the stream, within the first
        ``limits.first_steps`` steps against ``limits.branch_ratio_max`` (with hybrid norm
        ``limits.hybrid_branch_ratio_max``). A stream that is zero at the first sample, as DETR's decoder has it, is not
        flagged. The first block's stream is the bare embedding, so its ratio is the
        largest: 2.1 to 3.8 in healthy pre-norm runs, 49 in a healthy run with hybrid norm, whose branch has unit rms
        whatever the embedding's rms is, and 103 or more when b was wrong.
    Why it matters: the input of the block is negligible in its output, so later layers see attention output only.
    Suggested fix: LayerScale with a small initial gain. Where the bias is the cause, ATT001 reports that, and this
        finding is listed under it.
    When the fix is wrong: for a ratio that is learnt (it is not flagged); and while the row mass is too large:
        LayerScale 1e-2 at b = 0 brought the ratio from 1073 to 11 and the loss from 2.19 to 2.14, where the right bias
        gives 1.64. With hybrid norm, scale the embedding or the norm's gain instead.
    References: LayerScale, arXiv 2103.17239; initial gain 1e-4 in the vision runs of arXiv 2409.04431; ratios measured
        on 8 layers, n = 1024.
    """
    series = run.series("branch_ratio")
    hybrid = series.by_layer(_is_hybrid) > 0
    for hit in series.above(np.where(hybrid, limits.hybrid_branch_ratio_max, limits.branch_ratio_max)):
        attention = run.attention(hit.layer)
        yield Observation(
            hit,
            partial(_explain, run, hit),
            partial(suggested_fixes.for_large_branch, attention) if attention is not None else tuple,
            opens=run.step < limits.first_steps and not _began_empty(run, hit.layer),
        )


def _began_empty(run: Run, layer: str | None) -> bool:
    """Return whether a layer's stream was zero at the first sample: branches are then all that it is made of."""
    series = run.series("residual_in")
    first = series.first[series.within(layer)]
    return first.size > 0 and bool((first == 0).all())


def _is_hybrid(run: Run, layer: str | None) -> float:
    attention = run.attention(layer)
    return float(attention is not None and has_hybrid_norm(run, attention))


def _explain(run: Run, hit: Hit) -> Explanation:
    message = over_limit(hit) + beside(run, hit.layer, "residual_in", "attention_norm", "block_growth")
    cause = "the attention branch is added without a gain that keeps it near the stream's size"
    return Explanation(message, cause, run.cells(hit.layer, "branch_ratio", "residual_in", "block_growth"))


@rule("RES002", "feed-forward-dominates", severity=Severity.INFO, evidence=Evidence.MEASURED)
def feed_forward_dominates(run: Run, limits: ResidualLimits) -> Iterator[Observation]:
    """Flag a block whose stream grows more at the start than its attention branch explains.

    What it checks: within the first ``limits.first_steps`` steps, the block growth over √(1 + branch ratio²), which is
        the growth by an attention branch independent of the stream, against ``limits.feed_forward_growth_max``.
    Why it matters: the rest comes from the feed-forward branch, which is then far larger than the stream, and findings
        about attention norms would have the wrong cause.
    Suggested fix: a smaller initial gain of the feed-forward output (by 1/√(2·blocks) as GPT-2 has it), or LayerScale
        on it. This is changed by hand.
    When the fix is wrong: where the run learns: the finding is information. Embeddings that are drawn small make any
        first block's growth large, without harm: a GPT of 12 layers, 768 wide, all of whose weights had a standard
        deviation of 0.02, grew 12.9-fold in block 0 and trained as well as others.
    References: GPT-2's initialisation; LayerScale, arXiv 2103.17239; measured at step 0: 1.0 to 1.4 over language,
        vision and speech models, with hybrid norm and with b = 0 too.
    """
    series = run.series("block_growth")
    if run.step >= limits.first_steps or not series.spots:
        return
    ratio = series.beside("branch_ratio")
    explained = np.sqrt(1.0 + np.where(np.isfinite(ratio), ratio, np.inf).astype(np.float64) ** 2)
    for hit in series.above(limits.feed_forward_growth_max * explained):
        if hit.excess > 1:
            yield Observation(hit, partial(_explain_feed_forward, run, hit))


def _explain_feed_forward(run: Run, hit: Hit) -> Explanation:
    message = over_limit(hit) + beside(run, hit.layer, "branch_ratio", "residual_in", "residual_out")
    cause = "the feed-forward branch adds far more to the stream than the attention branch does"
    return Explanation(
        message, cause, run.cells(hit.layer, "block_growth", "branch_ratio", "residual_in", "residual_out")
    )


@rule("RES003", "post-norm-start", severity=Severity.INFO, evidence=Evidence.LITERATURE)
def post_norm_start(run: Run, limits: ResidualLimits) -> Iterator[Observation]:
    """Flag blocks that normalise the residual stream itself (post-norm).

    What it checks: at the run's first sample, whether the rms of every block's output is within
        ``limits.post_norm_tolerance`` of 1, which only post-norm gives.
    Why it matters: with post-norm the gradient passes through a norm in every block, so deep models need a warm-up and
        a lower learning rate, and sigmoid attention with it was hard to train on speech.
    Suggested fix: pre-norm, x + f(norm(x)); else a warm-up.
    When the fix is wrong: for shallow models with a warm-up, which train as well: 2.41 with either in 4 layers, and
        0.06 with post-norm to 0.14 in speech. The finding is information.
    References: Xiong et al., arXiv 2002.04745; that post-norm was hard on speech is remembered from arXiv 2409.04431.
    """
    series = run.series("residual_out")
    if run.samples > 1 or len(series.spots) < 2:
        return
    away = float(np.abs(series.now - 1).max())
    if not away < limits.post_norm_tolerance:
        return
    first = series.spots[0].layer
    hit = Hit("residual_out", first, None, float(series.now[0]), 1.0, 2.0, 1, 1)
    explain, fixes = (
        partial(_explain_post_norm, run, hit, away),
        partial(suggested_fixes.for_post_norm, run, run.attention(first)),
    )
    yield Observation(hit, explain, fixes, one_for_the_run=True)


def _explain_post_norm(run: Run, hit: Hit, away: float) -> Explanation:
    blocks = len(run.series("residual_out").spots)
    message = f"the rms of the stream after each of {blocks} blocks is 1 to within {number(away)} at the first step"
    return Explanation(
        message, "each block normalises the stream itself: norm(x + f(x))", run.cells(hit.layer, "residual_out")
    )


@rule("RES004", "deep-without-layer-scale", severity=Severity.INFO, evidence=Evidence.REMEMBERED)
def deep_without_layer_scale(run: Run, limits: ResidualLimits) -> Iterator[Observation]:
    """Flag a deep vision model with sigmoid attention whose branches start large.

    What it checks: at the run's first sample, in vision runs (as their configuration states) with at least
        ``limits.deep_layers_min`` blocks and no LayerScale, the branch ratio against ``limits.deep_branch_ratio_min``.
        The finding names the first such block.
    Why it matters: vision transformers with sigmoid attention were trained with LayerScale at 1e-4: without it they
        ended worse without diverging, so that no curve shows it.
    Suggested fix: LayerScale with the initial gain for this depth (0.1 up to 18 blocks, 1e-5 up to 24, then 1e-6).
    When the fix is wrong: for short trainings: models of 12 and 4 layers had learnt less with it after 160 steps, 1.09
        instead of 0.45 nats. The finding is information.
    References: arXiv 2103.17239 (initial gains by depth); that vision needed it is remembered from arXiv 2409.04431.
    """
    series = run.series("branch_ratio")
    deep = len(series.spots) >= limits.deep_layers_min and run_config.workload(run) == "vision"
    if run.samples > 1 or not deep:
        return
    for hit in series.above(limits.deep_branch_ratio_min):
        attention = run.attention(hit.layer)
        if attention is not None and suggested_fixes.is_sigmoid(attention) and not attention.layer_scale:
            explain, fixes = partial(_explain_deep, run, hit), partial(suggested_fixes.for_deep_vision, run, attention)
            yield Observation(hit, explain, fixes, one_for_the_run=True)
            return


def _explain_deep(run: Run, hit: Hit) -> Explanation:
    blocks = len(run.series("branch_ratio").spots)
    message = f"{over_limit(hit)}, in a vision model of {blocks} blocks without LayerScale"
    return Explanation(message, "no branch is small at the start", run.cells(hit.layer, "branch_ratio"))
