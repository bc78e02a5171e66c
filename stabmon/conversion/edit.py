"""Changes to single attentions that are sigmoid attention already, by conversion or through Transformers.

Each takes the model and the path of the attention in it, and puts what takes the change back on the stack ``undo``. For
models of Transformers the configuration is changed too, so that the model is saved and loaded with it.
"""

import sys
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from stabmon.conversion import additions, structure, x_transformers
from stabmon.conversion.changes import put
from stabmon.errors import ModelError

_NORMS = ("q_norm", "k_norm", "query_norm", "key_norm", "q_layernorm", "k_layernorm", "norm_q", "norm_k")
"""Names that libraries give to norms of queries and keys."""


def is_editable(module: nn.Module) -> bool:
    """Return whether ``module`` is an attention that the functions of this file change."""
    return hasattr(module, additions.BIAS) or x_transformers.is_sigmoid(module) or _is_of_transformers(module)


def has_qk_norm(module: nn.Module) -> bool:
    """Return whether an attention norms queries and keys, by an addition of stabmon's or by norms of its own."""
    norms = (getattr(module, name, None) for name in (additions.QUERY_NORM, *_NORMS))
    return any(isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity) for norm in norms)


def present_bias(module: nn.Module) -> float:
    """Return the bias of an editable attention, of several heads their mean."""
    bias = 0.0 if x_transformers.is_sigmoid(module) else getattr(module, additions.BIAS, None)
    if bias is None:
        from stabmon.integrations.transformers.options import bias_of

        bias = bias_of(module)
    return float(bias.detach().mean()) if isinstance(bias, torch.Tensor) else float(bias)


def set_bias(model: nn.Module, path: str, value: float, undo: ExitStack | None = None) -> None:
    """Set the bias of every head to ``value``; one that learns goes on from there."""
    undo = ExitStack() if undo is None else undo
    module = model.get_submodule(path)
    x_transformers.take_over(module, undo)
    bias = getattr(module, additions.BIAS, None)
    if isinstance(bias, nn.Parameter):
        undo.callback(bias.data.copy_, bias.detach().clone())
        bias.data.fill_(value)
    elif _is_of_transformers(module):
        _write(model, path, {"bias": value}, undo)
    else:
        put(module, additions.BIAS, value, undo)


def learn_bias(model: nn.Module, path: str, start: float | None = None, undo: ExitStack | None = None) -> None:
    """Let the bias learn, one number a head, from ``start`` or from where it is.

    Raises:
        ModelError: it learns already, or the number of heads is unknown.
    """
    module = model.get_submodule(path)
    if isinstance(getattr(module, additions.BIAS, None), nn.Parameter):
        raise ModelError("its bias learns already")
    undo = ExitStack() if undo is None else undo
    start = present_bias(module) if start is None else start
    x_transformers.take_over(module, undo)
    if _is_of_transformers(module):
        _write(model, path, {"bias": "learnable", "bias_start": start}, undo)
    else:
        holder = structure.holder(model, path)
        additions.add_bias(module, structure.heads(module, holder), start, undo, holder)


def add_qk_norm(model: nn.Module, path: str, gain: float = 1.0, undo: ExitStack | None = None) -> None:
    """Put RMS norms before the attention, whose gains start at ``gain``.

    Raises:
        ModelError: it has them, or the head dim is unknown.
    """
    module = model.get_submodule(path)
    if has_qk_norm(module):
        raise ModelError("its queries and keys are normed already")
    undo = ExitStack() if undo is None else undo
    x_transformers.take_over(module, undo)
    if _is_of_transformers(module):
        _write(model, path, {"qk_norm": True}, undo)
    else:
        holder = structure.holder(model, path)
        additions.add_qk_norm(module, structure.head_dim(module, holder), undo, holder)
    for name in (additions.QUERY_NORM, additions.KEY_NORM):
        nn.init.constant_(module.get_parameter(f"{name}.weight"), gain)


def add_layer_scale(model: nn.Module, path: str, gain: float, undo: ExitStack | None = None) -> None:
    """Put a LayerScale behind the output projection.

    Raises:
        ModelError: it has one, or the projection is unknown.
    """
    module = model.get_submodule(path)
    if hasattr(module, additions.LAYER_SCALE):
        raise ModelError("it has a LayerScale already")
    undo = ExitStack() if undo is None else undo
    if _is_of_transformers(module):
        _write(model, path, {"layer_scale": gain}, undo)
    else:
        additions.add_layer_scale(module, structure.projection(model, path), gain, undo)
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # what is compiled already would not run the hook that scales


def _is_of_transformers(module: nn.Module) -> bool:
    """Return whether ``module`` is an attention of Transformers with ``attn_implementation="sigmoid"``."""
    if "stabmon.integrations.transformers.modules" not in sys.modules:
        return False
    from stabmon.integrations.transformers.modules import attentions
    from stabmon.integrations.transformers.options import NAME

    config: Any = getattr(module, "config", None)
    return any(found is module for _, found in attentions(module)) and config._attn_implementation == NAME


def _write(model: nn.Module, path: str, options: dict[str, Any], undo: ExitStack) -> None:
    """Change the options of one attention in its configuration and those that it was copied from, and follow them."""
    from transformers import PreTrainedModel

    from stabmon.integrations.transformers.modules import equip, own_path

    above = [name for name, part in model.named_modules() if isinstance(part, PreTrainedModel) and _holds(name, path)]
    root: Any = model.get_submodule(above[0])
    own, kind = own_path(root, path[len(above[0]) :].removeprefix(".")), type(model.get_submodule(path).config)
    configs = {id(part.config): part.config for part in root.modules() if type(getattr(part, "config", None)) is kind}
    for config in configs.values():
        layers: dict[str, Any] = dict(getattr(config, "sigmoid_layers", None) or {})
        put(config, "sigmoid_layers", {**layers, own: {**layers.get(own, {}), **options}}, undo)
    equip(root, undo)


def _holds(name: str, path: str) -> bool:
    return not name or path.startswith(f"{name}.")
