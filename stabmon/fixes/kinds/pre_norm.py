"""Pre-norm: x + f(norm(x)) in place of norm(x + f(x)). No torch."""

from typing import TYPE_CHECKING, Any

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.attention_kind import BlockKind, block_built, block_line
from stabmon.fixes.change import Applied, Change, Effect
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.records import Attention

if TYPE_CHECKING:
    from stabmon.fixes.target import Target

_NEW, _OLD = "x = x + self.attention(self.norm(x))", "x = self.norm(x + self.attention(x))"


def pre_norm_fix(attention: Attention, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest x + f(norm(x)) in place of norm(x + f(x))."""
    return make("pre_norm", attention, why, effect=effect)


@register
class PreNorm(BlockKind):
    """A norm before each branch of a block, and none on the residual stream."""

    name = "pre_norm"
    keys = ("model.norm",)
    while_training = False

    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Set the block's order."""
        return f'{block_line(attention)}\nblock.norm = "pre"'

    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Move the norm."""
        return f"{_NEW}  # in forward, in place of {_OLD.removeprefix('x = ')}"

    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Take the argument away with which the block is built."""
        return block_built(attention, 'norm="post"', "")

    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Move the norm."""
        return hunk(f"forward of {attention.block or 'the block'}", [_OLD], [_NEW])

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Move the norm of all layers."""
        self.refuse_present(config.model.norm, without="post")
        return {"model.norm": "pre"}

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Name the order where the block is built."""
        return {"Block": {"norm": '"pre"'}}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return no value: it takes none."""
        return Choice()

    def apply(self, change: Change, target: "Target") -> Applied:
        """Move the norm of the block."""
        name, block = target.block()
        if block.norm == "pre":
            raise FixError(f"{name} norms before its branches already; take another fix of the finding")
        block.norm = "pre"
        changed = f"{name} is x + f(norm(x)) now; its stream is no longer normed"
        return target.applied(f"{changed}, which every weight behind it was learnt for", module=name)
