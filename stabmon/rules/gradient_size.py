"""Rules about the size of gradients, GRD: too small for Adam, always clipped, uneven over depth."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import run_config, suggested_fixes
from stabmon.rules.families import GradientLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.view import Hit, Run


@rule("GRD003", "clipping-always-active", severity=Severity.INFO, evidence=Evidence.MEASURED)
def clipping_always_active(run: Run, limits: GradientLimits) -> Iterator[Observation]:
    """Flag gradient clipping that acts on every step.

    What it checks: where the run's configuration states the clipping norm, the share of the last half of
        ``limits.window`` samples whose total gradient norm was above it, against ``limits.clipped_share_max``.
    Why it matters: every step then has the same gradient norm, so clipping no longer singles out exceptional steps, and
        a noisy batch has as much weight as any other.
    Suggested fix: none that is reliable. Clipping at the usual norm, the median of the window, made two of two speech
        and vision runs with a high loss worse.
    When the fix is wrong: with Adam, whose update does not depend on the norm, little is lost: it is information only.
    References: measured: 3 to 15 % of steps in healthy language runs clipped at 1, all of them at learning rate 1e-5,
        82 to 99 % in healthy vision and speech runs.
    """
    clip, series, samples = run_config.clip(run), run.series("total_gradient_norm"), limits.window // 2
    if clip is None or not series.spots or not series.now[0] > clip:
        return
    past = series.past(samples)[:, 0]
    share = float((past > clip).sum()) / max(samples, 1)
    if len(past) == samples and share >= limits.clipped_share_max:
        hit = Hit("total_gradient_norm", None, None, float(series.now[0]), clip, float(series.now[0]) / clip, 1, 1)
        yield Observation(hit, partial(_explain_clipped, run, hit, share))


def _explain_clipped(run: Run, hit: Hit, share: float) -> Explanation:
    message = (
        f"{number(100 * share)} % of steps were clipped at {number(hit.limit)}; gradient norm {number(hit.value)} now"
    )
    return Explanation(
        message, "the clipping norm is below the usual gradient norm", run.cells(None, "total_gradient_norm")
    )


@rule("GRD004", "gradient-near-adam-epsilon", severity=Severity.WARNING, evidence=Evidence.LITERATURE)
def gradient_near_adam_epsilon(run: Run, limits: GradientLimits) -> Iterator[Observation]:
    """Flag gradients so small that Adam's eps determines the step size.

    What it checks: the root mean square of all gradient elements (total gradient norm over the root of the number of
        parameters) against ``limits.element_min``, for ``limits.confirmations`` samples in a row.
    Why it matters: Adam divides by √v + eps. Where √v is near eps the update shrinks with the gradient, layers stop
        learning, and in fp16 elements below 6e-8 are zero.
    Suggested fix: eps = 1e-15, or a loss that is not scaled down; in fp16 a larger loss scale or bf16.
    When the fix is wrong: at the very end of a run that has fitted its data.
    References: Wortsman et al., arXiv 2309.14322, section 3.4 (gradient RMS near eps, and the collapse of layers that
        follows).
    """
    series, parameters = run.series("total_gradient_norm"), run.info.model.parameters
    if parameters < 1:
        return
    for hit in series.below(limits.element_min * math.sqrt(parameters)):
        explain, fixes = (
            partial(_explain_small, run, hit, parameters),
            partial(suggested_fixes.for_small_gradients, run),
        )
        yield Observation(hit, explain, fixes, confirmations=limits.confirmations)


def _explain_small(run: Run, hit: Hit, parameters: int) -> Explanation:
    element = hit.value / math.sqrt(parameters)
    message = f"root mean square of a gradient element {number(element)}, {number(parameters)} parameters, eps 1e-8"
    cause = "the loss or the gradients are scaled down, or no gradient reaches the weights"
    return Explanation(message, cause, run.cells(None, "total_gradient_norm", "loss"))


@rule("GRD005", "gradient-vanishes-over-depth", severity=Severity.WARNING, evidence=Evidence.LITERATURE)
def gradient_vanishes_over_depth(run: Run, limits: GradientLimits) -> Iterator[Observation]:
    """Flag blocks whose gradient is far smaller than another block's at the start of a run.

    What it checks: within the first ``limits.first_steps`` steps, the largest gradient norm of a block over the
        smallest, against ``limits.depth_ratio_max``. The finding names the block with the smallest.
    Why it matters: the gradient shrinks by a factor with each norm or branch that it passes, so the blocks far from the
        loss hardly learn; Adam compensates for the size but not for the noise.
    Suggested fix: pre-norm in place of post-norm; where the attention norm is large, the bias (ATT001).
    When the fix is wrong: where blocks are deliberately frozen or have a LayerScale of their own.
    References: Xiong et al., arXiv 2002.04745 (gradients over depth with post-norm); measured: 1.1 to 2.2 in pre-norm
        and post-norm models of 4 and 12 layers.
    """
    series = run.series("gradient_norm")
    if run.step >= limits.first_steps or len(series.spots) < 2:
        return
    now = np.where(np.isfinite(series.now) & (series.now > 0), series.now, np.nan)
    if not np.isfinite(now).any():
        return
    at, ratio = int(np.nanargmin(now)), float(np.nanmax(now) / np.nanmin(now))
    hit = Hit("gradient_norm", series.spots[at].layer, None, float(now[at]), float(np.nanmax(now)), ratio, 1, 1)
    hit = hit._replace(limit=hit.limit / limits.depth_ratio_max, excess=ratio / limits.depth_ratio_max)
    if hit.excess > 1:
        fixes = partial(suggested_fixes.for_vanishing, run, hit.layer)
        yield Observation(hit, partial(_explain_vanishing, run, hit, ratio), fixes, one_for_the_run=True)


def _explain_vanishing(run: Run, hit: Hit, ratio: float) -> Explanation:
    message = f"gradient norm {number(hit.value)} in {hit.layer}, {number(ratio)} times less than in another block"
    return Explanation(message, "the gradient shrinks from block to block", run.cells(hit.layer, "gradient_norm"))
