"""Additions of a conversion to an attention module: a learnable bias, QK norm and LayerScale, under names of their own.

They are children of the attention module, so parameters, devices, states and copies of a model hold them. Hooks of them
find their parameters through the module that calls them.
"""

import logging
from contextlib import ExitStack
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from stabmon.conversion import structure
from stabmon.errors import ModelError
from stabmon.nn import LayerScale, RMSNorm

log = logging.getLogger(__name__)

BIAS, QUERY_NORM, KEY_NORM, LAYER_SCALE = (
    "sigmoid_bias",
    "sigmoid_query_norm",
    "sigmoid_key_norm",
    "sigmoid_layer_scale",
)


def add_bias(module: nn.Module, heads: int, start: float, undo: ExitStack, weights: nn.Module | None = None) -> None:
    """Give ``module`` a learnable bias [heads] in fp32 in place of a number, unless it has one.

    weights: the module whose weights say the device; ``module`` itself by default.
    """
    if isinstance(getattr(module, BIAS, None), nn.Parameter):
        return
    bias = torch.full((heads,), start, device=_like(weights or module).device, dtype=torch.float32)
    if BIAS in vars(module):
        undo.callback(setattr, module, BIAS, vars(module).pop(BIAS))
    module.register_parameter(BIAS, nn.Parameter(bias))
    undo.callback(_remove, module, BIAS)


def add_qk_norm(module: nn.Module, head_dim: int, undo: ExitStack, weights: nn.Module | None = None) -> None:
    """Give ``module`` an RMS norm for queries and one for keys, unless it has them; ``normed`` applies them.

    weights: as in ``add_bias``, also of their type.
    """
    for name in (QUERY_NORM, KEY_NORM):
        if not hasattr(module, name):
            like = _like(weights or module)
            module.add_module(name, RMSNorm(head_dim).to(like.device, like.dtype))
            undo.callback(_remove, module, name)


def add_layer_scale(module: nn.Module, projection: nn.Module, gain: float, undo: ExitStack) -> None:
    """Multiply what ``projection`` returns by a LayerScale that belongs to ``module``, unless it has one."""
    if not hasattr(module, LAYER_SCALE):
        like = _like(projection)
        scale = LayerScale(structure.width_out(projection), gain).to(like.device, like.dtype)
        module.add_module(LAYER_SCALE, scale)
        undo.callback(_remove, module, LAYER_SCALE)
        undo.callback(projection.register_forward_hook(_Scaled(scale)).remove)


class _Scaled:
    """The forward hook of an output projection; an object, so that a copied model's hook holds the copy's gain."""

    def __init__(self, scale: LayerScale) -> None:
        self.scale = scale

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Return the scaled output."""
        scaled: Tensor = self.scale(output)
        return scaled


def normed(module: nn.Module, query: Tensor, key: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return ``query`` and ``key`` in ``dtype``, through the norms of ``module`` where it has them."""
    query_norm, key_norm = getattr(module, QUERY_NORM, None), getattr(module, KEY_NORM, None)
    if query_norm is None or key_norm is None:
        return query, key
    return query_norm(query).to(dtype), key_norm(key).to(dtype)


def names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of what was added to ``module`` and trains."""
    parameters = {name.partition(".")[0] for name, _ in module.named_parameters()}
    return tuple(name for name in (BIAS, QUERY_NORM, KEY_NORM, LAYER_SCALE) if name in parameters)


@cache
def log_ignored_dropout(kind: str) -> None:
    """Log, once for each class of attention, that its dropout of weights is ignored."""
    log.warning("sigmoid attention has no dropout of weights: that of %s is ignored", kind)


def _like(module: nn.Module) -> Tensor:
    """Return the tensor whose device and type new parameters take.

    Raises:
        ModelError: the module has no weights.
    """
    like = next(module.parameters(), None)
    if like is None:
        raise ModelError("it has no weights, whose device and type new parameters would take")
    return like


def _remove(module: nn.Module, name: str) -> None:
    delattr(module, name)
