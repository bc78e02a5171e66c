"""The bias: a number added to every logit of every head, which sets what a row sums to. No torch."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.attention_kind import AttentionKind, built, module_line
from stabmon.fixes.change import Applied, Change, Effect, Safety
from stabmon.fixes.code import hunk
from stabmon.fixes.kind import Choice, LayerFacts
from stabmon.fixes.record import Fix
from stabmon.fixes.registry import register
from stabmon.fixes.row_mass import row_mass_at
from stabmon.fixes.suggest import make
from stabmon.formatting import number, signed
from stabmon.records import Attention

if TYPE_CHECKING:
    from stabmon.fixes.target import Target

NO_BIAS = "# softmax makes every row sum to one: it has no bias to set"
SAME = 0.02
"""A bias nearer than this to the measured best one makes rows sum to one."""

READS = ("row_mass", "bias", "best_bias", "logit_mean", "logit_std")
"""Metrics that the row mass at another bias is read from."""


def bias_fix(attention: Attention, value: float, why: str, *, effect: Effect | None = None) -> Fix:
    """Suggest the bias ``value`` (added to every logit of every head) for ``attention``."""
    return make("bias", attention, why, value=value, effect=effect)


@register
class Bias(AttentionKind):
    """Another value of the bias; one that learns goes on learning from there."""

    name = "bias"
    edit = "set_bias"
    keys = ("model.bias", "model.bias_start")
    reads = READS
    usual_safety = Safety.ANY_TIME

    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Fill the bias of every head."""
        return f"{module_line(attention)}\nwith torch.no_grad():\n    attention.bias.fill_({self.number(value)})"

    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Give the call its bias."""
        if attention.kind == "softmax":
            return NO_BIAS
        return f"sigmoid_attention(query, key, value, bias={self.number(value)})"

    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Replace the argument with which the attention is built."""
        return built(attention, f"bias={present(attention)}", f"bias={self.number(value)}")

    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Give the call its bias."""
        if attention.kind == "softmax":
            return ""
        call = "sigmoid_attention(query, key, value"
        return hunk(forward_of(attention), [f"{call}, ...)"], [f"{call}, bias={self.number(value)}, ...)"])

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the row mass at the new bias."""
        return expected_row_mass(change, attention, known)

    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Set the bias of all layers."""
        refuse_softmax(config)
        return bias_settings(change.needed, config)

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Name the bias where the attention is built or called."""
        if change.value is None:
            return {}
        number = self.number(change.value)
        return {"SigmoidAttention": {"bias": number}, "sigmoid_attention": {"bias": number}}

    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return the bias at which rows sum to one, as measured; -log n where that was not."""
        return Choice(value=default_bias(config, facts, asked))

    def apply(self, change: Change, target: "Target") -> Applied:
        """Fill the bias of every head."""
        return set_bias(target)


def default_bias(config: RunConfig, facts: LayerFacts, asked: float | None) -> float:
    """Return ``asked``, else the measured best bias, else -log n, with two decimals."""
    best = facts.measured.get("best_bias", math.nan)
    fits = best if math.isfinite(best) else -math.log(config.model.context)
    return round(fits if asked is None else asked, 2)


def present(attention: Attention) -> str:
    """Return the argument ``bias`` with which an attention was built."""
    if isinstance(attention.bias, float):
        return f"{attention.bias:.6g}"
    return '"learnable"' if attention.bias == "learnable" else "..."


def forward_of(attention: Attention) -> str:
    """Return the words for the method that computes an attention of the user's own."""
    return f"forward of {attention.module or 'the model'}"


def expected_row_mass(change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
    """Return the row mass at the bias of ``change``, from the one measured at the present bias."""
    mass, bias = known.get("row_mass"), known.get("bias")
    wanted = bias if change.value is None else change.value
    if mass is None or bias is None or wanted is None:
        return None
    best = known.get("best_bias")
    if best is not None and abs(best - wanted) < SAME:
        return Effect(metric="row_mass", before=mass, after=1.0)
    alibi = attention is not None and attention.position == "alibi"
    spread = (0.0, 0.0) if alibi else (known.get("logit_mean", 0.0), known.get("logit_std", 0.0))
    return Effect(metric="row_mass", before=mass, after=row_mass_at(wanted, mass, bias, *spread))


def refuse_softmax(config: RunConfig) -> None:
    """Raise a ``FixError`` for a configuration whose attention has no bias."""
    if config.model.attention == "softmax":
        raise FixError(f"{config.name} has softmax attention, which has no bias to set; take another fix")


def bias_settings(value: float, config: RunConfig) -> dict[str, Any]:
    """Return the keys of a configuration for the bias ``value``; one that learns starts there."""
    learns = config.model.bias == "learnable"
    return {"model.bias": "learnable", "model.bias_start": value} if learns else {"model.bias": value}


def set_bias(target: "Target") -> Applied:
    """Fill the bias of every head with the value of the change."""
    import torch

    attention, value = target.sigmoid(), target.value()
    moved = value - attention.bias.detach().float().mean().item()
    with torch.no_grad():
        attention.bias.fill_(value)
    factor = math.exp(max(-700.0, min(moved, 700.0)))
    changed = f"the bias moved by {signed(moved)}, so weights that are not saturated are multiplied by {number(factor)}"
    return target.applied(f"{changed}; what was learnt with the old bias gets that much less or more")
