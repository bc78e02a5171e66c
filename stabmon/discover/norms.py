"""Norms whose input is so small that their eps decides the output, found in the operations of a pass."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stabmon.names import own_name
from stabmon.records import NormInput

WITHIN = 2.0
"""Multiples of eps up to which an input's mean square is kept: at eps the output has 0.7 of its size."""
ROUNDING = 1e-6
"""Share of eps below which a mean square that was read from its float32 sum with eps may be zero."""


class _Seen(NamedTuple):
    """A norm's mean square, on the device, with its eps and the path of the module that ran it."""

    inside: str
    mean_square: Tensor
    eps: float


class NormInputs:
    """Notes the input of every norm; one copy to the host at the end.

    inside: returns the path of the module that runs.
    """

    def __init__(self, inside: Callable[[], str]) -> None:
        self._inside = inside
        self._seen: list[_Seen] = []
        self._sum: tuple[Tensor, float] | None = None
        """The last sum of a tensor and a small number, which is an eps where its root is taken next."""

    def note(self, name: str, args: Any, out: Any) -> None:
        """Note operation ``name``: a fused norm, or the root of a mean square and an eps."""
        if name == "native_layer_norm":
            self._fused(args[0], args[1], args[4], centred=True)
        elif name in ("_fused_rms_norm", "rms_norm"):
            self._fused(args[0], args[1], args[3] if len(args) > 3 else None, centred=False)
        elif name in ("add", "add_") and len(args) > 1 and isinstance(args[1], float) and 0 < args[1] < 1e-2:
            self._sum = (out, args[1])
        elif name == "rsqrt" and self._sum is not None and args[0] is self._sum[0]:
            total, eps = self._sum
            self._keep(total.detach().float().sub(eps).mean(), eps)

    def small(self) -> tuple[NormInput, ...]:
        """Return the norms whose input was within ``WITHIN`` of their eps and no zeros."""
        if not self._seen:
            return ()
        squares = torch.stack([one.mean_square.to(self._seen[0].mean_square.device) for one in self._seen]).tolist()
        return tuple(
            NormInput(module=own_name(one.inside), mean_square=square, eps=one.eps)
            for one, square in zip(self._seen, squares, strict=True)
            if ROUNDING * one.eps < square < WITHIN * one.eps
        )

    def _fused(self, x: Tensor, shape: Any, eps: float | None, *, centred: bool) -> None:
        dims = tuple(range(-len(shape), 0))
        given = x.detach().float()
        square = given.var(dims, unbiased=False) if centred else given.square().mean(dims)
        self._keep(square.mean(), torch.finfo(x.dtype).eps if eps is None else eps)

    def _keep(self, square: Tensor, eps: float) -> None:
        if not square.is_meta and math.isfinite(eps):
            self._seen.append(_Seen(self._inside(), square, eps))
