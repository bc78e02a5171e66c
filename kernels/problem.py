"""A checked call with every default filled in: what backends, operators and launchers take."""

from collections.abc import Hashable
from types import NoneType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .cache import layout

Backend = Literal["auto", "eager", "triton", "split_keys", "hopper"]
Chosen = Literal["auto", "eager", "triton", "split_keys", "hopper"]
"""A backend by name; "auto" where the choice is left to the operator, which knows all sizes when it runs."""
Form = Literal["auto", "tanh", "accurate"]
"""The form in which a fused forward computes sigmoid: decided from type and bias, or forced."""


class Traits(NamedTuple):
    """The traits of a call that decide which backend can take it; ``used``: as ``Problem.used``."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    scale: float = 1.0
    used: frozenset[str] = frozenset()


class Problem(NamedTuple):
    """One call.

    query: [B, H, N_q, D]. key, value: [B, H_k, N_k, D]. bias: float32 [H], or [B, 1] where each sequence has its own,
    or None and ``bias_value`` holds for all. alibi_slopes: float32 [H],
    or [B, H] where sequences differ, or None.
    key_lengths: as in ``sigmoid_attention``. window: keys j > i' - window are seen, and not causal also j < i' + ahead,
    or j < i' + window where ahead is None. attn_mask: boolean or floating, [B, H, N_q, N_k] with sizes of 1
    where it is the same for all, but N_k whole. Packed sequences: query [1, H, T_q, D], key and value
    [1, H_k, T_k, D], query_starts and key_starts [B + 1] where each sequence begins, max_q and max_k the longest; dense
    calls have None and 0 there.
    page_table: int32 [B, P] or None. With it key and value are the pages of a cache, [pages, H_k, N, D], and the keys
    of sequence b are those of the pages page_table[b], one after the other.
    cached: whether the queries of a sequence are the last of its ``key_lengths`` keys, and not of all N_k.
    deterministic: whether the gradients must be the same bits in every run.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None = None
    bias_value: float = 0.0
    alibi_slopes: Tensor | None = None
    scale: float = 1.0
    is_causal: bool = False
    window: int | None = None
    key_lengths: Tensor | None = None
    query_starts: Tensor | None = None
    key_starts: Tensor | None = None
    max_q: int = 0
    max_k: int = 0
    deterministic: bool = False
    form: str = "auto"
    attn_mask: Tensor | None = None
    ahead: int | None = None
    page_table: Tensor | None = None
    cached: bool = False

    @property
    def traits(self) -> Traits:
        """The properties of the call that decide which backend can take it."""
        return Traits(self.query.device, self.query.dtype, self.query.size(3), self.scale, self.used)

    @property
    def used(self) -> frozenset[str]:
        """The fields, but ``TAKEN_BY_ALL``, that are not at their defaults; a backend lists those that it takes."""
        given = self._asdict()
        names = frozenset(name for name, default in _DEFAULTS.items() if _differs(given[name], default))
        slopes = self.alibi_slopes
        return names | {SLOPES_BY_SEQUENCE} if slopes is not None and slopes.dim() == 2 else names

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return self.query.size(0) if self.query_starts is None else self.query_starts.size(0) - 1

    @property
    def n_q(self) -> int:
        """Queries of the longest sequence."""
        return self.query.size(2) if self.query_starts is None else self.max_q

    @property
    def n_k(self) -> int:
        """Keys of the longest sequence."""
        if self.key_starts is not None:
            return self.max_k
        return self.key.size(2) * (1 if self.page_table is None else self.page_table.size(1))

    @property
    def reach(self) -> int:
        """The window as kernels take it: cut where it exceeds every distance, so that sums fit 32 bits; 0 for none."""
        return min(self.window or 0, self.n_q + self.n_k)

    @property
    def reach_ahead(self) -> int:
        """The same of the keys after a query, which causal calls do not read."""
        return self.reach if self.ahead is None else min(self.ahead, self.n_q + self.n_k)

    @property
    def any_bias(self) -> Tensor | float:
        """The bias, a tensor or a number."""
        return self.bias_value if self.bias is None else self.bias

    @property
    def layout(self) -> Hashable:
        """All that a launch may depend on but the numbers ``bias_value`` and ``scale``."""
        rest: tuple[Hashable, ...] = self[7:]
        if not PLAIN.issuperset(map(type, rest)):
            rest = tuple([layout(each) if isinstance(each, Tensor) else each for each in rest])
        bias, slopes = self.bias, self.alibi_slopes
        return (
            layout(self.query), layout(self.key), layout(self.value), None if bias is None else layout(bias),
            None if slopes is None else layout(slopes), rest,
        )  # fmt: skip

    @property
    def read(self) -> "Problem":
        """The call with a cache's keys and values as they are read: [B, H_k, N_k, D], 0 where nothing is written."""
        if self.page_table is None and not self.cached:
            return self
        table = self.page_table
        key, value = (x if table is None else _paged(x, table) for x in (self.key, self.value))
        if self.key_lengths is not None:
            unwritten = torch.arange(self.n_k, device=key.device) >= self.key_lengths[:, None, None]
            key, value = (x.masked_fill(unwritten[..., None], 0) for x in (key, value))
        return self._replace(key=key, value=value, page_table=None)

    def sequences(self, read: slice) -> "Problem":
        """Return the problem of the sequences ``read`` alone; not for packed ones."""
        bias, slopes, lengths, mask = self.bias, self.alibi_slopes, self.key_lengths, self.attn_mask
        return self._replace(
            query=self.query[read],
            key=self.key[read],
            value=self.value[read],
            bias=bias if bias is None or bias.dim() == 1 else bias[read],
            alibi_slopes=slopes if slopes is None or slopes.dim() == 1 else slopes[read],
            key_lengths=None if lengths is None else lengths[read],
            attn_mask=mask if mask is None or mask.size(0) == 1 else mask[read],
        )


def _paged(x: Tensor, table: Tensor) -> Tensor:
    """Return the pages [B, P] of ``x`` [pages, H_k, N, D], [B, H_k, P·N, D]; a number that is no page reads another."""
    return x[table.clamp(0, x.size(0) - 1).long()].transpose(1, 2).flatten(2, 3)


def _differs(given: object, default: object) -> bool:
    return given is not default and (isinstance(given, Tensor) or given != default)


SLOPES_BY_SEQUENCE = "alibi_slopes of each sequence"
"""Names that ``Problem.used`` has besides the slopes, where they are [B, H]."""
PLAIN = frozenset({int, float, bool, str, NoneType})
"""The types of what is no tensor; a set of types is compared faster than each by ``isinstance``."""
TAKEN_BY_ALL = ("bias_value", "scale")
"""The fields with a default that every backend takes."""
_DEFAULTS = {name: default for name, default in Problem._field_defaults.items() if name not in TAKEN_BY_ALL}
FIELDS = len(Problem._fields)
