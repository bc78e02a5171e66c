"""Carrying out a fix: a change to one module of a model, in place, or the code to write where that cannot be."""

import difflib
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy

import torch
from torch import nn

from stabmon.errors import FixError
from stabmon.fixes.code import join
from stabmon.fixes.qk_norm_init import norm_gain
from stabmon.fixes.record import Applied, Fix, FixKind
from stabmon.fixes.source import source_diff
from stabmon.names import natural_key, own_name
from stabmon.nn import Block, LayerScale, RMSNorm, SigmoidAttention, alibi_slopes
from stabmon.nn.self_attention import SelfAttention

_log = logging.getLogger(__name__)
_POSITIONS = {"rope": "rope", "alibi": "alibi", "none": None}


def apply(fix: Fix, model: nn.Module) -> Applied:
    """Carry ``fix`` out on ``model``, in place, and return what that changed; with it what belongs to it, or nothing.

    QK norm with an empty module goes into every attention that has none.

    A bias is filled in for every head; a learnable one goes on learning from there. QK norm starts with the gain that
    keeps the size of the present logits, where the fix names none. LayerScale and norms take the device and type of the
    attention's weights. What is new must be learnt too: an optimizer that exists already does not know it, so apply
    such a fix before the optimizer (and DDP or FSDP) is made, or give it to ``optimizer.add_param_group``; a logged
    warning names it. Wrappers (``torch.compile``, DDP, FSDP, activation checkpointing) are looked through by name.

    Raises:
        FixError: the fix is not one of the model's, its module is missing or not stabmon's, or what it adds is there
            already.
    """
    by_hand = next((part for part in fix.parts if part.kind.of_training), None)
    if by_hand is not None:
        raise FixError(f"{_words(by_hand)} is not in the model; change it where the training is written:\n{fix.code}")
    with _undone_if_refused(model):
        applied = [_apply(one, model) for part in fix.parts for one in _places(part, model)]
    for one in applied:
        _announce(one)
    changed = "; ".join(one.changed for one in applied)
    parameters = tuple(name for one in applied for name in one.parameters)
    return applied[0].model_copy(update={"changed": changed, "parameters": parameters})


def _places(fix: Fix, model: nn.Module) -> list[Fix]:
    """Return ``fix`` for each attention that it is meant for."""
    modules = {own_name(name): module for name, module in model.named_modules()}
    found = {name: module for name, module in modules.items() if isinstance(module, SelfAttention)}
    if fix.kind is not FixKind.QK_NORM or fix.module or not found:
        return [fix]
    without = [name for name, attention in found.items() if isinstance(attention.key_norm, nn.Identity)]
    return [fix.model_copy(update={"module": name}) for name in without or found]


@contextmanager
def _undone_if_refused(model: nn.Module) -> Iterator[None]:
    """Put attentions and blocks back as they were where a part of a fix is refused."""
    ours = [module for module in model.modules() if isinstance(module, SelfAttention | Block)]
    states = [{k: copy(v) if isinstance(v, dict | set) else v for k, v in vars(module).items()} for module in ours]
    biases = [(one.bias, one.bias.detach().clone()) for one in ours if isinstance(one, SigmoidAttention)]
    try:
        yield
    except FixError:
        for module, state in zip(ours, states, strict=True):
            vars(module).update(state)
        with torch.no_grad():
            for bias, before in biases:
                bias.copy_(before)
        raise


