"""Which element of the device buffer holds which raw number, fixed when a monitor attaches.

The buffer is one float32 vector in three sections: sums, which start at 0; maxima, which start at -inf; and numbers
that are set (a bias, a learning rate, a gradient norm, a logged loss), which start as ``MISSING``. Within a section the
same number of all attentions lies together, so that one operation reaches every layer.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from stabmon.records import Attention
from stabmon.series import MISSING, Floats, Layout
from stabmon.stats.gather import Gather, Index
from stabmon.stats.slots import COUNTS, SUMS, Slots

_PER_HEAD = (
    "attention_norm",
    "output_rms",
    "row_mass",
    "logit_max",
    "logit_mean",
    "logit_std",
    "saturated_fraction",
    "dead_fraction",
    "query_norm",
    "key_norm",
)
_PER_LAYER = ("keys", "residual_in", "residual_out", "branch_ratio", "block_growth", "gradient_norm")


class Plan:
    """The buffer of a monitor and the layout of its rows.

    Args:
        attentions: the model's, in natural order.
        logged: metrics that the user logs.
        optimizer: whether a learning rate can be read.
        at_start: whether the softmax twin and the best bias are measured, and gradients are not.
    """

    def __init__(
        self,
        attentions: Sequence[Attention],
        logged: Sequence[str] = (),
        *,
        optimizer: bool = False,
        at_start: bool = False,
    ) -> None:
        self.attentions = tuple(attentions)
        self._initial: list[Floats] = []
        self._width = 0
        self.slots = self._sites()
        self.rest = self._set(1)
        self.gradients = slice(self.slots[0].gradient.start, self.rest.stop)
        """Gradient norms: one a block, in the order of their first attentions, and last the rest of the model's."""
        self.learning_rate = self._set(1)
        self.logged = {name: self._set(1) for name in logged}
        self.initial: Floats = np.concatenate(self._initial)
        self.layout = Layout.of(self._wanted(logged, optimizer, at_start))
        self.columns = self._columns()

    @property
    def width(self) -> int:
        """Number of elements of the buffer."""
        return self._width

    @cached_property
    def gather(self) -> Gather:
        """Where the buffer holds what each column of the row is made of."""
        return Gather.of(self.attentions, self.slots)

    @property
    def sums(self) -> slice:
        """The first section: numbers that add."""
        return slice(0, self.slots[0].logit_max.start)

    @property
    def maxima(self) -> slice:
        """The second section."""
        return slice(self.slots[0].logit_max.start, self.slots[0].bias.start)

    def block(self, name: str) -> tuple[slice, slice, slice]:
        """Return the slots of the block ``name``: stream in, stream out, gradient."""
        slots = next(
            slots for attention, slots in zip(self.attentions, self.slots, strict=True) if attention.block == name
        )
        return slots.stream_in, slots.stream_out, slots.gradient

    def _sites(self) -> tuple[Slots, ...]:
        """Take the slots of every attention, number by number; those of one block are taken once."""
        heads = [attention.heads for attention in self.attentions]
        blocks = [attention.block for attention in self.attentions]
        one = [1] * len(heads)
        sums = [self._sum(number * len(SUMS)) for number in heads]
        query, key = ([self._sum(number) for number in heads] for _ in range(2))
        counts = [self._sum(len(COUNTS)) for _ in heads]
        branch = [self._sum(2) for _ in heads]
        stream_in, stream_out = ({block: self._sum(2) for block in dict.fromkeys(blocks)} for _ in range(2))
        twin = [self._sum(number) for number in heads]
        logit_max, keys = ([self._take(number, -np.inf) for number in numbers] for numbers in (heads, one))
        bias, best_bias, gain = ([self._set(number) for number in numbers] for numbers in (heads, heads, one))
        gradient = {block: self._set(1) for block in dict.fromkeys(blocks)}
        return tuple(
            Slots(
                heads=number,
                sums=sums[index],
                query_squares=query[index],
                key_squares=key[index],
                counts=counts[index],
                branch=branch[index],
                stream_in=stream_in[block],
                stream_out=stream_out[block],
                twin=twin[index],
                logit_max=logit_max[index],
                keys=keys[index],
                bias=bias[index],
                gain=gain[index],
                gradient=gradient[block],
                best_bias=best_bias[index],
            )
            for index, (number, block) in enumerate(zip(heads, blocks, strict=True))
        )

    def _sum(self, size: int) -> slice:
        return self._take(size, 0.0)

    def _set(self, size: int) -> slice:
        return self._take(size, MISSING)

    def _take(self, size: int, initial: float | np.float32) -> slice:
        start, self._width = self._width, self._width + size
        self._initial.append(np.full(size, initial, dtype=np.float32))
        return slice(start, self._width)

    def _wanted(self, logged: Sequence[str], optimizer: bool, at_start: bool) -> list[tuple[str, str | None, int]]:
        wanted: list[tuple[str, str | None, int]] = []
        for metric in _PER_HEAD:
            wanted += [(metric, attention.layer, attention.heads) for attention in self.attentions]
        sigmoid = [attention for attention in self.attentions if attention.kind != "softmax"]
        wanted += [("bias", attention.layer, attention.heads) for attention in sigmoid]
        if at_start:
            wanted += [("twin_ratio", attention.layer, attention.heads) for attention in self.attentions]
            wanted += [("best_bias", attention.layer, attention.heads) for attention in sigmoid]
        for metric in _PER_LAYER:
            if metric != "gradient_norm" or not at_start:
                wanted += [(metric, attention.layer, 1) for attention in self.attentions]
        wanted += [("layer_scale", attention.layer, 1) for attention in self.attentions if attention.layer_scale]
        wanted += [("total_gradient_norm", None, 1)] if not at_start else []
        wanted += [("learning_rate", None, 1)] if optimizer else []
        return wanted + [(name, None, 1) for name in logged]

    def _columns(self) -> dict[str, Index]:
        found: dict[str, list[int]] = {}
        for column in self.layout.columns:
            found.setdefault(column.metric, []).extend(range(column.start, column.start + column.size))
        return {metric: np.array(at, dtype=np.intp) for metric, at in found.items()}
