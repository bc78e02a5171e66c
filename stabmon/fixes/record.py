"""A fix as data: one change to a model or to its training, and what carrying it out did. No torch."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from stabmon.formatting import number, words
from stabmon.records import Record

if TYPE_CHECKING:
    from torch import nn


class FixKind(StrEnum):
    """The knobs that stabmon can name."""

    BIAS = "bias"
    LEARNABLE_BIAS = "learnable_bias"
    QK_NORM = "qk_norm"
    LAYER_SCALE = "layer_scale"
    HYBRID_NORM = "hybrid_norm"
    PRE_NORM = "pre_norm"
    POSITION = "position"
    LEARNING_RATE = "learning_rate"
    WARMUP = "warmup"
    CLIP = "clip"
    PRECISION = "precision"
    LENGTH = "length"

    @property
    def of_training(self) -> bool:
        """Whether it is a knob of the training loop and not of the model."""
        return self in _OF_TRAINING


_OF_TRAINING = (FixKind.LEARNING_RATE, FixKind.WARMUP, FixKind.CLIP, FixKind.PRECISION, FixKind.LENGTH)


class Safety(StrEnum):
    """When a fix can be applied without throwing away what was learnt."""

    ANY_TIME = "any time"
    BEFORE_TRAINING = "before training"
    BY_HAND = "by hand"


class Effect(Record):
    """What a fix is expected to do to one number of one layer."""

    metric: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{words(self.metric)} {number(self.before)} -> {number(self.after)}"


class Fix(Record):
    """One change to one module, or to the training, that is expected to mend a finding."""

    kind: FixKind
    module: str
    """Path of the attention module to change; empty for a fix outside the model, such as the learning rate, and for
    QK norm in every layer."""
    value: float | None = None
    """The number that the kind needs, or None: the bias; the first value of a learnable bias (None: the present one);
    the first gain of LayerScale, or of QK norm (None: what keeps the present logits); the bias that goes with a scheme
    of positions (None: the present one); the factor on the learning rate; the warm-up in steps; the largest gradient
    norm; the sequence length in keys."""
    setting: str | None = None
    """The name that the kind needs: the precision (``bf16``) or the position scheme (``rope``)."""
    safety: Safety
    why: str
    """One sentence: why this knob and this value."""
    code: str
    """The line or lines that a user would write for it."""
    diff: str = ""
    """The same as a change to the code that builds the model or trains it, in the form of a unified diff."""
    effect: Effect | None = None
    """What it is expected to do, as a number; None where nothing was measured that says so."""
    made_of: tuple[Fix, ...] = ()
    """The changes that it is made of where they are several, that of ``kind`` first; ``code`` and ``diff`` hold all."""

    @property
    def parts(self) -> tuple[Fix, ...]:
        """Each change by itself."""
        return self.made_of or (self,)

    def __str__(self) -> str:
        if self.made_of:
            return ", with ".join(map(str, self.made_of))
        value = "" if self.value is None else f" = {number(self.value, 4)}"
        setting = "" if self.setting is None else f" = {self.setting}"
        everywhere = " in every layer" if self.kind is FixKind.QK_NORM else ""
        place = f" in {self.module}" if self.module else everywhere
        return f"{words(self.kind)}{value}{setting}{place}"

    def apply(self, model: nn.Module) -> Applied:
        """Carry the fix out on ``model``, in place, and return what that changed.

        Raises:
            FixError: this model does not let stabmon change it; the message holds the code to write.
        """
        from stabmon.fixes import apply

        return apply(self, model)


class Applied(Record):
    """What carrying out a fix did to a model."""

    module: str
    """Path of the module that was changed."""
    changed: str
    """One sentence: what is different now, and what of the learnt function it touches."""
    parameters: tuple[str, ...] = ()
    """Paths of new parameters, which an optimizer made before does not know."""
