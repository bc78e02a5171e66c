"""The interface of a fix kind. No torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes.change import Applied, Change, Effect, Safety
from stabmon.fixes.training_loop import Loop
from stabmon.formatting import words
from stabmon.records import Attention

if TYPE_CHECKING:
    from torch import nn

    from stabmon.fixes.target import Target


class Choice(NamedTuple):
    """The value and the setting of a fix."""

    value: float | None = None
    setting: str | None = None


class LayerFacts(NamedTuple):
    """One layer of a model before training."""

    depth: int
    """Number of attentions of the model."""
    measured: Mapping[str, float]
    """Numbers of one forward pass, by metric."""


class FixKind(ABC):
    """One kind of fix: everything stabmon knows of it, in one file of ``stabmon/fixes/kinds``.

    A subclass joins the registry with ``@stabmon.fixes.registry.register``.
    """

    name: ClassVar[str]
    """Its name in records, in ``stabmon try --fix NAME`` and of its constructor ``stabmon.fixes.NAME_fix``."""
    title: ClassVar[str]
    """Its name in words; where a class gives none, the name without underscores."""
    family: ClassVar[str]
    """Name of the setting that it changes, which several kinds may share; where a class gives none, its name."""
    keys: ClassVar[tuple[str, ...]]
    """Keys of a run's configuration; runs that differ in no others differ in this setting alone."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Metrics, of the layer or of the run, that the expected effect is read from."""
    of_training: ClassVar[bool] = False
    """True if it changes the training loop and not the model."""
    of_data: ClassVar[bool] = False
    """True if it changes the data, so that a run with it cannot be compared on the same batches."""
    while_training: ClassVar[bool] = True
    """True if a model that is being trained can be changed so; False where the result is another model."""
    bounds_updates: ClassVar[bool] = False
    """True if it is enough at a learning rate whose steps outgrow the weights; other fixes then bring QK norm along."""
    is_factor: ClassVar[bool] = False
    """True if its value multiplies the setting; it is then shown as "x 0.3" and not as "= 0.3"."""
    for_every_layer: ClassVar[bool] = False
    """True if a fix without a module is meant for every layer."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            cls.title = vars(cls).get("title", words(cls.name))
            cls.family = vars(cls).get("family", cls.name)

    @abstractmethod
    def safety(self, attention: Attention | None, setting: str | None) -> Safety:
        """Return when a fix of this kind can be applied."""

    @abstractmethod
    def code(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Return the lines that a user would write, on a model and an optimizer that exist already.

        For stabmon's own modules they change ``model`` (the model without wrappers such as DDP) in place and can be
        pasted as they are; for any other attention they are lines of the user's own module.

        Raises:
            ValueError: the kind needs an attention, a value or a setting and none was given.
        """

    @abstractmethod
    def diff(self, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
        """Return the change to the user's code: removed and added lines under a line that says where.

        stabmon has not read that code: names stand for the user's own (``norm``, ``loss_of``).

        Raises:
            ValueError: the kind needs an attention, a value or a setting and none was given.
        """

    def expected(self, change: Change, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
        """Return the expected effect where the metrics have the finite values ``known``; None where it is unknown."""
        return None

    @abstractmethod
    def settings(self, change: Change, config: RunConfig) -> dict[str, Any]:
        """Return what changes in a run's configuration, by dotted key.

        Raises:
            FixError: the configuration has it already, or the change is not one that a configuration takes.
        """

    def arguments(self, change: Change) -> dict[str, dict[str, str]]:
        """Return the calls of the user's source that may be changed, by name, and the arguments they are to have."""
        return {}

    @abstractmethod
    def default(self, config: RunConfig, facts: LayerFacts, asked: float | None) -> Choice:
        """Return the value and setting that ``stabmon try --fix NAME`` takes; ``asked`` is the user's value, or None.

        Raises:
            FixError: the run ``config`` can have no fix of this kind.
        """

    def change_loop(self, change: Change, loop: Loop) -> Loop:
        """Return a plain training loop with the change.

        Raises:
            FixError: it is made elsewhere.
        """
        raise FixError(f"the {self.title} is decided inside step, where stabmon cannot change it:\n{change.diff}")

    def modules(self, change: Change, attentions: Mapping[str, "nn.Module"]) -> list[str]:
        """Return the paths of the modules to change, of a model with these ``attentions`` that stabmon changes."""
        return [change.module]

    def apply(self, change: Change, target: "Target") -> Applied:
        """Change ``target`` in place; torch is imported here and not with the module.

        Raises:
            FixError: it is not in the model, or there already.
        """
        raise self.not_in_model(change.code)

    @final
    def not_in_model(self, code: str) -> FixError:
        """Return the error that answers with ``code`` instead of changing a model."""
        return FixError(f"the {self.title} is not in the model; change it where the training is written:\n{code}")

    @final
    def number(self, value: float | None) -> str:
        """Return ``value`` as code.

        Raises:
            ValueError: it is None.
        """
        if value is None:
            raise ValueError(f"a {self.name} fix needs a value, got none")
        return f"{value:.6g}"

    @final
    def named(self, setting: str | None) -> str:
        """Return ``setting``.

        Raises:
            ValueError: it is None.
        """
        if setting is None:
            raise ValueError(f"a {self.name} fix needs a setting, got none")
        return setting

    @final
    def refuse_present(self, there: object, without: object) -> None:
        """Raise a ``FixError`` unless a configuration's value ``there`` is ``without`` the fix."""
        if there != without:
            raise FixError(f"the configuration has {self.title} already ({there}); take another fix of the finding")

    @final
    def other(self, change: Change, there: str) -> str:
        """Return the change's setting.

        Raises:
            FixError: it is missing, or the present one.
        """
        if change.setting is None or change.setting == there:
            raise FixError(
                f"a {self.name} fix needs a setting other than the present {there!r}, got {change.setting!r}"
            )
        return change.setting


class TrainingKind(FixKind):
    """A kind that changes the training loop: the user makes it, or a run's configuration."""

    of_training = True

    def safety(self, attention: Attention | None, setting: str | None) -> Safety:
        """Return that it is made by hand."""
        return Safety.BY_HAND
