"""The families: a GPT, a Llama, a ViT; and, never tuned on, blocks of parallel branches and a post-norm encoder."""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.evaluation.foreign.attention import Heads
from stabmon.evaluation.foreign.data import MASK, Examples, digits, images, masked_bytes, next_bytes, prose
from stabmon.evaluation.foreign.setup import PATCHES, Setup

TOKENS = MASK + 1
CLASSES = 10
INITIAL_STD = 0.02


class Branch(nn.Module):
    """An attention or feed-forward as it is added to the stream, with its norm and its gain where there are any."""

    def __init__(self, inner: nn.Module, setup: Setup, normed: bool) -> None:
        super().__init__()
        self.inner = inner
        self.after = nn.RMSNorm(setup.width) if normed else nn.Identity()
        gain = setup.layer_scale
        self.gain = None if gain is None else nn.Parameter(torch.full((setup.width,), gain))

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch of ``x`` [B, N, width]."""
        out: Tensor = self.after(self.inner(x).float())
        return out if self.gain is None else out * self.gain


class Serial(nn.Module):
    """One branch after the other, each of a normed stream, or the stream normed after each."""

    def __init__(self, setup: Setup, heads: Heads, mlp: nn.Module, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.pre = setup.pre_norm
        self.norm_1, self.norm_2 = norm(setup.width), norm(setup.width)
        self.mix = Branch(heads, setup, setup.hybrid_norm)
        self.think = Branch(mlp, setup, False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream [B, N, width] after the block."""
        if not self.pre:
            x = self.norm_1(x + self.mix(x))
            normed: Tensor = self.norm_2(x + self.think(x))
            return normed
        x = x + self.mix(self.norm_1(x))
        out: Tensor = x + self.think(self.norm_2(x))
        return out


class Parallel(nn.Module):
    """Both branches of the same stream at once."""

    def __init__(self, setup: Setup, heads: Heads) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(setup.width), nn.LayerNorm(setup.width)
        self.mix = Branch(heads, setup, setup.hybrid_norm)
        self.think = Branch(gelu_mlp(setup.width), setup, False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream [B, N, width] after the block."""
        out: Tensor = x + self.mix(self.norm_1(x)) + self.think(self.norm_2(x))
        return out


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 8 * width // 3
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return down(silu(gate x) · up x)."""
        out: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return out


def gelu_mlp(width: int) -> nn.Sequential:
    """Return a feed-forward network of four times the width."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Network(nn.Module):
    """Embedding, blocks, norm and output; ``forward`` returns logits of each token, or of the image."""

    def __init__(self, setup: Setup, block: Callable[[Setup], nn.Module], *, positions: bool, image: bool) -> None:
        super().__init__()
        width = setup.width
        self.image = image
        self.embed = nn.Linear(4, width) if image else nn.Embedding(TOKENS, width)
        length = PATCHES if image else setup.context
        self.place = nn.Parameter(torch.randn(length, width) * INITIAL_STD) if positions else None
        self.blocks = nn.ModuleList(block(setup) for _ in range(setup.layers))
        self.last = nn.LayerNorm(width) if setup.pre_norm else nn.Identity()
        self.out = nn.Linear(width, CLASSES if image else TOKENS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, N, tokens] or [B, classes]."""
        x = self.embed(x)
        if self.place is not None:
            x = x + self.place[: x.size(1)]
        for block in self.blocks:
            x = block(x)
        x = self.last(x)
        logits: Tensor = self.out(x.mean(1) if self.image else x)
        return logits


def build(setup: Setup) -> Network:
    """Return the model of ``setup``, whose seed alone decides its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        return _BUILDERS[setup.family](setup)


def samples(setup: Setup) -> Iterator[Examples]:
    """Return the batches of ``setup``; its family, sizes and seed alone decide them."""
    size = (setup.context, setup.batch, setup.seed)
    if setup.family == "vit":
        drawn = images(setup.batch, setup.seed)
    elif setup.family == "bert":
        drawn = masked_bytes(_part(setup), *size)
    else:
        drawn = next_bytes(_part(setup), *size)
    return islice(drawn, setup.steps)


def frequencies(setup: Setup) -> float:
    """Return the entropy of the targets of ``setup`` in nats."""
    targets = digits().targets if setup.family == "vit" else prose(_part(setup))
    shares = targets.bincount().double() / len(targets)
    return float(torch.special.entr(shares).sum())


def _part(setup: Setup) -> int:
    return 1 if setup.split == "held-out" else 0


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy in nats over the targets that are asked for."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100)


def _gpt(setup: Setup) -> Network:
    def block(setup: Setup) -> nn.Module:
        return Serial(setup, Heads(setup), gelu_mlp(setup.width), nn.LayerNorm)

    model = Network(setup, block, positions=True, image=False)
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and name != "place":
            is_output = name.endswith(("to_out.weight", "inner.2.weight"))
            nn.init.normal_(weight, std=INITIAL_STD / (2 * setup.layers) ** 0.5 if is_output else INITIAL_STD)
    return model


def _llama(setup: Setup) -> Network:
    def block(setup: Setup) -> nn.Module:
        return Serial(setup, Heads(setup, groups=2, rotated=1.0), Gated(setup.width), nn.RMSNorm)

    model = Network(setup, block, positions=False, image=False)
    for weight in model.parameters():
        if weight.dim() == 2:
            nn.init.normal_(weight, std=INITIAL_STD)
    return model


def _vit(setup: Setup) -> Network:
    def block(setup: Setup) -> nn.Module:
        return Serial(setup, Heads(setup, causal=False), gelu_mlp(setup.width), nn.LayerNorm)

    return Network(setup, block, positions=True, image=True)


def _neox(setup: Setup) -> Network:
    return Network(setup, lambda one: Parallel(one, Heads(one, rotated=0.5)), positions=False, image=False)


def _bert(setup: Setup) -> Network:
    def block(setup: Setup) -> nn.Module:
        return Serial(setup, Heads(setup, causal=False), gelu_mlp(setup.width), nn.LayerNorm)

    return Network(setup, block, positions=True, image=False)


_BUILDERS: dict[str, Callable[[Setup], Network]] = {
    "gpt": _gpt,
    "llama": _llama,
    "vit": _vit,
    "neox": _neox,
    "bert": _bert,
}
