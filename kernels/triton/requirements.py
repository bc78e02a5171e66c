"""The calls that the triton backend takes."""

from typing import Literal

import torch

from .. import device, releases
from ..device import Refusal
from ..problem import SLOPES_BY_SEQUENCE, Traits

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SPLIT_TAKES = frozenset(
    {
        "bias", "is_causal", "deterministic", "form", "window", "ahead", "alibi_slopes", "key_lengths",
        "attn_mask", SLOPES_BY_SEQUENCE, "page_table", "cached",
    }
)  # fmt: skip
"""The fields of a ``Problem`` that the split-key kernel knows."""
CACHE = frozenset({"page_table", "cached"})
"""Those that only it knows."""
TAKES = (SPLIT_TAKES - CACHE) | device.PACKED
"""Those that the other kernels know."""
OLDEST = (8, 0)
"""The oldest CUDA capability."""


def refusal(traits: Traits, backend: Literal["triton", "split_keys"] = "triton") -> Refusal | None:
    """Return why the triton backend, or its split-key forward, cannot take such a call, or None when it can."""
    if releases.INSTALLED is None:
        return Refusal("triton is not installed, backend='triton' needs it", True)
    if releases.is_older(releases.INSTALLED):
        oldest, found = releases.name(releases.SUPPORTED[0]), releases.name(releases.INSTALLED)
        return Refusal(f"backend='triton' needs triton {oldest} or newer, found {found}", True)
    if traits.dtype not in DTYPES:
        return Refusal(f"backend='triton' takes float16, bfloat16 and float32, got {traits.dtype}", False)
    if traits.head_dim % 8 or not 16 <= traits.head_dim <= 256:
        return Refusal(f"backend='triton' takes head dims 16 to 256 in multiples of 8, got {traits.head_dim}", False)
    untaken = device.untaken(backend, TAKES if backend == "triton" else SPLIT_TAKES, traits.used)
    if untaken is not None:
        return untaken
    if traits.device.type == "cuda":
        major, minor = device.capability(traits.device)
        if (major, minor) >= OLDEST:
            return None
        text = f"backend='triton' needs CUDA capability 8.0 or newer, {traits.device} has {major}.{minor}"
        return Refusal(text, True)
    if not device.interpreted():
        return Refusal(f"no CUDA device for backend='triton', tensors are on {traits.device}", True)
    if traits.dtype == torch.bfloat16:
        return Refusal("Triton's interpreter cannot multiply bfloat16", True)
    return None