def _apply(fix: Fix, model: nn.Module) -> Applied:
    modules = {own_name(name): module for name, module in model.named_modules()}  # inside its wrappers comes last
    attention = _find(fix, modules)
    if not isinstance(attention, SelfAttention):
        kind = f"{type(attention).__module__}.{type(attention).__qualname__}"
        raise FixError(
            f"{fix.module or 'the model'} is a {kind}; stabmon changes only its own. Write in your model:\n{fix.code}\n"
            f"or, as a change to your code:\n{source_diff(fix, model)}"
        )
    match fix.kind:
        case FixKind.BIAS:
            return _set_bias(fix, _with_bias(fix, attention))
        case FixKind.LEARNABLE_BIAS:
            return _free_bias(fix, _with_bias(fix, attention))
        case FixKind.QK_NORM:
            return _norm_logits(fix, modules, attention)
        case FixKind.POSITION:
            return _place(fix, attention)
        case FixKind.LAYER_SCALE:
            return _scale_branch(fix, *_block(fix, modules, attention), attention)
        case FixKind.HYBRID_NORM:
            return _norm_branch(fix, *_block(fix, modules, attention), attention)
        case _:
            return _norm_before(*_block(fix, modules, attention))


def _with_bias(fix: Fix, attention: SelfAttention) -> SigmoidAttention:
    if not isinstance(attention, SigmoidAttention):
        raise FixError(f"{fix.module} is a {type(attention).__name__}, which has no bias to set; take another fix")
    return attention


def _set_bias(fix: Fix, attention: SigmoidAttention) -> Applied:
    value = _value(fix)
    moved = value - attention.bias.detach().float().mean().item()
    with torch.no_grad():
        attention.bias.fill_(value)
    changed = f"the bias moved by {moved:+.3g}, so weights that are not saturated are {_times(moved)}"
    return Applied(
        module=fix.module, changed=f"{changed}; what was learnt with the old bias gets that much less or more"
    )


def _times(moved: float) -> str:
    return f"multiplied by {math.exp(max(-700.0, min(moved, 700.0))):.3g}"


def _free_bias(fix: Fix, attention: SigmoidAttention) -> Applied:
    if isinstance(attention.bias, nn.Parameter):
        raise FixError(f"{fix.module}.bias learns already; take another fix of the finding")
    start = attention.bias.detach().clone()
    if fix.value is not None:
        start.fill_(_value(fix))
    moved = (start - attention.bias).float().mean().item()
    del attention.bias
    attention.bias = nn.Parameter(start)
    what = "its value is the same" if moved == 0 else f"it starts {moved:+.3g} from where it was"
    return _with_new(fix.module, f"the bias of {fix.module} learns from now on, one number a head; {what}", "bias")


def _norm_logits(fix: Fix, modules: Mapping[str, nn.Module], attention: SelfAttention) -> Applied:
    _refuse_second(attention, "key_norm", fix.module)
    block = next((block for _, block in _blocks(modules, attention)), None)
    gain, why = (_value(fix), "as asked") if fix.value is not None else norm_gain(attention, block)
    for side in ("query_norm", "key_norm"):
        norm = RMSNorm(attention.head_dim)
        nn.init.constant_(norm.weight, gain)
        _put(norm, attention, side, fix.module, attention)
    changed = f"every query and key now has the same length, root mean square {gain:.3g} a channel ({why})"
    return _with_new(
        fix.module, f"{changed}; differences in length between tokens are lost", "query_norm.weight", "key_norm.weight"
    )


def _scale_branch(fix: Fix, name: str, block: Block, attention: SelfAttention) -> Applied:
    gain = _value(fix)
    _put(LayerScale(attention.out.out_features, gain), block, "attention_scale", name, attention)
    changed = f"the attention branch of {name} is multiplied by {gain:.3g}, which then learns"
    return _with_new(name, f"{changed}; a trained model loses that much of the branch", "attention_scale.gain")


def _norm_branch(fix: Fix, name: str, block: Block, attention: SelfAttention) -> Applied:
    _put(RMSNorm(attention.out.out_features), block, "attention_post_norm", name, attention)
    changed = f"the attention branch of {name} now has root mean square 1 at every token before it is added"
    return _with_new(name, f"{changed}, whatever size it had learnt", "attention_post_norm.weight")


def _norm_before(name: str, block: Block) -> Applied:
    if block.norm == "pre":
        raise FixError(f"{name} norms before its branches already; take another fix of the finding")
    block.norm = "pre"
    changed = f"{name} is x + f(norm(x)) now; its stream is no longer normed"
    return Applied(module=name, changed=f"{changed}, which every weight behind it was learnt for")


