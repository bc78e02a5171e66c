"""Completion of a finding's fixes: QK norm where the learning rate requires it, and the expected effect of each."""

from collections.abc import Iterable

from stabmon.fixes import registry
from stabmon.fixes.effect import with_effect
from stabmon.fixes.kinds.qk_norm import qk_norm_everywhere, qk_norm_fix
from stabmon.fixes.record import Fix
from stabmon.fixes.suggest import together
from stabmon.formatting import number
from stabmon.records import Attention
from stabmon.rules import run_config
from stabmon.rules.observed_norms import has_qk_norm
from stabmon.rules.view import Run

UPDATE_SIZE = 1.0
"""Learning rate times width from which one step can outgrow a query or key weight: Adam moves each entry by up to the
rate, so the matrix by a norm of rate·width, and one drawn at 1/√width has a norm of 1 to 2. Published models without QK
norm stay at 0.4 to 1.5, with warm-ups of thousands of steps (GPT-3, LLaMA and OPT, as remembered); those of arXiv
2409.04431 train at 7.7 with it, in every size. Ours, measured without it: 0.1 to 0.4 held, most at 1.3 to 3.8
failed."""


def with_effects(fixes: Iterable[Fix], run: Run) -> tuple[Fix, ...]:
    """Return ``fixes``, each completed and with its expected effect: metric, newest value and expected value."""
    return tuple(_with_expected(_complete(run, fix), run) for fix in fixes)


def _complete(run: Run, fix: Fix) -> Fix:
    """Return ``fix``, together with QK norm where the learning rate requires that whatever else is fixed."""
    is_whole = fix.of_training
    attentions = [
        one for one in run.info.model.attentions if (is_whole or fix.module == one.module) and not has_qk_norm(run, one)
    ]
    if not attentions or registry.find(fix.kind).bounds_updates or len(fix.parts) > 1:
        return fix
    attention = attentions[0]
    rate = run_config.learning_rate(run)
    size = None if rate is None else rate * attention.heads * attention.head_dim
    if size is None or size < UPDATE_SIZE:
        return fix
    why = f"one step at this learning rate can have a norm of {number(size)}, more than a query or key weight has"
    norm = qk_norm_everywhere(attentions, why) if is_whole else qk_norm_fix(attention, why)
    return together(fix, norm)


def _with_expected(fix: Fix, run: Run) -> Fix:
    attention = next((one for one in run.info.model.attentions if one.module == fix.module), None)
    values = {metric: _newest(run, metric, attention) for metric in registry.find(fix.kind).reads}
    return with_effect(fix, attention, {metric: value for metric, value in values.items() if value is not None})


def _newest(run: Run, metric: str, attention: Attention | None) -> float | None:
    """Return the newest value of a metric in the attention's layer or, where that has none, of the run."""
    of_layer = None if attention is None else run.value(metric, attention.layer)
    return run.value(metric, None) if of_layer is None else of_layer
