"""A fix kind of one file, as a contributor would write it."""

from collections.abc import Mapping
from typing import Any

from stabmon.config import RunConfig
from stabmon.fixes.change import Change, Effect
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts, TrainingKind
from stabmon.fixes.record import Fix
from stabmon.fixes.suggest import make
from stabmon.fixes.training_loop import Loop
from stabmon.records import Attention


def toy_decay_fix(decay: float, why: str) -> Fix:
    return make("toy_decay", None, why, value=decay)


class ToyDecay(TrainingKind):
    name = "toy_decay"
    title = "toy weight decay"
    keys = ("training.weight_decay",)
    reads = ("loss",)

    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        return f'for group in optimizer.param_groups:\n    group["weight_decay"] = {self.number(value)}'

    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        return hunk("optimizer", ["AdamW(...)"], [f"AdamW(..., weight_decay={self.number(value)})"])

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        loss = known.get("loss")
        return None if loss is None else Effect(metric="loss", before=loss, after=loss * change.needed)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        return {"training.weight_decay": change.needed}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        return Choice(value=0.5 if asked is None else asked)

    def change_loop(self, change: Change, loop: Loop) -> Loop:
        return loop
