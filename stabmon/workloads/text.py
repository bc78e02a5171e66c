"""Real text that every machine with Python has: the standard library's own source files, byte by byte."""

import os
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stabmon.errors import ConfigError

LIMIT = 8 * 2**20
"""Most bytes that are read."""
VALID_SHARE = 0.1
"""Share of the bytes, at the end, that training never sees."""

_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


class Text(NamedTuple):
    """Bytes as uint8 [length], on the CPU."""

    train: Tensor
    valid: Tensor


@lru_cache(maxsize=1)
def standard_library() -> Text:
    """Return this Python's standard library as text; the same files give the same text in the same order.

    Raises:
        ConfigError: this Python ships no source files.
    """
    return split(read(Path(sysconfig.get_paths()["stdlib"])))


def read(folder: Path, limit: int = LIMIT) -> bytes:
    """Return the first ``limit`` bytes of the .py files below ``folder``, in the order of their relative paths.

    Tests and installed packages are left out.

    Raises:
        ConfigError: there is no such file.
    """
    text = bytearray()
    for path in sorted(sources(folder), key=lambda path: path.relative_to(folder).as_posix()):
        text += path.read_bytes()
        if len(text) >= limit:
            break
    if not text:
        raise ConfigError(
            f"no .py files in {folder}, where the language workload expects Python's standard library; "
            "run it with a Python that ships its source (python.org, conda, uv, or the distribution's full package)"
        )
    return bytes(text[:limit])


def sources(folder: Path) -> Iterator[Path]:
    """Yield the .py files below ``folder``, in no order."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        yield from (Path(parent, name) for name in files if name.endswith(".py"))


def split(text: bytes) -> Text:
    """Cut ``text`` into a part for training and one for validation at the end."""
    values = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    cut = round(len(text) * (1 - VALID_SHARE))
    return Text(values[:cut], values[cut:])
