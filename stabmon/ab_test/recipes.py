"""The recipes that a race tries on stabmon's own modules, each put into every layer of a copy."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes import row_mass
from stabmon.fixes.kinds.hybrid_norm import hybrid_norm_fix
from stabmon.fixes.kinds.layer_scale import layer_scale_fix
from stabmon.fixes.kinds.learnable_bias import learnable_bias_fix
from stabmon.fixes.kinds.qk_norm import qk_norm_fix
from stabmon.fixes.record import Fix
from stabmon.names import own_name
from stabmon.nn import SigmoidAttention
from stabmon.records import Attention

GAIN = 0.1
"""First gain of LayerScale, that of models up to 18 blocks (arXiv 2103.17239)."""
WHY = "it is compared in a race"

RECIPES: dict[str, Callable[[Attention], Fix]] = {
    "QK norm": lambda attention: qk_norm_fix(attention, WHY),
    "hybrid norm": lambda attention: hybrid_norm_fix(attention, WHY),
    "LayerScale": lambda attention: layer_scale_fix(attention, GAIN, WHY),
    "learnable bias": lambda attention: learnable_bias_fix(attention, WHY),
}


def positions(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return other position schemes for a language model, as keys of its configuration: with the bias of each."""
    model = config.model
    if config.workload != "language":
        return {}
    length = round(-math.log(model.context), 2)
    fitted = round(row_mass.alibi_bias(model.heads, model.context, True), 2)
    schemes: dict[str, dict[str, Any]] = {
        "RoPE": {"model.position": "rope", "model.bias": length},
        "ALiBi": {"model.position": "alibi", "model.bias": fitted},
    }
    return {name: change for name, change in schemes.items() if change["model.position"] != model.position}


def put_in(name: str, model: nn.Module) -> list[nn.Parameter] | None:
    """Put the recipe into every sigmoid attention of ``model``; return new parameters, or None where it is refused.

    It is refused where the model has it, or has no place for it.
    """
    attentions = [_described(path, one) for path, one in model.named_modules() if isinstance(one, SigmoidAttention)]
    before = {id(weight) for weight in model.parameters()}
    try:
        for attention in attentions:
            RECIPES[name](attention).apply(model)
    except FixError:
        return None
    return [weight for weight in model.parameters() if id(weight) not in before] if attentions else None


def _described(path: str, module: SigmoidAttention) -> Attention:
    name = own_name(path)
    return Attention(
        layer=name, module=name, block=name, branch=name, kind="sigmoid", heads=module.heads, head_dim=module.head_dim
    )
