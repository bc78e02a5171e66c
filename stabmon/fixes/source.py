"""Changes as a unified diff of the file in which the user wrote the model, found through its modules' classes."""

import ast
import difflib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from stabmon.fixes import registry
from stabmon.fixes.change import Change
from stabmon.names import own_name

_OURS = "stabmon."


class _Edit(NamedTuple):
    """Replace the bytes from ``start`` to ``stop`` of the file by ``text``."""

    start: int
    stop: int
    text: str


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
        before = texts.get(Path(file)) or Path(file).read_text(encoding="utf-8")
        edits = _edits(change, ast.parse(before), before.encode())
        if edits:
            texts[Path(file)] = _edited(before.encode(), edits).decode()
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


def _edits(change: Change, tree: ast.Module, source: bytes) -> list[_Edit]:
    for name, wanted in registry.find(change.kind).arguments(change).items():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node) == name]
        if len(calls) == 1:
            offsets = _Offsets(source)
            return [offsets.argument(calls[0], argument, value) for argument, value in wanted.items()]
    return []


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


class _Offsets:
    """Turns the lines and columns of a syntax tree, which count bytes, into offsets in the file."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def argument(self, call: ast.Call, name: str, value: str) -> _Edit:
        """Return the edit that gives ``call`` the argument ``name=value``."""
        for keyword in call.keywords:
            if keyword.arg == name:
                return _Edit(*self._span(keyword.value), value)
        last = max(
            (self._span(node)[1] for node in (*call.args, *(word.value for word in call.keywords))), default=None
        )
        if last is None:
            end = self._span(call)[1] - 1
            return _Edit(end, end, f"{name}={value}")
        return _Edit(last, last, f", {name}={value}")

    def _span(self, node: ast.expr) -> tuple[int, int]:
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[end_line - 1] + end_column


def _edited(source: bytes, edits: list[_Edit]) -> bytes:
    """Return ``source`` with ``edits``, made from its end so that offsets before them hold."""
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        source = source[: edit.start] + edit.text.encode() + source[edit.stop :]
    return source


def _unified(file: Path, before: str, after: str) -> str:
    here = Path.cwd()
    path = file.relative_to(here).as_posix() if file.is_relative_to(here) else file.name
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", n=1))
