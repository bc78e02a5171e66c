"""Clipping of the L2 norm of all gradients together. No torch."""

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


def clip_fix(value: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest clipping the L2 norm of all gradients together at ``value``."""
    return make("clip", None, why, value=value, effect=effect)


@register
class Clip(TrainingKind):
    """A lower limit of the gradient norm."""

    name = "clip"
    keys = ("training.clip",)
    reads = ("total_gradient_norm",)

    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Clip before the optimizer's step."""
        return f"{self._call(value)}  # between backward and optimizer.step()"

    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Clip before the optimizer's step."""
        return hunk("training step", [], [self._call(value)], ("loss.backward()",)) + "\n optimizer.step()"

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the clipped norm."""
        norm = known.get("total_gradient_norm")
        if norm is None or change.value is None:
            return None
        return Effect(metric="total_gradient_norm", before=norm, after=min(norm, change.value))

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Set the limit."""
        present, limit = config.training.clip, change.needed
        if present is not None and present <= limit:
            raise FixError(
                f"gradients are clipped at {present:g} already, the fix asks for {limit:g}; take another fix"
            )
        return {"training.clip": limit}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return half the present limit, or 1 where there is none."""
        present = 2.0 if config.training.clip is None else config.training.clip
        return Choice(value=present / 2 if asked is None else asked)

    def change_loop(self, change: Change, loop: Loop) -> Loop:
        """Set the limit."""
        return loop._replace(clip=change.value or 0.0)

    def _call(self, value: float | None) -> str:
        return f"torch.nn.utils.clip_grad_norm_(model.parameters(), {self.number(value)})"
