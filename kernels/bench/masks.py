"""Milliseconds of a call with a mask, forward and backward, beside torch's softmax attention with the same mask.

Torch takes no mask together with ``is_causal``, so a causal row gives it the mask of both. Which of its kernels takes a
mask is torch's choice. The same call without a mask is there for what a mask costs.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..api import sigmoid_attention
from .timing import machine, medians

PADDED = 8
"""The part of a sequence, one over it, that is padding on the left in the longest of a batch; the shortest has none."""


class Row(NamedTuple):
    """One call in bf16: query, key and value [B, H, N, D].

    by_pair: whether the mask differs by query and head, [1, H, N, N]; else it is one of keys, [B, 1, 1, N].
    added: whether it is floating, with a gradient.
    """

    batch: int
    heads: int
    length: int
    dim: int
    by_pair: bool
    added: bool
    is_causal: bool

    @property
    def name(self) -> str:
        """The row's name in the table."""
        shape = "[1, H, N, N]" if self.by_pair else "[B, 1, 1, N]"
        kind = "added, with gradient" if self.added else "boolean"
        causal = " causal" if self.is_causal else ""
        return f"{self.batch}, {self.heads}, {self.length}, {self.dim}{causal}, {shape} {kind}"


ROWS = (
    Row(8, 16, 2048, 64, False, False, False),
    Row(8, 16, 2048, 64, False, False, True),
    Row(4, 16, 4096, 128, False, False, True),
    Row(4, 16, 4096, 128, False, True, False),
    Row(8, 16, 2048, 64, True, False, False),
    Row(4, 16, 2048, 128, True, True, False),
)
WAYS = ("triton", "no mask", "softmax")


def measure(rounds: int) -> dict[str, Any]:
    """Return device, versions, and for each of ``ROWS`` milliseconds forward and backward by contender.

    Raises:
        RuntimeError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("bench needs a CUDA device, this machine has none")
    return {**machine(), "grid": "masks", "rounds": rounds, "rows": [_timed(row, rounds) for row in ROWS]}


def _timed(row: Row, rounds: int) -> dict[str, Any]:
    leaves = [
        torch.randn(row.batch, row.heads, row.length, row.dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    ]
    mask = mask_of(row, "cuda")
    calls = contenders(row, mask)
    grad = torch.randn_like(leaves[0])
    backward = {}
    for name, call in calls.items():
        wanted = [*leaves, mask] if mask.requires_grad and name != "no mask" else leaves
        backward[name] = partial(torch.autograd.grad, call(*leaves), wanted, grad, retain_graph=True)
    fixed = [leaf.detach() for leaf in leaves]
    with torch.no_grad():
        forward = medians({name: partial(call, *fixed) for name, call in calls.items()}, rounds)
    found = {"forward": forward, "backward": medians(backward, rounds)}
    return {"name": row.name} | {way: {k: round(v, 4) for k, v in times.items()} for way, times in found.items()}


def mask_of(row: Row, device: str) -> Tensor:
    """Return the row's mask: padding on the left of keys, or a pattern of pairs; floating ones are bf16."""
    if row.by_pair:
        scores = torch.randn(1, row.heads, row.length, row.length, device=device)
        return scores.bfloat16().requires_grad_() if row.added else scores > 0
    padding = torch.arange(row.batch, device=device) * (row.length // PADDED) // max(1, row.batch - 1)
    keys = torch.arange(row.length, device=device) >= padding[:, None, None, None]
    if not row.added:
        return keys
    return torch.zeros(keys.shape, device=device).masked_fill(~keys, -1e4).bfloat16().requires_grad_()


def contenders(row: Row, mask: Tensor) -> dict[str, Callable[..., Tensor]]:
    """Return the calls that are timed, by name."""
    ours = partial(sigmoid_attention, bias=-math.log(row.length), is_causal=row.is_causal, backend="triton")
    causal = torch.ones(row.length, row.length, dtype=torch.bool, device=mask.device).tril()
    theirs = mask & causal if row.is_causal else mask
    if mask.requires_grad and not row.by_pair:  # torch's kernels read an added mask by pairs
        theirs = mask.expand(-1, row.heads, row.length, -1)
    return {"triton": partial(ours, attn_mask=mask), "no mask": ours, "softmax": _softmax(theirs)}


def _softmax(mask: Tensor) -> Callable[..., Tensor]:
    return lambda query, key, value: scaled_dot_product_attention(query, key, value, attn_mask=mask)


def table(found: dict[str, Any]) -> str:
    """Return what ``measure`` found as Markdown."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield f"{found['device']}, {versions}, bf16, milliseconds forward / backward, {found['rounds']} rounds"
    yield ""
    yield f"| B, H, N, D, mask | {' | '.join(WAYS)} | softmax over triton |"
    yield "|---" * (len(WAYS) + 2) + "|"
    for row in found["rows"]:
        cells = [f"{row['forward'][way]:.3f} / {row['backward'][way]:.3f}" for way in WAYS]
        ratios = [row[way]["softmax"] / row[way]["triton"] for way in ("forward", "backward")]
        yield f"| {row['name']} | {' | '.join(cells)} | ×{ratios[0]:.2f} / ×{ratios[1]:.2f} |"