def _place(fix: Fix, attention: SelfAttention) -> Applied:
    if fix.setting not in _POSITIONS or _POSITIONS[fix.setting] == attention.position:
        raise FixError(
            f"{fix.module} has position {attention.position!r}; stabmon sets one of {', '.join(_POSITIONS)} in place, "
            f"other than that, got {fix.setting!r}. Write in your model:\n{fix.code}"
        )
    before, attention.position = attention.position, _POSITIONS[fix.setting]  # type: ignore[assignment]
    slopes = alibi_slopes(attention.heads).to(attention.out.weight.device) if fix.setting == "alibi" else None
    attention.alibi_slopes = slopes
    changed = f"{fix.module} has position {fix.setting!r} in place of {before!r}"
    if fix.value is not None and isinstance(attention, SigmoidAttention):
        changed = f"{changed}; {_set_bias(fix, attention).changed}"
    return Applied(module=fix.module, changed=f"{changed}; its queries and keys were learnt for the old one")


def _with_new(module: str, changed: str, *parameters: str) -> Applied:
    return Applied(module=module, changed=changed, parameters=tuple(join(module, one) for one in parameters))


def _announce(applied: Applied) -> None:
    if applied.parameters:
        _log.warning(
            "%s: new parameters that an optimizer made before this does not train; make it afterwards, or call "
            'optimizer.add_param_group({"params": [model.get_parameter(name) for name in %s]})',
            applied.module,
            list(applied.parameters),
        )


def _find(fix: Fix, modules: Mapping[str, nn.Module]) -> nn.Module:
    if fix.module in modules:
        return modules[fix.module]
    attentions = [name for name, module in modules.items() if isinstance(module, SelfAttention)]
    near = difflib.get_close_matches(fix.module, attentions or list(modules), n=1, cutoff=0.0)
    known = ", ".join(sorted(attentions, key=natural_key)) or "none"
    raise FixError(
        f"the model has no module {fix.module!r}; the nearest name is {near[0]!r}, "
        f"its attentions are: {known}. Apply the fix to the model in which it was found"
    )


def _block(fix: Fix, modules: Mapping[str, nn.Module], attention: SelfAttention) -> tuple[str, Block]:
    """Return the Block whose attention branch is ``attention``, and its name."""
    for name, block in _blocks(modules, attention):
        return name, block
    raise FixError(
        f"{fix.module} does not stand in a stabmon.nn.Block, so stabmon cannot tell where its output is added. "
        f"Write in your model:\n{fix.code}"
    )


def _blocks(modules: Mapping[str, nn.Module], attention: SelfAttention) -> list[tuple[str, Block]]:
    return [
        (name, block)
        for name, block in modules.items()
        if isinstance(block, Block) and any(part is attention for part in block.attention.modules())
    ]


def _refuse_second(parent: nn.Module, place: str, name: str) -> None:
    there = getattr(parent, place)
    if not isinstance(there, nn.Identity):
        path = join(name, place)
        raise FixError(
            f"{path} is there already: {there}. A second one is not stacked on it; "
            f"set {path} to torch.nn.Identity() first, or take another fix of the finding"
        )


def _put(new: nn.Module, parent: nn.Module, place: str, name: str, like: SelfAttention) -> None:
    """Set ``parent.place``, an identity until now, to ``new`` with the device and type of ``like`` and its own mode."""
    _refuse_second(parent, place, name)
    setattr(parent, place, new.to(like.out.weight).train(parent.training))


def _words(fix: Fix) -> str:
    return f"the {fix.kind.replace('_', ' ')}"


def _value(fix: Fix) -> float:
    if fix.value is None or not math.isfinite(fix.value):
        raise FixError(f"a {fix.kind.value} fix needs a finite value, got {fix.value}; set Fix.value")
    return fix.value
