"""Options of sigmoid attention in a model's Transformers configuration, which is saved and loaded with the model.

================================  ====================================================================================
``config.sigmoid_bias``           a number; "learnable": one parameter a head; None: -log of the longest training length
``config.sigmoid_bias_start``     where a learnable bias starts; None for -log of that length
``config.sigmoid_qk_norm``        whether queries and keys go through an RMS norm just before the attention
``config.sigmoid_layer_scale``    first gain of a LayerScale on the attention's branch; None for no LayerScale
================================  ====================================================================================
"""

import math
from typing import Any

from torch import Tensor, nn

from stabmon.conversion.lengths import longest
from stabmon.errors import ModelError

NAME = "sigmoid"
"""The name in ``attn_implementation``."""

FIELDS = ("sigmoid_bias", "sigmoid_bias_start", "sigmoid_qk_norm", "sigmoid_layer_scale")


def bias_of(module: nn.Module) -> Tensor | float:
    """Return what an attention module adds to its logits: its parameter [H], or the number of its configuration.

    Raises:
        ModelError: the configuration names no longest training length, or a learnable bias has no parameter.
    """
    config: Any = module.config
    parameter: Tensor | None = getattr(module, "sigmoid_bias", None)
    if parameter is not None:
        return parameter
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
