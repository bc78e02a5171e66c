"""Models of other libraries, small and with random weights, as their users build and call them."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon import record_attention
from stabmon.kernels import sigmoid_attention
from tests import with_timm  # noqa: F401 finds timm where STABMON_TIMM says
from tests.transformers_models import CASES

WIDTH, HEADS, LENGTH, TOKENS = 32, 4, 16, 32


class Entry(NamedTuple):
    """A model. batch: its keyword arguments, or its only argument, of a step; the loss is its mean square where it
    gives none. package: what it is taken from, where that is not always there.
    """

    build: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    package: str = "torch"

    @property
    def is_there(self) -> bool:
        """True if its package is installed."""
        return find_spec(self.package) is not None

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step."""
        batch = self.batch(step)
        out = model(**batch) if isinstance(batch, dict) else model(batch)
        loss: Tensor = out.loss if hasattr(out, "loss") else out.float().square().mean()
        return loss


class Attention(nn.Module):
    """Projections around ``attend``, q, k, v [B, H, N, D]."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, WIDTH // HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(WIDTH), attention, nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Language(nn.Module):
    """A decoder in the form of nanoGPT."""

    def __init__(self, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.block_size = LENGTH
        self.wte, self.head = nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, TOKENS)
        self.h = nn.ModuleList(Block(attention()) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids)
        for block in self.h:
            x = block(x)
        return functional.cross_entropy(self.head(x)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def _softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _sigmoid(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sigmoid_attention(q, k, v, is_causal=True)


def _by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    seen = torch.ones(q.size(2), k.size(2), dtype=torch.bool).tril()
    weights = torch.sigmoid(q @ k.transpose(-2, -1) / q.size(-1) ** 0.5 - 2.0).masked_fill(~seen, 0.0)
    output: Tensor = weights @ v
    record_attention(q, k, output, value=v, bias=-2.0, is_causal=True)
    return output


def _flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, q.size(2), k.size(2), device=str(q.device))
    out: Any = flex_attention(q, k, v, block_mask=mask)
    return out  # type: ignore[no-any-return]


def _ids(step: int) -> Tensor:
    return torch.randint(TOKENS, (2, LENGTH), generator=torch.Generator().manual_seed(step))


def _vectors(step: int) -> Tensor:
    return torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(step))


def _images(step: int) -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(step))


def _transformers(name: str, implementation: str) -> Entry:
    case = CASES[name]
    return Entry(lambda: case.build(implementation), lambda step: case.batch(seed=step), "transformers")


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 64, dropout=0.1, batch_first=True), 2)


def _x_transformers(**options: Any) -> nn.Module:
    with warnings.catch_warnings():  # its import compiles by torch.jit.script
        warnings.simplefilter("ignore", DeprecationWarning)
        from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(dim=WIDTH, depth=2, heads=HEADS, attn_dim_head=8, **options)
    return TransformerWrapper(num_tokens=TOKENS, max_seq_len=LENGTH, attn_layers=layers)


def _timm() -> nn.Module:
    import timm

    return timm.create_model(  # type: ignore[no-any-return]
        "vit_tiny_patch16_224", img_size=32, embed_dim=WIDTH, depth=2, num_heads=HEADS, num_classes=4, patch_size=8
    )


ZOO = {
    **{
        f"{name} ({implementation})": _transformers(name, implementation)
        for name in CASES
        for implementation in ("eager", "sdpa", "sigmoid")
        if implementation != "eager" or name in ("llama", "bert", "t5")  # eager attention is alike in all of them
    },
    "timm ViT": Entry(_timm, _images, "timm"),
    "x-transformers": Entry(_x_transformers, _ids, "x_transformers"),
    "x-transformers (attn_sigmoid)": Entry(lambda: _x_transformers(attn_sigmoid=True), _ids, "x_transformers"),
    "nn.TransformerEncoder": Entry(_encoder, _vectors),
    "scaled_dot_product_attention": Entry(lambda: Language(lambda: Attention(_softmax)), _ids),
    "sigmoid_attention": Entry(lambda: Language(lambda: Attention(_sigmoid)), _ids),
    "record_attention": Entry(lambda: Language(lambda: Attention(_by_hand)), _ids),
}
