"""A bias that learns, one number a head. No torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.attention_kind import AttentionKind, built, module_line
from stabmon.fixes.change import Applied, Change, Effect, Safety
from stabmon.fixes.code import EARLY, hunk
from stabmon.fixes.kind import Choice, LayerFacts
from stabmon.fixes.kinds.bias import (
    NO_BIAS,
    READS,
    default_bias,
    expected_row_mass,
    forward_of,
    present,
    refuse_softmax,
)
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.suggest import make
from stabmon.formatting import signed
from stabmon.records import Attention

if TYPE_CHECKING:
    from stabmon.fixes.target import Target

_CALL = "sigmoid_attention(query, key, value"


def learnable_bias_fix(
    attention: Attention, why: str, value: float | None = None, *, effect: Effect | None = None
) -> Fix:
    """Suggest that the bias learns, one number a head, from ``value`` on (None: from what it is now)."""
    return make("learnable_bias", attention, why, value=value, effect=effect)


@register
class LearnableBias(AttentionKind):
    """A bias that becomes a parameter."""

    name = "learnable_bias"
    edit = "learn_bias"
    family = "bias"
    keys = ("model.bias", "model.bias_start")
    reads = READS
    usual_safety = Safety.ANY_TIME

    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Replace the buffer by a parameter."""
        start = "" if value is None else f".fill_({self.number(value)})"
        made = f"bias = attention.bias.detach().clone(){start}\ndel attention.bias"
        return f"{EARLY}\n{module_line(attention)}\n{made}\nattention.bias = torch.nn.Parameter(bias)"

    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make a parameter and give it to the call."""
        if attention.kind == "softmax":
            return NO_BIAS
        return f"{self._made(attention, value)}  # in __init__\n{_CALL}, bias=self.bias)  # in forward"

    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Replace the argument with which the attention is built."""
        start = "" if value is None else f", bias_start={self.number(value)}"
        return built(attention, f"bias={present(attention)}", f'bias="learnable"{start}')

    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Make a parameter and give it to the call."""
        if attention.kind == "softmax":
            return ""
        init = hunk(f"__init__ of {attention.module or 'the model'}", [], [self._made(attention, value)])
        return f"{init}\n{hunk(forward_of(attention), [f'{_CALL}, ...)'], [f'{_CALL}, bias=self.bias)'])}"

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the row mass at the first value."""
        return expected_row_mass(change, attention, known)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Let the bias of all layers learn, from the change's value or from the present one."""
        refuse_softmax(config)
        fixed = config.model.bias if isinstance(config.model.bias, float | int) else config.model.bias_start
        start = fixed if change.value is None else change.value
        return {"model.bias": "learnable", "model.bias_start": None if start is None else float(start)}

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Name the bias where the attention is built."""
        start = {} if change.value is None else {"bias_start": self.number(change.value)}
        return {"SigmoidAttention": {"bias": '"learnable"'} | start}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return the bias at which rows sum to one, as measured; -log n where that was not."""
        return Choice(value=default_bias(config, facts, asked))

    def apply(self, change: Change, target: "Target") -> Applied:
        """Replace the buffer by a parameter."""
        from torch import nn

        attention, module = target.sigmoid(), change.module
        if isinstance(attention.bias, nn.Parameter):
            raise FixError(f"{module}.bias learns already; take another fix of the finding")
        start = attention.bias.detach().clone()
        if change.value is not None:
            start.fill_(target.value())
        moved = (start - attention.bias).float().mean().item()
        del attention.bias
        attention.bias = nn.Parameter(start)
        what = "its value is the same" if moved == 0 else f"it starts {signed(moved)} from where it was"
        return target.applied(f"the bias of {module} learns from now on, one number a head; {what}", "bias")

    def _made(self, attention: Attention, value: float | None) -> str:
        start = "-math.log(max_length)" if value is None else self.number(value)
        return f"self.bias = torch.nn.Parameter(torch.full(({attention.heads},), {start}))"
