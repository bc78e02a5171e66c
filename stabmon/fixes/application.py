"""Carrying out changes on a model: in place, as a whole or not at all, or the code to write where that cannot be."""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy

import torch
from torch import nn

from stabmon.conversion import edit
from stabmon.errors import ArgumentError, FixError
from stabmon.fixes import edited, registry
from stabmon.fixes.change import Applied, Change
from stabmon.fixes.passed_bias import passed_bias
from stabmon.fixes.source import diff_of
from stabmon.fixes.target import Target
from stabmon.names import natural_key, own_name
from stabmon.nn import Block, SigmoidAttention
from stabmon.nn.self_attention import SelfAttention

_log = logging.getLogger(__name__)


def apply(parts: Sequence[Change], code: str, model: nn.Module) -> Applied:
    """Carry ``parts`` out on ``model``, in place, and return what changed; where one is refused, nothing does.

    New modules take the device and type of the attention's weights. New parameters must be learnt too: an optimizer
    that exists already does not know them, so apply such a fix before the optimizer (and DDP or FSDP) is made, or give
    them to ``optimizer.add_param_group``; a logged warning names them. Wrappers (``torch.compile``, DDP, FSDP,
    activation checkpointing) are looked through by name.

    Args:
        parts: at least one change.
        code: what a user would write for all of them.
        model: the model in which the fix was found.

    Raises:
        FixError: a change is not one of the model's, its module is missing or not stabmon's, or what it adds is there
            already.
        ArgumentError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"a fix is applied to the model that it was found in, got {type(model).__name__}")
    kinds = [registry.find(part.kind) for part in parts]
    by_hand = next((kind for kind in kinds if kind.of_training), None)
    if by_hand is not None:
        raise by_hand.not_in_model(code)
    with _undone_if_refused(model) as undo:
        applied = [_apply(one, model, undo) for part in parts for one in _each(part, model)]
    for one in applied:
        _announce(one)
    changed = "; ".join(one.changed for one in applied)
    parameters = tuple(name for one in applied for name in one.parameters)
    return applied[0].model_copy(update={"changed": changed, "parameters": parameters})


def _each(part: Change, model: nn.Module) -> list[Change]:
    """Return ``part`` for each attention that it is meant for."""
    names = registry.find(part.kind).modules(part, _attentions(_modules(model)))
    return [part.model_copy(update={"module": name}) for name in names]


@contextmanager
def _undone_if_refused(model: nn.Module) -> Iterator[ExitStack]:
    """Put attentions and blocks back as they were where a part of a fix is refused."""
    ours = [module for module in model.modules() if isinstance(module, SelfAttention | Block)]
    states = [{k: copy(v) if isinstance(v, dict | set) else v for k, v in vars(module).items()} for module in ours]
    biases = [(one.bias, one.bias.detach().clone()) for one in ours if isinstance(one, SigmoidAttention)]
    undo = ExitStack()
    try:
        yield undo
    except FixError:
        undo.close()
        for module, state in zip(ours, states, strict=True):
            vars(module).update(state)
        with torch.no_grad():
            for bias, before in biases:
                bias.copy_(before)
        raise


def _apply(change: Change, model: nn.Module, undo: ExitStack) -> Applied:
    modules = _modules(model)
    attention = _find(change, modules)
    if edit.is_editable(attention) and getattr(registry.find(change.kind), "edit", None) is not None:
        return edited.apply(change, model, attention, undo)
    if not isinstance(attention, SelfAttention):
        bias = passed_bias(attention) if change.kind in ("bias", "learnable_bias") else None
        if bias is not None:
            return bias.apply(change, undo)
        kind = f"{type(attention).__module__}.{type(attention).__qualname__}"
        raise FixError(
            f"{change.module or 'the model'} is a {kind}; stabmon cannot change it in place. Write in your model:\n"
            f"{change.code}\nor, as a change to your code:\n{diff_of([change], model)}"
        )
    return registry.find(change.kind).apply(change, Target(change, attention, modules))


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules by their names without wrappers; of several with one name, the innermost."""
    return {own_name(name): module for name, module in model.named_modules()}


def _attentions(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return those of ``modules`` that a fix can change."""
    return {name: one for name, one in modules.items() if isinstance(one, SelfAttention) or edit.is_editable(one)}


def _announce(applied: Applied) -> None:
    if applied.parameters:
        _log.warning(
            "%s: new parameters that an optimizer made before this does not train; make it afterwards, or call "
            'optimizer.add_param_group({"params": [model.get_parameter(name) for name in %s]})',
            applied.module,
            list(applied.parameters),
        )


def _find(change: Change, modules: Mapping[str, nn.Module]) -> nn.Module:
    if change.module in modules:
        return modules[change.module]
    attentions = list(_attentions(modules))
    near = difflib.get_close_matches(change.module, attentions or list(modules), n=1, cutoff=0.0)
    known = ", ".join(sorted(attentions, key=natural_key)) or "none"
    raise FixError(
        f"the model has no module {change.module!r}; the nearest name is {near[0]!r}, "
        f"its attentions are: {known}. Apply the fix to the model in which it was found"
    )
