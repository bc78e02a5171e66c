"""One change to a model or to its training as data, and the effect of carrying it out. No torch."""

import math
from enum import StrEnum

from stabmon.errors import FixError
from stabmon.formatting import number, words
from stabmon.records import Record


class Safety(StrEnum):
    """The time at which a fix can be applied without throwing away what was learnt."""

    ANY_TIME = "any time"
    BEFORE_TRAINING = "before training"
    BY_HAND = "by hand"


class Effect(Record):
    """The expected effect of a fix on one number of one layer."""

    metric: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{words(self.metric)} {number(self.before)} -> {number(self.after)}"


class Change(Record):
    """One change to one module, or to the training, that is expected to fix a finding."""

    kind: str
    """Name of its kind in ``stabmon.fixes.registry``."""
    title: str = ""
    """Name of its kind in words."""
    module: str
    """Path of the attention module to change; empty for a change of the training, or of every layer."""
    value: float | None = None
    """The number that the kind needs, or None; see the kind's constructor ``stabmon.fixes.NAME_fix``."""
    setting: str | None = None
    """The name that the kind needs, such as a precision (``bf16``) or a scheme of positions (``rope``)."""
    safety: Safety
    why: str
    """One sentence: why this kind and this value."""
    code: str
    """The line or lines that a user would write for it."""
    diff: str = ""
    """The same as a change to the code that builds the model or trains it, in the form of a unified diff."""
    effect: Effect | None = None
    """The expected effect, as a number; None where nothing was measured that gives one."""

    @property
    def needed(self) -> float:
        """The value, a finite number.

        Raises:
            FixError: it is none, or there is none.
        """
        if self.value is None or not math.isfinite(self.value):
            raise FixError(f"a {self.kind} fix needs a finite value, got {self.value}; set Fix.value")
        return self.value


class Applied(Record):
    """The outcome of carrying out a fix on a model."""

    module: str
    """Path of the module that was changed."""
    changed: str
    """One sentence: what is different now, and what of the learnt function it touches."""
    parameters: tuple[str, ...] = ()
    """Paths of new parameters, which an optimizer made before does not know."""
