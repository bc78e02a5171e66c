"""One process's share of a watched model, as the others must know it to put all numbers together."""

import hashlib
from collections.abc import Iterable

from stabmon.records import Attention, Record


class Own(Record):
    """The buffer of one process: from ``attentions`` and ``logged`` each process makes the same ``stats.Plan``."""

    attentions: tuple[Attention, ...]
    heads: tuple[tuple[int, int], ...] = ()
    """Of each attention: which part of its heads is here, and of how many."""
    logged: tuple[str, ...] = ()
    optimizer: bool = False
    sharded: bool = False
    """Other processes hold other parts of a parameter."""
    others: str = ""
    """Identifies the parameters outside of blocks: pipeline stages have different ones. Empty where there are none."""
    step: int = 0
    """The step that it has open."""
    parameters: int = 0
    """Number of trainable parameters, whole ones."""


def identity(names: Iterable[str]) -> str:
    """Return a text that is the same for the same ``names``."""
    joined = "\n".join(sorted(names))
    return hashlib.sha256(joined.encode()).hexdigest()[:16] if joined else ""
