"""A fix as data: one or several changes to a model or to its training. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationInfo, field_validator, model_validator

from stabmon.errors import FixError
from stabmon.fixes import registry
from stabmon.fixes.change import Applied, Change
from stabmon.formatting import number

if TYPE_CHECKING:
    from torch import nn


class Fix(Change):
    """A change that is expected to fix a finding, or several that belong together."""

    made_of: tuple[Fix, ...] = ()
    """The changes that it is made of where they are several, that of ``kind`` first; ``code`` and ``diff`` hold all."""

    @model_validator(mode="before")
    @classmethod
    def _titled(cls, given: Any) -> Any:
        """Take the title of the kind where none is given."""
        kind = given.get("kind") if isinstance(given, dict) else None
        if not isinstance(kind, str) or "title" in given or not registry.is_registered(kind):
            return given
        return given | {"title": registry.find(kind).title}

    @field_validator("kind")
    @classmethod
    def _registered(cls, kind: str, info: ValidationInfo) -> str:
        """Refuse an unknown kind; in stored JSON it stays, for a run may come from a process that has more kinds."""
        if info.mode != "json":
            try:
                registry.find(kind)
            except FixError as error:
                raise ValueError(str(error)) from None
        return kind

    @property
    def parts(self) -> tuple[Fix, ...]:
        """Each change by itself."""
        return self.made_of or (self,)

    @property
    def of_training(self) -> bool:
        """True if its kind changes the training loop and not the model."""
        return registry.find(self.kind).of_training

    def __str__(self) -> str:
        if self.made_of:
            return ", with ".join(map(str, self.made_of))
        value = "" if self.value is None else f" {self._sign()} {number(self.value, 4)}"
        setting = "" if self.setting is None else f" = {self.setting}"
        return f"{self.title or self.kind}{value}{setting}{self._place()}"

    def _sign(self) -> str:
        return "x" if registry.is_registered(self.kind) and registry.find(self.kind).is_factor else "="

    def _place(self) -> str:
        if self.module:
            return f" in {self.module}"
        everywhere = registry.is_registered(self.kind) and registry.find(self.kind).for_every_layer
        return " in every layer" if everywhere else ""

    def apply(self, model: nn.Module) -> Applied:
        """Carry the fix out on ``model``, in place, and return what that changed.

        A fix of several changes is applied as a whole or, where one of them is refused, not at all.

        Raises:
            FixError: this model does not let stabmon change it; the message holds the code to write.
        """
        from stabmon.fixes.application import apply

        return apply(self.parts, self.code, model)
