"""The attention of a model that a fix changes, with the block around it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import nn

from stabmon.errors import FixError
from stabmon.fixes.change import Applied, Change
from stabmon.fixes.code import join
from stabmon.nn import Block, SigmoidAttention
from stabmon.nn.self_attention import SelfAttention


class Target(NamedTuple):
    """An attention of stabmon's in its model; each method raises ``FixError`` where the change cannot be made."""

    change: Change
    attention: SelfAttention
    modules: Mapping[str, nn.Module]
    """The model's modules, by their names without wrappers."""

    def value(self) -> float:
        """Return the value of the change, a finite number."""
        return self.change.needed

    def sigmoid(self) -> SigmoidAttention:
        """Return the attention, which has a bias."""
        if not isinstance(self.attention, SigmoidAttention):
            kind = type(self.attention).__name__
            raise FixError(f"{self.change.module} is a {kind}, which has no bias to set; take another fix")
        return self.attention

    def blocks(self) -> Iterator[tuple[str, Block]]:
        """Yield each Block whose attention branch is the attention, with its name."""
        for name, block in self.modules.items():
            if isinstance(block, Block) and any(part is self.attention for part in block.attention.modules()):
                yield name, block

    def block(self) -> tuple[str, Block]:
        """Return the name of the Block around the attention, and the Block."""
        for name, block in self.blocks():
            return name, block
        raise FixError(
            f"{self.change.module} is not in a stabmon.nn.Block, so stabmon cannot know where its output is "
            f"added. Write in your model:\n{self.change.code}"
        )

    def put(self, new: nn.Module, parent: nn.Module, child: str, name: str) -> None:
        """Set ``parent.child``, an identity until now, to ``new`` with the attention's device and type.

        ``name`` is that of the parent, whose mode (training or evaluation) the new module takes.
        """
        self.refuse_second(parent, child, name)
        setattr(parent, child, new.to(self.attention.out.weight).train(parent.training))

    @staticmethod
    def refuse_second(parent: nn.Module, child: str, name: str) -> None:
        """Raise a ``FixError`` where ``parent.child`` is more than an identity."""
        there = getattr(parent, child)
        if not isinstance(there, nn.Identity):
            path = join(name, child)
            raise FixError(
                f"{path} is there already: {there}. A second one is not stacked on it; "
                f"set {path} to torch.nn.Identity() first, or take another fix of the finding"
            )

    def applied(self, changed: str, *parameters: str, module: str | None = None) -> Applied:
        """Return the outcome: ``changed`` as a sentence, and new parameters of ``module`` (None: the attention)."""
        name = self.change.module if module is None else module
        return Applied(module=name, changed=changed, parameters=tuple(join(name, one) for one in parameters))
