"""The length of training sequences, with the bias of that length. No torch."""

import math
from typing import Any

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.change import Change, Effect
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts, TrainingKind
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.records import Attention


def length_fix(length: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest training at sequences of ``length`` keys, with the bias of that length."""
    return make("length", None, why, value=float(length), effect=effect)


@register
class Length(TrainingKind):
    """Training at another length."""

    name = "length"
    keys = ("training.evaluate_length",)
    of_data = True
    while_training = False

    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Name the length."""
        return f"length = {self.number(value)}  # of training sequences; the model's max_length and bias with it"

    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Name the length, and build the model for it."""
        longer = self.number(value)
        both = [f"length = {longer}", f"model = build(max_length={longer})  # its bias: -log({longer})"]
        return hunk("model and data", ["model = build(max_length=length)"], both)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Set the length with the bias that fits it: a number moves with -log n, "length" does so by itself."""
        model, length = config.model, round(change.needed)
        if length == model.context:
            raise FixError(f"the configuration is for {length} keys already; take another fix of the finding")
        moved, longer = math.log(model.context / length), {"model.context": length}
        if isinstance(model.bias, float | int):
            return longer | {"model.bias": model.bias + moved}
        return longer if model.bias_start is None else longer | {"model.bias_start": model.bias_start + moved}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return the length of the evaluation, or twice the present."""
        longer = config.training.evaluate_length or 2 * config.model.context
        return Choice(value=float(longer if asked is None else asked))
