"""The attention modules of a Transformers model, and what its configuration adds to them when it is built or loaded."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from functools import wraps
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from stabmon.conversion import additions, structure
from stabmon.conversion.changes import put
from stabmon.errors import ModelError
from stabmon.integrations.transformers.options import FIELDS, NAME, asked_of
from stabmon.names import own_name

log = logging.getLogger(__name__)


def attentions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of ``model`` that call an attention function, with their names."""
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        own = isinstance(config, PreTrainedConfig) and not isinstance(module, PreTrainedModel)
        if own and isinstance(getattr(module, "is_causal", None), bool) and _has_projections(module):
            yield name, module


def _has_projections(module: nn.Module) -> bool:
    """Return whether weights of its own make queries, keys and values; what only contains the attention has none."""
    return any(hasattr(child, "weight") for child in module.children())


def equip(model: PreTrainedModel, undo: ExitStack) -> None:
    """Give the attention modules of ``model`` what their configurations ask for, and write the bias into these.

    Raises:
        ModelError: the structure does not say where something belongs, or no bias can be derived.
    """
    for name, module in attentions(model):
        config: Any = module.config
        if config._attn_implementation != NAME:
            continue
        asked = asked_of(config, own_path(model, name))
        if asked.learns:
            additions.add_bias(module, structure.heads(module), asked.bias, undo)
        elif asked.is_own:
            put(module, additions.BIAS, asked.bias, undo)
        else:
            config.sigmoid_bias = asked.bias  # of the training, whatever becomes of the lengths in the configuration
        if asked.qk_norm:
            additions.add_qk_norm(module, structure.head_dim(module), undo)
        if asked.layer_scale is not None:
            additions.add_layer_scale(module, structure.projection(model, name), asked.layer_scale, undo)
        put(module, "sigmoid_starts", (asked.bias, asked.layer_scale), undo)


def own_path(model: PreTrainedModel, name: str) -> str:
    """Return the path of a module of ``model``, without wrappers, in the base model, which other heads share."""
    return own_name(name).removeprefix(f"{model.base_model_prefix}.")


def takes_functions(model: PreTrainedModel) -> bool:
    """Return whether the class of ``model``, as Transformers ships it, calls the registered attention functions."""
    shipped: Iterator[Any] = (
        kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers.models.")
    )
    kind = next(shipped, None)
    return kind is None or bool(kind._can_set_attn_implementation())


def _refuse_softmax_of_its_own(model: PreTrainedModel) -> None:
    if not takes_functions(model):
        raise ModelError(
            f"{type(model).__name__} computes softmax itself, whatever attn_implementation says; "
            "stabmon.convert(model) says whether it can be converted"
        )


def _equip_when_built() -> None:
    """Let every model built or loaded from now on be equipped, and new parameters that no checkpoint holds start right.

    Transformers calls ``post_init`` at the end of each model's constructor, and ``_initialize_weights`` for each module
    of which a checkpoint holds no weights.
    """
    built, initialised = PreTrainedModel.post_init, PreTrainedModel._initialize_weights

    @wraps(built)
    def post_init(self: PreTrainedModel) -> None:
        if self.config._attn_implementation == NAME:
            _refuse_softmax_of_its_own(self)
            equip(self, ExitStack())
        else:
            _warn_of_softmax(self)
        built(self)

    @wraps(initialised)
    def initialize_weights(self: PreTrainedModel, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        _start(module)
        initialised(self, module, *args, **kwargs)

    PreTrainedModel.post_init, PreTrainedModel._initialize_weights = post_init, initialize_weights


def _start(module: nn.Module) -> None:
    """Write the first values of what was added to ``module`` and not loaded."""
    starts = getattr(module, "sigmoid_starts", None)
    if starts is None:
        return
    bias, scale = getattr(module, additions.BIAS, None), getattr(module, additions.LAYER_SCALE, None)
    with torch.no_grad():
        if isinstance(bias, nn.Parameter) and not getattr(bias, "_is_hf_initialized", False):
            bias.fill_(starts[0])
        if scale is not None and not getattr(scale.gain, "_is_hf_initialized", False):
            scale.gain.fill_(starts[1])


def _warn_of_softmax(model: PreTrainedModel) -> None:
    """Say that a model which was trained with sigmoid attention will run with softmax."""
    config = model.config
    if any(getattr(config, field, None) is not None for field in FIELDS):
        log.warning(
            "%s was saved with sigmoid attention, and runs with %s: pass attn_implementation='sigmoid'",
            type(model).__name__,
            config._attn_implementation,
        )


_equip_when_built()
