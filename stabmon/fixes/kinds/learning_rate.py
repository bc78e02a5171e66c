"""The learning rate, by a factor. No torch."""

from collections.abc import Mapping
from typing import Any

from stabmon.config import RunConfig
from stabmon.fixes.change import Change, Effect
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts, TrainingKind
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.fixes.training_loop import Loop
from stabmon.records import Attention

FACTOR = 0.3
"""Factor that is tried where none is named."""


def learning_rate_fix(factor: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest multiplying the learning rate by ``factor`` (below 1 lowers it)."""
    return make("learning_rate", None, why, value=factor, effect=effect)


@register
class LearningRate(TrainingKind):
    """Another peak learning rate."""

    name = "learning_rate"
    keys = ("training.learning_rate",)
    reads = ("learning_rate",)
    bounds_updates = True
    is_factor = True

    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Multiply the rate of every group."""
        return f'for group in optimizer.param_groups:\n    group["lr"] *= {self.number(value)}'

    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Multiply the rate that the optimizer is made with."""
        made = "optimizer = AdamW(model.parameters(), lr=rate{})"
        return hunk("optimizer", [made.format("")], [made.format(f" * {self.number(value)}")])

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the rate itself."""
        rate = known.get("learning_rate")
        if rate is None or change.value is None:
            return None
        return Effect(metric="learning_rate", before=rate, after=rate * change.value)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Multiply the peak rate."""
        return {"training.learning_rate": config.training.learning_rate * change.needed}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return the first step down."""
        return Choice(value=FACTOR if asked is None else asked)

    def change_loop(self, change: Change, loop: Loop) -> Loop:
        """Set the factor on the rate."""
        return loop._replace(rate=change.value or 0.0)
