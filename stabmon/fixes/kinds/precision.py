"""The precision of a training: fp32, or autocast to bf16. No torch."""

from collections.abc import Mapping
from typing import Any, Literal

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.change import Change, Effect
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts, TrainingKind
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.records import Attention

_LARGEST = {"fp16": 65504.0, "bf16": 3.3895314e38, "fp32": 3.4028235e38}
"""Largest number of each precision, from the one that overflows first."""
_STEP = "loss = loss_of(model, batch)"


def precision_fix(setting: Literal["bf16", "fp32"], why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest computing in ``setting``, whose largest number is 3e38 (fp16: 65504)."""
    return make("precision", None, why, setting=setting, effect=effect)


@register
class Precision(TrainingKind):
    """A precision with a larger range than fp16."""

    name = "precision"
    keys = ("training.precision",)

    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Compute the loss in the precision."""
        if self.named(setting) == "fp32":
            return f"{_STEP}  # without torch.autocast"
        return f'with torch.autocast("cuda", torch.bfloat16):\n    {_STEP}'

    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Compute the loss in the precision."""
        if self.named(setting) == "bf16":
            return hunk("training step", [_STEP], ["with torch.autocast(device, torch.bfloat16):", f"    {_STEP}"])
        return hunk("training step", ["with torch.autocast(device, torch.float16):", f"    {_STEP}"], [_STEP])

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the largest number of bf16 in place of fp16; what fp32 replaces is not known here."""
        if change.setting != "bf16":
            return None
        return Effect(metric="largest_number", before=_LARGEST["fp16"], after=_LARGEST["bf16"])

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Set the precision, to one that overflows later."""
        present, order = config.training.precision, list(_LARGEST)
        wanted = self.other(change, present)
        if wanted in order and order.index(wanted) < order.index(present):
            raise FixError(f"the precision is {present} already, which overflows later than {wanted}; take another fix")
        return {"training.precision": wanted}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return the next wider precision."""
        present = config.training.precision
        if present == "fp32":
            raise FixError(f"{config.name} computes in fp32 already, and nothing is wider; take another fix")
        return Choice(setting="bf16" if present == "fp16" else "fp32")
