"""Application of fixes to attention of Transformers and to converted attention."""

from contextlib import ExitStack

from torch import nn

from stabmon.conversion import additions, edit
from stabmon.errors import FixError, ModelError
from stabmon.fixes.change import Applied, Change
from stabmon.fixes.code import join
from stabmon.formatting import number


def apply(change: Change, model: nn.Module, attention: nn.Module, undo: ExitStack) -> Applied:
    """Apply ``change`` to ``attention`` of ``model``; ``undo`` takes it back.

    Raises:
        FixError: it has what the fix adds, it does not say what the fix needs, or the value is missing.
    """
    path = next(name for name, module in model.named_modules() if module is attention)
    there = set(additions.names(attention))
    try:
        changed = _CHANGES[change.kind](change, model, path, undo)
    except ModelError as reason:
        raise FixError(f"{change.module} stays as it is: {reason}. Write in your model:\n{change.code}") from reason
    new = [name for name in additions.names(attention) if name not in there]
    names = [name for name, _ in attention.named_parameters() if name.partition(".")[0] in new]
    return Applied(module=change.module, changed=changed, parameters=tuple(join(change.module, name) for name in names))


def _bias(change: Change, model: nn.Module, path: str, undo: ExitStack) -> str:
    before = edit.present_bias(model.get_submodule(path))
    edit.set_bias(model, path, change.needed, undo)
    return f"the bias of {change.module} is {number(change.needed)} and was {number(before)}"


def _learnable_bias(change: Change, model: nn.Module, path: str, undo: ExitStack) -> str:
    edit.learn_bias(model, path, None if change.value is None else change.needed, undo)
    start = edit.present_bias(model.get_submodule(path))
    return f"the bias of {change.module} learns from now on, one number a head, from {number(start)}"


def _qk_norm(change: Change, model: nn.Module, path: str, undo: ExitStack) -> str:
    gain = 1.0 if change.value is None else change.needed
    edit.add_qk_norm(model, path, gain, undo)
    return f"every query and key of {change.module} has the root mean square {number(gain)} a channel"


def _layer_scale(change: Change, model: nn.Module, path: str, undo: ExitStack) -> str:
    edit.add_layer_scale(model, path, change.needed, undo)
    return f"the attention branch of {change.module} is multiplied by {number(change.needed)}, which then learns"


_CHANGES = {"bias": _bias, "learnable_bias": _learnable_bias, "qk_norm": _qk_norm, "layer_scale": _layer_scale}
