"""Where the buffer holds what each column of a row is made of, so that all heads are worked out at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.records import Attention
from stabmon.stats.slots import COUNTS, SUMS, Slots

Index = npt.NDArray[np.intp]
_ONE_A_HEAD = ("query_squares", "key_squares", "logit_max", "twin")


class Gather(NamedTuple):
    """Elements of the buffer in the order of the row's columns: every head, or every layer.

    sigmoid, best_bias and gain cover only the attentions that have such a number.
    """

    head: dict[str, Index]
    layer: dict[str, Index]
    sigmoid: Index
    best_bias: Index
    gain: Index

    @classmethod
    def of(cls, attentions: Sequence[Attention], sites: Sequence[Slots]) -> "Gather":
        """Return the indices for ``attentions`` and their slots."""
        head: dict[str, list[int]] = {name: [] for name in (*SUMS, *COUNTS, *_ONE_A_HEAD)}
        for slots in sites:
            for heads in range(slots.heads):
                for column, name in enumerate(SUMS):
                    head[name].append(slots.sums.start + heads * len(SUMS) + column)
                for column, name in enumerate(COUNTS):
                    head[name].append(slots.counts.start + column)
                for name in _ONE_A_HEAD:
                    head[name].append(getattr(slots, name).start + heads)
        layer = {"keys": [slots.keys.start for slots in sites], "gradient": [slots.gradient.start for slots in sites]}
        for name in ("stream_in", "stream_out", "branch"):
            starts = [getattr(slots, name).start for slots in sites]
            layer |= {f"{name}_squares": starts, f"{name}_elements": [start + 1 for start in starts]}
        both = list(zip(attentions, sites, strict=True))
        sigmoid = [slots for attention, slots in both if attention.kind != "softmax"]
        return cls(
            head={name: np.array(at, dtype=np.intp) for name, at in head.items()},
            layer={name: np.array(at, dtype=np.intp) for name, at in layer.items()},
            sigmoid=_flat([slots.bias for slots in sigmoid]),
            best_bias=_flat([slots.best_bias for slots in sigmoid]),
            gain=_flat([slots.gain for attention, slots in both if attention.layer_scale]),
        )


def _flat(at: list[slice]) -> Index:
    return np.array([element for part in at for element in range(part.start, part.stop)], dtype=np.intp)
