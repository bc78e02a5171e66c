"""The report of a conversion, which can undo it."""

from contextlib import ExitStack
from typing import NamedTuple


class Converted(NamedTuple):
    """One attention that now is sigmoid attention.

    module: its path in the model.
    kind: the kind of model whose way was taken, such as "transformers".
    bias: "learnable, from -4.16", or the number.
    added: names of new submodules and parameters within the module.
    """

    module: str
    kind: str
    bias: str
    added: tuple[str, ...] = ()


class Kept(NamedTuple):
    """One attention that is as it was, with the reason."""

    module: str
    reason: str


class ConversionReport:
    """Account of what ``stabmon.convert`` changed and what it could not; ``print`` shows it.

    Attributes:
        converted: the attentions that now are sigmoid attention.
        kept: the attentions that are as they were, each with the reason.
    """

    def __init__(self, converted: tuple[Converted, ...], kept: tuple[Kept, ...], changes: ExitStack) -> None:
        self.converted, self.kept, self._changes = converted, kept, changes

    def undo(self) -> None:
        """Make the model what it was; weights that were trained since stay, new parameters go. Twice does nothing."""
        self._changes.close()

    def __str__(self) -> str:
        lines = [f"{len(self.converted)} attentions converted, {len(self.kept)} kept"]
        for done in self.converted:
            added = f", with {', '.join(done.added)}" if done.added else ""
            lines.append(f"  {done.module}: sigmoid attention, bias {done.bias}{added} ({done.kind})")
        lines += [f"  {kept.module}: kept, because {kept.reason}" for kept in self.kept]
        return "\n".join(lines)

    __repr__ = __str__
