"""The calls that the hopper backend takes."""

import logging
from functools import cache

import torch

from .. import device, releases
from ..device import Refusal
from ..problem import Traits

IN_AUTO = True
"""True if ``auto`` chooses this backend."""
CAPABILITY = (9, 0)
DTYPES = (torch.float16, torch.bfloat16)
TAKES = frozenset({"bias", "is_causal", "deterministic", "form"})
"""The fields of a ``Problem`` that the kernels know."""
SMALLEST_SCALE = 1e-30
"""Below it a mask and a product look the same."""


def refusal(traits: Traits) -> Refusal | None:
    """Return why the backend cannot take such a call, or None when it can; strides do not matter."""
    reason = _refusal_of_machine(traits.device)
    return reason or _refusal_of_arguments(traits)


def _refusal_of_machine(of: torch.device) -> Refusal | None:
    if of.type != "cuda":
        return Refusal(f"no CUDA device for backend='hopper', tensors are on {of}", True)
    major, minor = device.capability(of)
    if (major, minor) != CAPABILITY:
        return Refusal(f"backend='hopper' needs CUDA capability 9.0, {of} has {major}.{minor}", True)
    return None if releases.is_supported() else Refusal(_release_text(), True)


def _refusal_of_arguments(traits: Traits) -> Refusal | None:
    if traits.dtype not in DTYPES:
        return Refusal(f"backend='hopper' takes float16 and bfloat16, got {traits.dtype}", False)
    if traits.head_dim % 8 or not 40 <= traits.head_dim <= 128:
        return Refusal(f"backend='hopper' takes head dims 40 to 128 in multiples of 8, got {traits.head_dim}", False)
    untaken = device.untaken("hopper", TAKES, traits.used)
    if untaken is not None:
        return untaken
    if abs(traits.scale) < SMALLEST_SCALE:
        text = f"backend='hopper' needs a scale of at least {SMALLEST_SCALE} either way, got {traits.scale}"
        return Refusal(text, False)
    return None


def preferred(traits: Traits) -> bool:
    """Return whether ``auto`` gives such a call to this backend."""
    if not IN_AUTO or traits.device.type != "cuda" or device.capability(traits.device) != CAPABILITY:
        return False
    if not torch.compiler.is_compiling() and not releases.is_supported():
        _warn_of_release(_release_text())
    return refusal(traits) is None


def _release_text() -> str:
    found, oldest, newest = (releases.name(release) for release in (releases.INSTALLED, *releases.SUPPORTED))
    return f"backend='hopper' knows triton {oldest} to {newest}, found {found}"


@cache
def _warn_of_release(text: str) -> None:
    """Log once that the Triton release is the reason why ``auto`` does not choose this backend."""
    logging.getLogger(__name__).warning("%s; backend='auto' uses 'triton'", text)
