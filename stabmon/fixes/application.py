"""Carrying out a fix: a change to one module of a model, in place, or the code to write where that cannot be."""

import difflib
import logging
import math
from collections.abc import Mapping

import torch
from torch import nn

from stabmon.errors import FixError
from stabmon.fixes.suggest import join
from stabmon.names import natural_key, own_name
from stabmon.nn import Block, LayerScale, RMSNorm, SigmoidAttention
from stabmon.records import Fix, FixKind

_log = logging.getLogger(__name__)


def apply(fix: Fix, model: nn.Module) -> None:
    """Carry ``fix`` out on ``model``, in place.

    A bias is filled in for every head; a learnable one goes on learning from there. LayerScale and norms take the
    device and type of the attention's weights and start as new parameters: an optimizer that exists already does not
    know them, so apply such a fix before the optimizer (and DDP or FSDP) is made, or give them to
    ``optimizer.add_param_group``; a logged warning names them. Wrappers (``torch.compile``, DDP, FSDP, activation
    checkpointing) are looked through by name.

    Raises:
        FixError: the fix is not one of the model's, its module is missing or not stabmon's, or what it adds is there
            already.
    """
    if fix.kind is FixKind.LEARNING_RATE:
        raise FixError(f"the learning rate is not in the model; change it where the optimizer is made:\n{fix.code}")
    modules = {own_name(name): module for name, module in model.named_modules()}  # inside its wrappers comes last
    attention = _find(fix, modules)
    if not isinstance(attention, SigmoidAttention):
        kind = f"{type(attention).__module__}.{type(attention).__qualname__}"
        raise FixError(
            f"{fix.module} is a {kind}; stabmon changes only its own SigmoidAttention. Write in your model:\n{fix.code}"
        )
    match fix.kind:
        case FixKind.BIAS:
            with torch.no_grad():
                attention.bias.fill_(_value(fix))
        case FixKind.QK_NORM:
            _refuse_second(attention, "key_norm", fix.module)
            for side in ("query_norm", "key_norm"):
                _put(RMSNorm(attention.head_dim), attention, side, fix.module, attention)
        case FixKind.LAYER_SCALE:
            name, block = _block(fix, modules, attention)
            _put(LayerScale(attention.out.out_features, _value(fix)), block, "attention_scale", name, attention)
        case FixKind.HYBRID_NORM:
            name, block = _block(fix, modules, attention)
            _put(RMSNorm(attention.out.out_features), block, "attention_post_norm", name, attention)


def _find(fix: Fix, modules: Mapping[str, nn.Module]) -> nn.Module:
    if fix.module in modules:
        return modules[fix.module]
    attentions = [name for name, module in modules.items() if isinstance(module, SigmoidAttention)]
    near = difflib.get_close_matches(fix.module, attentions or list(modules), n=1, cutoff=0.0)
    known = ", ".join(sorted(attentions, key=natural_key)) or "none"
    raise FixError(
        f"the model has no module {fix.module!r}; the nearest name is {near[0]!r}, "
        f"its sigmoid attentions are: {known}. Apply the fix to the model in which it was found"
    )


def _block(fix: Fix, modules: Mapping[str, nn.Module], attention: SigmoidAttention) -> tuple[str, Block]:
    """Return the Block whose attention branch is ``attention``, and its name."""
    for name, block in modules.items():
        if isinstance(block, Block) and any(part is attention for part in block.attention.modules()):
            return name, block
    raise FixError(
        f"{fix.module} does not stand in a stabmon.nn.Block, so stabmon cannot tell where its output is added. "
        f"Write in your model:\n{fix.code}"
    )


def _refuse_second(parent: nn.Module, place: str, name: str) -> None:
    there = getattr(parent, place)
    if not isinstance(there, nn.Identity):
        path = join(name, place)
        raise FixError(
            f"{path} is there already: {there}. A second one is not stacked on it; "
            f"set {path} to torch.nn.Identity() first, or take another fix of the finding"
        )


def _put(new: nn.Module, parent: nn.Module, place: str, name: str, like: SigmoidAttention) -> None:
    """Set ``parent.place``, an identity until now, to ``new`` with the device and type of ``like`` and its own mode."""
    _refuse_second(parent, place, name)
    path = join(name, place)
    setattr(parent, place, new.to(like.out.weight).train(parent.training))
    _log.warning(
        "%s has new parameters: an optimizer made before this does not train them; make it afterwards, or call "
        'optimizer.add_param_group({"params": list(model.get_submodule("%s").parameters())})',
        path,
        path,
    )


def _value(fix: Fix) -> float:
    if fix.value is None or not math.isfinite(fix.value):
        raise FixError(f"a {fix.kind.value} fix needs a finite value, got {fix.value}; set Fix.value")
    return fix.value
