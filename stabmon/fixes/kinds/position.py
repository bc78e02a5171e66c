"""The scheme of positions: RoPE, ALiBi, learned or none, with the bias that fits it. No torch."""

from typing import TYPE_CHECKING, Any, Literal

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.attention_kind import AttentionKind, in_block
from stabmon.fixes.change import Applied, Change, Effect, Safety
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts
from stabmon.fixes.kinds.bias import bias_settings, set_bias
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.records import Attention

if TYPE_CHECKING:
    from stabmon.fixes.target import Target

_ARGUMENTS = {"rope": '"rope"', "alibi": '"alibi"', "none": "None"}
"""Schemes that an attention of stabmon's computes, as it is built with them."""
_FOREIGN = {
    "rope": "query, key = stabmon.nn.rotate(query, key)  # in forward, before the attention",
    "alibi": "sigmoid_attention(query, key, value, alibi_slopes=stabmon.nn.alibi_slopes(heads))",
    "none": "# add nothing to logits, queries or keys",
    "learned": "x = x + positions.weight[: x.shape[1]]",
}


def position_fix(
    attention: Attention,
    setting: Literal["learned", "rope", "alibi", "none"],
    why: str,
    bias: float | None = None,
    *,
    effect: Effect | None = None,
) -> Fix:
    """Suggest another scheme of positions, with the bias that fits it (None: the one in use)."""
    return make("position", attention, why, value=bias, setting=setting, effect=effect)


@register
class Position(AttentionKind):
    """Another scheme of positions."""

    name = "position"
    keys = ("model.position",)
    while_training = False

    def is_ours(self, attention: Attention) -> bool:
        """Return whether it is an attention of stabmon's, softmax in a ``Block`` included."""
        return super().is_ours(attention) or in_block(attention)

    def safety(self, attention: Attention | None, setting: str | None) -> Safety:
        """Return when it can be applied; learned positions are added outside the attention, by hand."""
        return Safety.BY_HAND if setting == "learned" else super().safety(attention, setting)

    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Name the scheme where the model is built."""
        position = _ARGUMENTS.get(self.named(setting), "None")
        return f"SigmoidAttention(..., position={position})  # where the model is built{_bias_note(attention, value)}"

    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Compute the scheme."""
        return f"{_FOREIGN.get(self.named(setting), _FOREIGN['learned'])}{_bias_note(attention, value)}"

    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Replace the argument with which the attention is built."""
        return self._diff("SigmoidAttention(..., position={})", attention, value, setting)

    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Replace the scheme."""
        return self._diff("positions = {}", attention, value, setting)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Change the scheme of all layers, with the bias that fits it; softmax takes the scheme alone."""
        scheme = {"model.position": self.other(change, config.model.position)}
        is_bare = change.value is None or config.model.attention == "softmax"
        return scheme if is_bare else scheme | bias_settings(change.needed, config)

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Name the scheme where the attention is built."""
        if change.setting not in _ARGUMENTS:
            return {}
        wanted = {"position": _ARGUMENTS[change.setting]}
        return {"SigmoidAttention": wanted, "SoftmaxAttention": wanted}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return ALiBi, or RoPE for a run that has it, with the bias in use."""
        return Choice(setting="rope" if config.model.position == "alibi" else "alibi")

    def apply(self, change: Change, target: "Target") -> Applied:
        """Change the scheme of an attention, and its bias where the fix names one."""
        from stabmon.nn import SigmoidAttention, alibi_slopes

        attention, module, setting = target.attention, change.module, change.setting
        wanted = None if setting == "none" else setting
        if setting not in _ARGUMENTS or wanted == attention.position:
            raise FixError(
                f"{module} has position {attention.position!r}; stabmon sets one of {', '.join(_ARGUMENTS)} in place, "
                f"other than that, got {setting!r}. Write in your model:\n{change.code}"
            )
        before, attention.position = attention.position, wanted  # type: ignore[assignment]
        slopes = alibi_slopes(attention.heads).to(attention.out.weight.device) if setting == "alibi" else None
        attention.alibi_slopes = slopes
        changed = f"{module} has position {setting!r} in place of {before!r}"
        if change.value is not None and isinstance(attention, SigmoidAttention):
            changed = f"{changed}; {set_bias(target).changed}"
        return target.applied(f"{changed}; its queries and keys were learnt for the old one")

    def _diff(self, call: str, attention: Attention, value: float | None, setting: str | None) -> str:
        new = _ARGUMENTS.get(self.named(setting), "None")
        new += "" if value is None or attention.kind == "softmax" else f", bias={value:.6g}"
        old = _ARGUMENTS[attention.position or "none"]
        where = f"where {attention.module or 'the attention'} is built"
        return hunk(where, [call.format(old)], [call.format(new)])


def _bias_note(attention: Attention, bias: float | None) -> str:
    return "" if bias is None or attention.kind == "softmax" else f"\n# with bias={bias:.6g}, which fits that scheme"
