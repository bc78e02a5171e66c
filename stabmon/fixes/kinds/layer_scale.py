"""LayerScale: a learnable gain per channel on the attention branch. No torch."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stabmon.config import RunConfig
from stabmon.fixes.attention_kind import BlockKind, block_branch, block_built, block_line, branch_diff, width_of
from stabmon.fixes.change import Applied, Change, Effect
from stabmon.fixes.code import EARLY, LIKE_BRANCH
from stabmon.fixes.kind import Choice, LayerFacts
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.formatting import number
from stabmon.records import Attention

if TYPE_CHECKING:
    from stabmon.fixes.target import Target

_GAINS = ((18, 0.1), (24, 1e-5), (math.inf, 1e-6))


def layer_scale_gain(depth: int) -> float:
    """Return the first gain of LayerScale for a model of ``depth`` blocks (arXiv 2103.17239, section 2)."""
    return next(gain for deepest, gain in _GAINS if depth <= deepest)


def layer_scale_fix(attention: Attention, value: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest a learnable gain per channel on the attention branch, starting at ``value``."""
    return make("layer_scale", attention, why, value=value, effect=effect)


@register
class LayerScaleKind(BlockKind):
    """A gain on the attention branch."""

    name = "layer_scale"
    edit = "add_layer_scale"
    keys = ("model.layer_scale",)
    reads = ("branch_ratio",)

    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Set the block's gain."""
        scale = f"{self._made(attention, value)}{LIKE_BRANCH}"
        return f"{EARLY}\n{block_line(attention)}\nblock.attention_scale = {scale}"

    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make the gain and use it."""
        made = f"self.attention_scale = {self._made(attention, value)}"
        return f"{made}  # in __init__\n{block_branch('attention_scale')}  # in forward"

    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Add the argument with which the block is built."""
        return block_built(attention, "", f"layer_scale={self.number(value)}")

    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make the gain and use it."""
        return branch_diff(attention, "attention_scale", self._made(attention, value))

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the branch ratio times the gain."""
        ratio = known.get("branch_ratio")
        if ratio is None or change.value is None:
            return None
        return Effect(metric="branch_ratio", before=ratio, after=ratio * change.value)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Give all layers the gain."""
        self.refuse_present(config.model.layer_scale, without=None)
        return {"model.layer_scale": change.needed}

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Name the gain where the block is built."""
        return {} if change.value is None else {"Block": {"layer_scale": self.number(change.value)}}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return the gain for the model's depth."""
        return Choice(value=layer_scale_gain(facts.depth) if asked is None else asked)

    def apply(self, change: Change, target: "Target") -> Applied:
        """Put a gain on the block's attention branch."""
        from stabmon.nn import LayerScale

        (name, block), gain = target.block(), target.value()
        target.put(LayerScale(target.attention.out.out_features, gain), block, "attention_scale", name)
        changed = f"the attention branch of {name} is multiplied by {number(gain)}, which then learns"
        return target.applied(
            f"{changed}; a trained model loses that much of the branch", "attention_scale.gain", module=name
        )

    def _made(self, attention: Attention, value: float | None) -> str:
        return f"stabmon.nn.LayerScale({width_of(attention)}, {self.number(value)})"
