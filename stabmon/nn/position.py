"""Position encodings: rotary embedding (RoPE) of queries and keys, and ALiBi's slopes."""

import torch
from torch import Tensor

from stabmon import alibi


def rotate(query: Tensor, key: Tensor, *, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Rotate ``query`` and ``key`` by their positions, so that their product depends on the distance alone (RoPE).

    Channel c of the first half is paired with channel c of the second half and turned by position · base^(-2c/D).
    Angles, sines and products are at least fp32. Nothing is cached, so any length will do and ``torch.compile`` sees
    one graph.

    Args:
        query: [B, H, N, D], D even; its positions are 0 .. N-1.
        key: [B, H, N, D].
        base: the longest wavelength is about 2π·base tokens.

    Returns:
        The rotated query and key in their own dtypes.

    References:
        arXiv 2104.09864.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    half = query.shape[-1] // 2
    channels = torch.arange(half, device=query.device, dtype=dtype)
    positions = torch.arange(query.shape[-2], device=query.device, dtype=dtype)
    angles = positions[:, None] * base ** (-channels / half)  # [N, D/2]
    cos, sin = angles.cos(), angles.sin()
    return _rotate(query, cos, sin), _rotate(key, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def alibi_slopes(heads: int) -> Tensor:
    """Return ALiBi's slope per head, [heads] fp32; see ``stabmon.alibi.slopes``."""
    return torch.tensor(alibi.slopes(heads), dtype=torch.float32)
