"""A key/value cache with room at its end, which a step writes to and the kernels read as it lies there."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

FEW = 16
"""Queries up to which a call reads the whole cache by the length of its sequences; more are taken as a prompt."""


class Room(NamedTuple):
    """A cache of one layer: keys and values [B, H_k, capacity, D], and how many are written, int32 [B]."""

    keys: Tensor
    values: Tensor
    lengths: Tensor


class KeyValueCache(Cache):
    """A cache for ``generate(cache=KeyValueCache())``, for every model and attention of Transformers.

    Keys and values are written in place, where Transformers' default copies all of them in each step. With
    ``attn_implementation="sigmoid"`` and no padding, the shapes of a step do not depend on how many tokens there are.

    Args:
        room: tokens that there is room for at first, at least 1; it doubles when it is used up.
    """

    def __init__(self, room: int = 256) -> None:
        if not isinstance(room, int) or isinstance(room, bool) or room < 1:
            raise ValueError(f"room must be a whole number of at least 1, got {room!r}")
        super().__init__(layer_class_to_replicate=partial(_Layer, room))


class _Layer(DynamicLayer):
    """The cache of one layer; ``keys`` and ``values`` are views of what is written."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.capacity = room
        self._buffers: Room | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write ``key_states`` and ``value_states`` [B, H_k, N, D] behind the others and return all.

        Where gradients are recorded they are copied together, since autograd keeps what a later step would overwrite.
        """
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            return super().update(key_states, value_states, *args, **kwargs)  # type: ignore[no-any-return]
        before = self.get_seq_length()
        after = before + key_states.size(2)
        room = self._room(key_states, value_states, before, after)
        room.keys[:, :, before:after] = key_states
        room.values[:, :, before:after] = value_states
        room.lengths.fill_(after)
        self.keys, self.values = room.keys[:, :, :after], room.values[:, :, :after]
        self.keys.room = room  # type: ignore[attr-defined] # for ``room_of``
        return self.keys, self.values

    def _room(self, keys: Tensor, values: Tensor, before: int, after: int) -> Room:
        """Return buffers with room for ``after`` tokens that hold those ``before``: the same, or larger ones.

        Beams that change places, and parts of a batch, are other tensors in ``keys``: they are taken over.
        """
        room = self._buffers
        if before and room is not None and self.keys.data_ptr() != room.keys.data_ptr():
            room = None
        if room is not None and room.keys.size(0) == keys.size(0) and room.keys.size(2) >= after:
            return room
        while self.capacity < after:
            self.capacity *= 2
        larger = Room(
            keys.new_empty(*keys.shape[:2], self.capacity, keys.size(3)),
            values.new_empty(*values.shape[:2], self.capacity, values.size(3)),
            torch.empty(keys.size(0), dtype=torch.int32, device=keys.device),
        )
        if before:
            larger.keys[:, :, :before] = self.keys
            larger.values[:, :, :before] = self.values
        self.is_initialized, self.device, self._buffers = True, keys.device, larger
        return larger


def room_of(key: Tensor, queries: int) -> Room | None:
    """Return the cache that ``key`` is the written part of, for a call of few ``queries``; None for other tensors."""
    if torch.compiler.is_compiling() or queries > FEW:
        return None
    room: Room | None = getattr(key, "room", None)
    return room
