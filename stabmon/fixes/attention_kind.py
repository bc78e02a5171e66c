"""Kinds of fix that change an attention or the block around it, and the text of such changes. No torch."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from stabmon.fixes.change import Applied, Change, Safety
from stabmon.fixes.code import fetch, hunk, join
from stabmon.fixes.kind import FixKind
from stabmon.records import Attention

if TYPE_CHECKING:
    from stabmon.fixes.target import Target


class AttentionKind(FixKind):
    """A kind that changes an attention: in place where it is stabmon's own, else by lines of the user's module."""

    usual_safety: ClassVar[Safety] = Safety.BEFORE_TRAINING
    """Safety of a fix of a module that stabmon changes."""
    edit: ClassVar[str | None] = None
    """The function of ``stabmon.conversion.edit`` that changes attention of Transformers and converted attention."""

    def is_ours(self, attention: Attention) -> bool:
        """Return whether the place that it changes is in a module of stabmon's."""
        return attention.kind == "sigmoid"

    @abstractmethod
    def own_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Return ``code`` for an attention that is stabmon's own."""

    @abstractmethod
    def foreign_code(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Return ``code`` for any other attention."""

    @abstractmethod
    def own_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Return ``diff`` for an attention that is stabmon's own."""

    @abstractmethod
    def foreign_diff(self, attention: Attention, value: float | None, setting: str | None) -> str:
        """Return ``diff`` for any other attention."""

    @abstractmethod
    def apply(self, change: Change, target: "Target") -> Applied:
        """Change ``target`` in place."""

    def safety(self, attention: Attention | None, setting: str | None) -> Safety:
        """Return the usual safety for a module that stabmon changes; any other is changed by hand."""
        changed = attention is not None and (self.is_ours(attention) or self.edits(attention))
        return self.usual_safety if changed else Safety.BY_HAND

    def edits(self, attention: Attention) -> bool:
        """Return whether ``edit`` changes the attention."""
        return attention.editable and self.edit is not None

    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Return the lines that a user would write."""
        there = self._required(attention)
        if self.edits(there):
            return "\n".join(self._edit(there, value))
        return (self.own_code if self.is_ours(there) else self.foreign_code)(there, value, setting)

    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Return the change to the user's code."""
        there = self._required(attention)
        if self.edits(there):
            return hunk("where the model is built", [], self._edit(there, value))
        return (self.own_diff if self.is_ours(there) else self.foreign_diff)(there, value, setting)

    def _edit(self, attention: Attention, value: float | None) -> list[str]:
        given = "" if value is None else f", {self.number(value)}"
        return ["from stabmon.conversion import edit", f'edit.{self.edit}(model, "{attention.module}"{given})']

    def _required(self, attention: Attention | None) -> Attention:
        if attention is None:
            raise ValueError(f"a {self.name} fix changes an attention, got none; pass the attention's record")
        return attention


class BlockKind(AttentionKind):
    """A kind that changes the residual block around an attention."""

    def is_ours(self, attention: Attention) -> bool:
        """Return whether the attention is in a ``Block`` of stabmon's."""
        return in_block(attention)


def in_block(attention: Attention) -> bool:
    """Return whether an attention, sigmoid or softmax, is the branch of a ``Block`` of stabmon's."""
    return attention.kind != "functional" and attention.branch == join(attention.block, "attention_scale")


def width_of(attention: Attention) -> int:
    """Return the number of channels of the residual stream around an attention."""
    return attention.heads * attention.head_dim


def module_line(attention: Attention) -> str:
    """Return the line of code that takes the attention from its model."""
    return f"attention = {fetch(attention.module)}"


def block_line(attention: Attention) -> str:
    """Return the line of code that takes the attention's block from its model."""
    return f"block = {fetch(attention.block)}"


def built(attention: Attention, old: str, new: str) -> str:
    """Return the diff of the arguments with which a ``SigmoidAttention`` is built."""
    call = f"SigmoidAttention({width_of(attention)}, {attention.heads}, {{}}...)"
    where = f"where {attention.module or 'the attention'} is built"
    return hunk(where, [call.format(f"{old}, " if old else "")], [call.format(f"{new}, ")])


def block_built(attention: Attention, old: str, new: str) -> str:
    """Return the diff of the arguments with which a ``Block`` is built."""
    lines = [f"Block(width, attention, {f'{argument}, ' if argument else ''}...)" for argument in (old, new)]
    return hunk(f"where {attention.block or 'the block'} is built", lines[:1], lines[1:])


def block_branch(child: str) -> str:
    """Return the line of a user's block that passes the attention's output through ``self.child``."""
    return f"x = x + self.{child}(self.attention(self.norm(x)))"


def branch_diff(attention: Attention, child: str, made: str) -> str:
    """Return the diff of a user's block that makes ``child`` and passes the attention's output through it."""
    block, old = attention.block or "the block", "x = x + self.attention(self.norm(x))"
    init = hunk(f"__init__ of {block}", [], [f"self.{child} = {made}"])
    return f"{init}\n{hunk(f'forward of {block}', [old], [block_branch(child)])}"
