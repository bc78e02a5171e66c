"""A vision transformer on scanned handwritten digits: sigmoid or softmax attention, mean pooling or a class token."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.config import ModelConfig, RunConfig
from stabmon.nn import RMSNorm
from stabmon.workloads.blocks import blocks
from stabmon.workloads.digits import CLASSES, Images, scanned_digits
from stabmon.workloads.workload import Batch

PATCH = 2
"""Side of a patch in pixels; an image of n patches is resampled to 2·√n pixels a side."""
EXTREME = 1e3
"""Standard deviation of a corrupt image's pixels, which are of order one in a good one."""
VALIDATION_BATCH = 60
UNIT = "nats an image"


class VisionTransformer(nn.Module):
    """Transformer over the patches of an image in reading order: embedding, positions, blocks, norm, pooling, head.

    Learned positions are resampled to the grid of an image of another size, as is usual for vision transformers.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Linear(PATCH**2, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        self.token = nn.Parameter(torch.randn(config.width)) if config.pooling == "token" else None
        self.layers = blocks(config, config.context + (config.pooling == "token"))
        self.norm = RMSNorm(config.width)
        self.head = nn.Linear(config.width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [B, 10] of the class of each of ``images`` [B, S, S], S a multiple of 2 pixels."""
        x: Tensor = self.embedding(patches(images))
        if self.positions is not None:
            x = x + resampled(self.positions.weight, x.shape[1])
        if self.token is not None:
            x = torch.cat((self.token.expand(len(x), 1, -1), x), dim=1)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        logits: Tensor = self.head(x.mean(1) if self.token is None else x[:, 0])
        return logits


def build(config: ModelConfig) -> VisionTransformer:
    """Return the model of ``config``."""
    return VisionTransformer(config)


def batches(config: RunConfig) -> Iterator[Batch]:
    """Yield images [batch, S, S], drawn with replacement and cut into context patches, and classes [batch]."""
    images, labels = _sized(scanned_digits().train, config.model.context)
    generator = torch.Generator().manual_seed(config.training.seed)
    while True:
        chosen = torch.randint(len(images), (config.training.batch,), generator=generator)
        yield Batch((images[chosen],), (labels[chosen],))


def validation(config: RunConfig, length: int) -> Iterator[Batch]:
    """Yield the 360 images that training never sees, resampled to ``length`` patches."""
    images, labels = _sized(scanned_digits().valid, length)
    for chosen in torch.split(torch.arange(len(images)), VALIDATION_BATCH):
        yield Batch((images[chosen],), (labels[chosen],))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of the class in nats."""
    (labels,) = batch.targets
    return functional.cross_entropy(model(*batch.inputs).float(), labels)


def corrupt(batch: Batch, generator: torch.Generator) -> Batch:
    """Return noise a thousand times as bright as an image, and random classes."""
    (images,), (labels,) = batch
    noise = EXTREME * torch.randn(images.shape, generator=generator)
    return Batch((noise,), (torch.randint(CLASSES, labels.shape, generator=generator),))


def patches(images: Tensor) -> Tensor:
    """Return the patches of ``images`` [B, S, S] in reading order, [B, n, 4]."""
    side = images.shape[1] // PATCH
    return images.reshape(-1, side, PATCH, side, PATCH).transpose(2, 3).reshape(-1, side**2, PATCH**2)


def resampled(positions: Tensor, number: int) -> Tensor:
    """Return embeddings [number, width] of a square grid, between those of the square grid ``positions`` [n, width]."""
    if len(positions) == number:
        return positions
    side, wanted = math.isqrt(len(positions)), math.isqrt(number)
    grid = positions.T.reshape(1, -1, side, side)
    return functional.interpolate(grid, (wanted, wanted), mode="bicubic")[0].flatten(1).T


def _sized(images: Images, patches: int) -> Images:
    side = PATCH * math.isqrt(patches)
    pixels = functional.interpolate(images.pixels[:, None], (side, side), mode="bilinear", antialias=True)[:, 0]
    return Images(pixels, images.labels)
