"""Warm-up: a learning rate that grows linearly over the first steps. No torch."""

from collections.abc import Mapping
from typing import Any

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.change import Change, Effect
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts, TrainingKind
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.fixes.training_loop import Loop
from stabmon.records import Attention


def warmup_fix(steps: int, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest a learning rate that grows linearly over the first ``steps`` steps."""
    return make("warmup", None, why, value=float(steps), effect=effect)


@register
class Warmup(TrainingKind):
    """A longer warm-up."""

    name = "warmup"
    keys = ("training.warmup",)
    reads = ("learning_rate",)

    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Make a scheduler."""
        growth = f"lambda step: min(1.0, (step + 1) / {self.number(value)})"
        made = f"warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, {growth})"
        return f"{made}\nwarmup.step()  # after each optimizer.step()"

    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Make a scheduler and step it."""
        made = f"warmup = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / {self.number(value)}))"
        step = hunk("training step", [], ["warmup.step()"], ("optimizer.step()",))
        return f"{hunk('optimizer', [], [made])}\n{step}"

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the rate of the first step."""
        rate = known.get("learning_rate")
        if rate is None or not change.value:
            return None
        return Effect(metric="learning_rate", before=rate, after=rate * (1 / change.value))

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Set the steps of the warm-up."""
        present, steps = config.training.warmup, change.needed
        if steps <= present:
            raise FixError(f"the warm-up is {present} steps already, the fix asks for {steps:g}; take another fix")
        return {"training.warmup": round(steps)}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return twice the present warm-up, or a tenth of the run."""
        training = config.training
        longer = max(2 * training.warmup, training.steps // 10, 1)
        return Choice(value=float(longer if asked is None else round(asked)))

    def change_loop(self, change: Change, loop: Loop) -> Loop:
        """Set the steps of the warm-up."""
        return loop._replace(warmup=change.value or 0.0)
