"""Completion of a finding's fixes: QK norm where the learning rate requires it, and the expected effect of each."""

from collections.abc import Iterable

from stabmon.fixes import suggest
from stabmon.fixes.effect import with_effect
from stabmon.fixes.record import Fix, FixKind
from stabmon.formatting import number
from stabmon.rules import run_config
from stabmon.rules.view import Run

UPDATE_SIZE = 1.0
"""Learning rate times width from which one step can outgrow a query or key weight: Adam moves each entry by up to the
rate, so the matrix by a norm of rate·width, and one drawn at 1/√width has a norm of 1 to 2. Published models without QK
norm stay at 0.4 to 1.5, with warm-ups of thousands of steps (GPT-3, LLaMA and OPT, as remembered); those of arXiv
2409.04431 train at 7.7 with it, in every size. Ours, measured without it: 0.1 to 0.4 held, most at 1.3 to 3.8
failed."""
_OF_LAYER = (
    "row_mass",
    "bias",
    "best_bias",
    "logit_mean",
    "logit_std",
    "logit_max",
    "branch_ratio",
    "residual_in",
)
_OF_RUN = ("learning_rate", "total_gradient_norm")


def with_effects(fixes: Iterable[Fix], run: Run) -> tuple[Fix, ...]:
    """Return ``fixes``, each completed and with its expected effect: metric, newest value and expected value."""
    return tuple(_with_expected(_complete(run, fix), run) for fix in fixes)


def _complete(run: Run, fix: Fix) -> Fix:
    """Return ``fix``, together with QK norm where the learning rate requires that whatever else is fixed."""
    is_whole = fix.kind.of_training
    attentions = [
        one for one in run.info.model.attentions if (is_whole or fix.module == one.module) and not one.qk_norm
    ]
    if not attentions or fix.kind in (FixKind.QK_NORM, FixKind.LEARNING_RATE) or len(fix.parts) > 1:
        return fix
    attention = attentions[0]
    rate = run_config.learning_rate(run)
    size = None if rate is None else rate * attention.heads * attention.head_dim
    if size is None or size < UPDATE_SIZE:
        return fix
    why = f"one step at this learning rate can have a norm of {number(size)}, more than a query or key weight has"
    norm = suggest.qk_norm_everywhere(attentions, why) if is_whole else suggest.qk_norm_fix(attention, why)
    return suggest.together(fix, norm)


def _with_expected(fix: Fix, run: Run) -> Fix:
    attention = next((one for one in run.info.model.attentions if one.module == fix.module), None)
    values = {metric: run.value(metric, None) for metric in _OF_RUN}
    if attention is not None:
        values |= {metric: run.value(metric, attention.layer) for metric in _OF_LAYER}
    return with_effect(fix, attention, {metric: value for metric, value in values.items() if value is not None})
