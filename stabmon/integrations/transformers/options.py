"""Options of sigmoid attention in a model's Transformers configuration, which is saved and loaded with the model.

================================  ====================================================================================
``config.sigmoid_bias``           a number; "learnable": one parameter a head; None: -log of the longest training length
``config.sigmoid_bias_start``     where a learnable bias starts; None for -log of that length
``config.sigmoid_qk_norm``        whether queries and keys go through an RMS norm just before the attention
``config.sigmoid_layer_scale``    first gain of a LayerScale on the attention's branch; None for no LayerScale
``config.sigmoid_layers``         {path of an attention, without the prefix of the base model: {"bias": ...,
                                  "bias_start": ..., "qk_norm": ..., "layer_scale": ...}}, what it has instead
================================  ====================================================================================
"""

import math
from typing import Any, NamedTuple

from torch import Tensor, nn

from stabmon.conversion.lengths import longest
from stabmon.errors import ModelError

NAME = "sigmoid"
"""The name in ``attn_implementation``."""

FIELDS = ("sigmoid_bias", "sigmoid_bias_start", "sigmoid_qk_norm", "sigmoid_layer_scale", "sigmoid_layers")


class Asked(NamedTuple):
    """The options of one attention.

    bias: the number, or where a learnable bias starts.
    is_own: whether the number is this attention's and not that of all.
    """

    bias: float
    learns: bool
    is_own: bool
    qk_norm: bool
    layer_scale: float | None


def asked_of(config: Any, path: str) -> Asked:
    """Return the options of the attention at ``path`` in its model, without the prefix of the base model.

    Raises:
        ModelError: the configuration says neither a bias nor a longest training length.
    """
    own: dict[str, Any] = (getattr(config, "sigmoid_layers", None) or {}).get(path, {})
    learns = own.get("bias", getattr(config, "sigmoid_bias", None)) == "learnable"
    first = own.get("bias_start") if learns else own.get("bias")
    gain = own.get("layer_scale", getattr(config, "sigmoid_layer_scale", None))
    return Asked(
        bias=first_bias(config) if first is None else float(first),
        learns=learns,
        is_own=not learns and first is not None,
        qk_norm=bool(own.get("qk_norm", getattr(config, "sigmoid_qk_norm", False))),
        layer_scale=None if gain is None else float(gain),
    )


def bias_of(module: nn.Module) -> Tensor | float:
    """Return what an attention module adds to its logits: its parameter [H], its number, or its configuration's.

    Raises:
        ModelError: the configuration names no longest training length, or a learnable bias has no parameter.
    """
    config: Any = module.config
    own: Tensor | float | None = getattr(module, "sigmoid_bias", None)
    if own is not None:
        return own
    if getattr(config, "sigmoid_bias", None) == "learnable":
        raise ModelError(
            f"config.sigmoid_bias is 'learnable', and {type(module).__name__} has no parameter sigmoid_bias: "
            "build or load the model with attn_implementation='sigmoid', or call stabmon.convert(model)"
        )
    return first_bias(config)


def first_bias(config: Any) -> float:
    """Return the bias that a training starts with.

    Raises:
        ModelError: the configuration says neither a bias nor a longest training length.
    """
    bias = getattr(config, "sigmoid_bias", None)
    if bias == "learnable":
        bias = getattr(config, "sigmoid_bias_start", None)
    if bias is not None:
        return float(bias)
    length = longest(config)
    if length is None:
        raise ModelError(
            f"{type(config).__name__} does not say its longest training length in tokens: set config.sigmoid_bias "
            "(with 'learnable' config.sigmoid_bias_start) to minus its logarithm, or call stabmon.convert"
        )
    return -math.log(length)
