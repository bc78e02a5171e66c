"""Hybrid norm: a norm on the attention's output as well, x + norm(attention(norm(x))). No torch."""

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
from stabmon.records import Attention

if TYPE_CHECKING:
    from stabmon.fixes.target import Target


def hybrid_norm_fix(attention: Attention, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest a norm on the attention's output as well: x + norm(attention(norm(x)))."""
    return make("hybrid_norm", attention, why, effect=effect)


@register
class HybridNorm(BlockKind):
    """A norm on the attention branch."""

    name = "hybrid_norm"
    keys = ("model.hybrid_norm",)
    reads = ("branch_ratio", "residual_in")

    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Set the block's second norm."""
        norm = f"stabmon.nn.RMSNorm({width_of(attention)}){LIKE_BRANCH}"
        return f"{EARLY}\n{block_line(attention)}\nblock.attention_post_norm = {norm}"

    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make the norm and use it."""
        made = f"self.attention_post_norm = torch.nn.RMSNorm({width_of(attention)})"
        return f"{made}  # in __init__\n{block_branch('attention_post_norm')}  # in forward"

    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Add the argument with which the block is built."""
        return block_built(attention, "", "hybrid_norm=True")

    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make the norm and use it."""
        return branch_diff(attention, "attention_post_norm", f"torch.nn.RMSNorm({width_of(attention)})")

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the branch ratio of a branch with root mean square 1."""
        ratio, stream = known.get("branch_ratio"), known.get("residual_in")
        if ratio is None or not stream:
            return None
        return Effect(metric="branch_ratio", before=ratio, after=1.0 / stream)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Give all layers the norm."""
        self.refuse_present(config.model.hybrid_norm, without=False)
        return {"model.hybrid_norm": True}

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Ask for the norm where the block is built."""
        return {"Block": {"hybrid_norm": "True"}}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return no value: it takes none."""
        return Choice()

    def apply(self, change: Change, target: "Target") -> Applied:
        """Put a norm on the block's attention branch."""
        from stabmon.nn import RMSNorm

        name, block = target.block()
        target.put(RMSNorm(target.attention.out.out_features), block, "attention_post_norm", name)
        changed = f"the attention branch of {name} now has root mean square 1 at every token before it is added"
        return target.applied(f"{changed}, whatever size it had learnt", "attention_post_norm.weight", module=name)
