"""Attention as a user writes it: sigmoid by ``stabmon.kernels``, the only thing these models take from stabmon."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.evaluation.foreign.setup import Setup
from stabmon.kernels import sigmoid_attention


class Heads(nn.Module):
    """Queries, keys and values of heads, and what each family does with them before the attention.

    groups: heads that share a key. rotated: share of a head's dimensions that RoPE turns. causal: one sees the past.
    """

    def __init__(self, setup: Setup, *, groups: int = 1, rotated: float = 0.0, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.dim, self.causal = setup.heads, setup.width // setup.heads, causal
        self.kv_heads, self.turned = setup.heads // groups, int(rotated * self.dim)
        self.is_sigmoid = setup.attention == "sigmoid"
        self.to_q = nn.Linear(setup.width, self.heads * self.dim, bias=False)
        self.to_kv = nn.Linear(setup.width, 2 * self.kv_heads * self.dim, bias=False)
        self.to_out = nn.Linear(self.heads * self.dim, setup.width, bias=False)
        self.scale_q, self.scale_k = (nn.RMSNorm(self.dim) if setup.qk_norm else nn.Identity() for _ in range(2))
        learns = setup.bias == "learnable"
        start = -float(torch.tensor(float(setup.context)).log()) if learns else float(setup.bias)
        self.offset = nn.Parameter(torch.full((self.heads,), start)) if learns else start

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention of ``x`` [B, N, width], projected."""
        batch, length, _ = x.shape
        q = self.to_q(x).view(batch, length, self.heads, self.dim).transpose(1, 2)
        kv = self.to_kv(x).view(batch, length, 2, self.kv_heads, self.dim)
        k, v = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)
        q, k = self.scale_q(q.float()).to(v.dtype), self.scale_k(k.float()).to(v.dtype)  # norms compute in float32
        q, k = rotate(q, self.turned), rotate(k, self.turned)
        grouped = self.kv_heads != self.heads
        if self.is_sigmoid:
            mixed = sigmoid_attention(q, k, v, bias=self.offset, is_causal=self.causal, enable_gqa=grouped)
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=grouped)
        out: Tensor = self.to_out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


def rotate(x: Tensor, dims: int) -> Tensor:
    """Return ``x`` [B, H, N, D] with its first ``dims`` dimensions rotated by position, in pairs of halves."""
    if not dims:
        return x
    half = dims // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.size(2), device=x.device)[:, None] * rates
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second, rest = x[..., :half], x[..., half:dims], x[..., dims:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], -1)
