"""What a rule may suggest, as data: each function makes one ``Fix`` with the code that a user would write. No torch."""

import math
from collections.abc import Sequence
from typing import Literal

from stabmon.fixes.code import code_for, is_ours
from stabmon.fixes.diff import diff_for
from stabmon.fixes.record import Effect, Fix, FixKind, Safety
from stabmon.records import Attention

_GAINS = ((18, 0.1), (24, 1e-5), (math.inf, 1e-6))


def layer_scale_gain(depth: int) -> float:
    """Return the first gain of LayerScale for a model of ``depth`` blocks (arXiv 2103.17239, section 2)."""
    return next(gain for deepest, gain in _GAINS if depth <= deepest)


def bias_fix(attention: Attention, value: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest the bias ``value`` (added to every logit of every head) for ``attention``."""
    return _fix(FixKind.BIAS, attention, value, why, Safety.ANY_TIME, effect)


def learnable_bias_fix(
    attention: Attention, why: str, value: float | None = None, *, effect: Effect | None = None
) -> Fix:
    """Suggest that the bias learns, one number a head, from ``value`` on (None: from what it is now)."""
    return _fix(FixKind.LEARNABLE_BIAS, attention, value, why, Safety.ANY_TIME, effect)


def qk_norm_fix(attention: Attention, why: str, value: float | None = None, *, effect: Effect | None = None) -> Fix:
    """Suggest an RMS norm per head on queries and keys, which bounds the logits by √head_dim times the gains.

    ``value`` is the first gain of both norms; None takes what keeps the size of the present logits where it is put into
    a model, and 1 where a model is built with it.
    """
    return _fix(FixKind.QK_NORM, attention, value, why, Safety.BEFORE_TRAINING, effect)


def qk_norm_everywhere(attentions: Sequence[Attention], why: str) -> Fix:
    """Suggest QK norm for all of ``attentions``, at least one, as a fix of the whole model: its module is empty."""
    each = [qk_norm_fix(one, why) for one in attentions]
    anywhere = attentions[0].model_copy(update={"module": ""})
    code = "\n".join(dict.fromkeys(one.code for one in each))
    diff = diff_for(FixKind.QK_NORM, anywhere, None)
    return each[0].model_copy(update={"module": "", "code": code, "diff": diff})


def layer_scale_fix(attention: Attention, value: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest a learnable gain per channel on the attention branch, starting at ``value``."""
    return _fix(FixKind.LAYER_SCALE, attention, value, why, Safety.BEFORE_TRAINING, effect)


def hybrid_norm_fix(attention: Attention, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest a norm on the attention's output as well: x + norm(attention(norm(x)))."""
    return _fix(FixKind.HYBRID_NORM, attention, None, why, Safety.BEFORE_TRAINING, effect)


def pre_norm_fix(attention: Attention, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest x + f(norm(x)) in place of norm(x + f(x))."""
    return _fix(FixKind.PRE_NORM, attention, None, why, Safety.BEFORE_TRAINING, effect)


def position_fix(
    attention: Attention,
    setting: Literal["learned", "rope", "alibi", "none"],
    why: str,
    bias: float | None = None,
    *,
    effect: Effect | None = None,
) -> Fix:
    """Suggest another scheme of positions, with the bias that fits it (None: the one in use)."""
    safety = Safety.BY_HAND if setting == "learned" else Safety.BEFORE_TRAINING
    return _fix(FixKind.POSITION, attention, bias, why, safety, effect, setting)


def learning_rate_fix(factor: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest multiplying the learning rate by ``factor`` (below 1 lowers it)."""
    return _fix(FixKind.LEARNING_RATE, None, factor, why, Safety.BY_HAND, effect)


def warmup_fix(steps: int, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest a learning rate that grows linearly over the first ``steps`` steps."""
    return _fix(FixKind.WARMUP, None, float(steps), why, Safety.BY_HAND, effect)


def clip_fix(value: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest clipping the L2 norm of all gradients together at ``value``."""
    return _fix(FixKind.CLIP, None, value, why, Safety.BY_HAND, effect)


def precision_fix(setting: Literal["bf16", "fp32"], why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest computing in ``setting``, whose largest number is 3e38 (fp16: 65504)."""
    return _fix(FixKind.PRECISION, None, None, why, Safety.BY_HAND, effect, setting)


def length_fix(length: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest training at sequences of ``length`` keys, with the bias of that length."""
    return _fix(FixKind.LENGTH, None, float(length), why, Safety.BY_HAND, effect)


def together(first: Fix, *others: Fix) -> Fix:
    """Return ``first`` with ``others`` beside it: one suggestion, carried out as a whole."""
    parts = tuple(part for fix in (first, *others) for part in fix.parts)
    return first.model_copy(
        update={
            "made_of": parts,
            "safety": max((part.safety for part in parts), key=list(Safety).index),
            "why": "; ".join(part.why for part in parts),
            "code": "\n".join(part.code for part in parts),
            "diff": "\n".join(part.diff for part in parts if part.diff),
        }
    )


def _fix(
    kind: FixKind,
    attention: Attention | None,
    value: float | None,
    why: str,
    safety: Safety,
    effect: Effect | None,
    setting: str | None = None,
) -> Fix:
    return Fix(
        kind=kind,
        module=attention.module if attention else "",
        value=value,
        setting=setting,
        safety=safety if attention is None or is_ours(kind, attention) else Safety.BY_HAND,
        why=why,
        code=code_for(kind, attention, value, setting),
        diff=diff_for(kind, attention, value, setting),
        effect=effect,
    )
