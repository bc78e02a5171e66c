"""QK norm: an RMS norm per head on queries and keys, which bounds the logits. No torch."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stabmon.config import RunConfig
from stabmon.fixes.attention_kind import AttentionKind, built, in_block, module_line
from stabmon.fixes.change import Applied, Change, Effect
from stabmon.fixes.code import EARLY, hunk
from stabmon.fixes.kind import Choice, LayerFacts
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.formatting import number
from stabmon.records import Attention

if TYPE_CHECKING:
    from torch import nn

    from stabmon.fixes.target import Target

WIDE = 2.0
"""Standard deviation of the logits that a QK norm keeps at most: wider ones are what it is to narrow."""
_USED = "query, key = self.query_norm(query), self.key_norm(key)"


def qk_norm_fix(attention: Attention, why: str, value: float | None = None, *, effect: Effect | None = None) -> Fix:
    """Suggest an RMS norm per head on queries and keys, which bounds the logits by √head_dim times the gains.

    ``value`` is the first gain of both norms; None takes what keeps the size of the present logits where it is put into
    a model, and 1 where a model is built with it.
    """
    return make("qk_norm", attention, why, value=value, effect=effect)


def qk_norm_everywhere(attentions: Sequence[Attention], why: str) -> Fix:
    """Suggest QK norm for all of ``attentions``, at least one, as a fix of the whole model: its module is empty."""
    each = [qk_norm_fix(one, why) for one in attentions]
    anywhere = qk_norm_fix(attentions[0].model_copy(update={"module": ""}), why)
    code = "\n".join(dict.fromkeys(one.code for one in each))
    return each[0].model_copy(update={"module": "", "code": code, "diff": anywhere.diff})


@register
class QkNorm(AttentionKind):
    """A norm on queries and one on keys."""

    name = "qk_norm"
    edit = "add_qk_norm"
    keys = ("model.qk_norm",)
    reads = ("logit_std", "logit_max")
    bounds_updates = True
    for_every_layer = True

    def is_ours(self, attention: Attention) -> bool:
        """Return whether it is an attention of stabmon's, softmax in a ``Block`` included."""
        return super().is_ours(attention) or in_block(attention)

    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Set both norms."""
        norm = f"stabmon.nn.RMSNorm({attention.head_dim}).to(attention.out.weight)"
        return f"{EARLY}\n{module_line(attention)}\nattention.query_norm = {norm}\nattention.key_norm = {norm}"

    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make both norms and use them."""
        norm = f"torch.nn.RMSNorm({attention.head_dim})"
        return f"self.query_norm, self.key_norm = {norm}, {norm}  # in __init__\n{_USED}  # in forward"

    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Add the argument with which the attention is built."""
        return built(attention, "", "qk_norm=True")

    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make both norms and use them."""
        module = attention.module or "the model"
        norms = [f"self.{side}_norm = torch.nn.RMSNorm({attention.head_dim})" for side in ("query", "key")]
        forward = hunk(f"forward of {module}", [], [_USED], ("query, key, value = ...",))
        return f"{hunk(f'__init__ of {module}', [], norms)}\n{forward}"

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the bound on the logits, or their spread.

        Normed queries and keys of gain g bound a logit by g²√head_dim, and give directions at random a spread of g².
        None where the gain is the one that keeps the spread: it only holds it there. In a module that is not stabmon's
        the gain is 1 where the fix names none.
        """
        std, largest = known.get("logit_std"), known.get("logit_max")
        kept = min(std or 1.0, WIDE) if attention is None or self.is_ours(attention) else 1.0
        power = kept if change.value is None else change.value**2
        if attention is not None and largest is not None and largest > power * math.sqrt(attention.head_dim):
            return Effect(metric="logit_max", before=largest, after=power * math.sqrt(attention.head_dim))
        return None if std is None or std == power else Effect(metric="logit_std", before=std, after=power)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Put norms into all layers."""
        self.refuse_present(config.model.qk_norm, without=False)
        return {"model.qk_norm": True}

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Ask for the norms where the attention is built."""
        return {"SigmoidAttention": {"qk_norm": "True"}, "SoftmaxAttention": {"qk_norm": "True"}}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return a gain of 1."""
        return Choice(value=1.0 if asked is None else asked)

    def modules(self, change: Change, attentions: Mapping[str, "nn.Module"]) -> list[str]:
        """Return the module; without one every attention that has no norm yet, or all where each has one."""
        from stabmon.conversion.edit import has_qk_norm

        if change.module or not attentions:
            return [change.module]
        return [name for name, one in attentions.items() if not has_qk_norm(one)] or list(attentions)

    def apply(self, change: Change, target: "Target") -> Applied:
        """Put both norms in, with the gain that keeps the size of the present logits where the fix names none."""
        from torch import nn

        from stabmon.fixes.qk_norm_init import norm_gain
        from stabmon.nn import RMSNorm

        attention = target.attention
        target.refuse_second(attention, "key_norm", change.module)
        block = next((block for _, block in target.blocks()), None)
        gain, why = (target.value(), "as asked") if change.value is not None else norm_gain(attention, block, WIDE)
        for side in ("query_norm", "key_norm"):
            norm = RMSNorm(attention.head_dim)
            nn.init.constant_(norm.weight, gain)
            target.put(norm, attention, side, change.module)
        changed = f"every query and key now has the same length, root mean square {number(gain)} a channel ({why})"
        return target.applied(
            f"{changed}; differences in length between tokens are lost", "query_norm.weight", "key_norm.weight"
        )
