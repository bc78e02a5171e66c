"""Changes as a unified diff of the file in which the user wrote the model, found through its modules' classes."""

import difflib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import libcst as cst
from torch import nn

from stabmon.fixes import registry
from stabmon.fixes.call_edit import calls, with_argument
from stabmon.fixes.change import Change
from stabmon.names import own_name

_OURS = "stabmon."


def diff_of(changes: Sequence[Change], model: nn.Module) -> str:
    """Return ``changes`` to the source of ``model``, each as ``Change.diff`` where its place cannot be found there.

    It is found where a class of the model, or another function of its file, calls ``SigmoidAttention``, ``Block`` or
    ``sigmoid_attention`` just once: the argument is added there or replaced. A fix of one layer then changes all layers
    that this call makes. Together they make one diff for each file. Nothing is written.
    """
    after: dict[Path, str] = {}
    general = [change.diff for change in changes if not _edit(change, model, after)]
    own = [_unified(file, file.read_text(encoding="utf-8"), text) for file, text in after.items()]
    return "\n".join(dict.fromkeys(found for found in (*own, *general) if found))


def _edit(change: Change, model: nn.Module, texts: dict[Path, str]) -> bool:
    """Apply ``change`` to ``texts``, files as edited so far, and return whether its place was found."""
    for cls in _classes(change, model):
        file = inspect.getsourcefile(cls)
        if file is None or not Path(file).is_file():
            continue
        try:
            before = cst.parse_module(texts.get(Path(file)) or Path(file).read_text(encoding="utf-8"))
        except cst.ParserSyntaxError:  # it is newer than libcst
            continue
        after = _edited(change, before)
        if after is not None:
            texts[Path(file)] = after.code
            return True
    return False


def _classes(change: Change, model: nn.Module) -> Iterator[type[nn.Module]]:
    """Yield the user's own classes from the module that ``change`` names up to the model."""
    modules = {own_name(name): module for name, module in model.named_modules()}
    parts = change.module.split(".") if change.module else []
    for depth in range(len(parts), -1, -1):
        module = modules.get(".".join(parts[:depth]))
        if module is not None and not f"{type(module).__module__}.".startswith((_OURS, "torch.")):
            yield type(module)


def _edited(change: Change, tree: cst.Module) -> cst.Module | None:
    """Return ``tree`` with the change made to the one call that takes it, or None where there is not one."""
    for name, wanted in registry.find(change.kind).arguments(change).items():
        found = calls(tree, name)
        if len(found) == 1:
            new = found[0]
            for argument, value in wanted.items():
                new = with_argument(new, argument, value)
            return cst.ensure_type(tree.deep_replace(found[0], new), cst.Module)
    return None


def _unified(file: Path, before: str, after: str) -> str:
    here = Path.cwd()
    path = file.relative_to(here).as_posix() if file.is_relative_to(here) else file.name
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", n=1))
