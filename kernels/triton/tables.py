"""Launch tables of the triton backend, one entry a kernel, device family and head dim: nothing is tuned at run time."""

from typing import Literal, NamedTuple

import torch

Kernel = Literal["forward", "dq", "dkdv", "statistics", "few rows"]
STATISTICS = ("statistics", "few rows")


class Tiles(NamedTuple):
    """Tile sizes and the resources that a kernel is compiled for."""

    block_q: int
    block_k: int
    warps: int
    stages: int


_HALF: dict[tuple[Kernel, str], dict[int, Tiles]] = {
    ("forward", "sm90"): {64: Tiles(128, 64, 4, 3), 128: Tiles(64, 64, 4, 3), 256: Tiles(128, 64, 8, 2)},
    ("dq", "sm90"): {64: Tiles(64, 64, 4, 3), 128: Tiles(64, 64, 4, 2), 256: Tiles(64, 32, 4, 2)},
    ("dkdv", "sm90"): {64: Tiles(64, 64, 4, 3), 128: Tiles(64, 64, 4, 2), 256: Tiles(32, 64, 8, 2)},
    ("statistics", "sm90"): {128: Tiles(64, 64, 4, 2), 256: Tiles(32, 32, 4, 3)},
    ("few rows", "sm90"): {64: Tiles(16, 64, 1, 1), 128: Tiles(16, 128, 4, 1), 256: Tiles(16, 64, 4, 1)},
    ("forward", "sm80"): {64: Tiles(64, 64, 4, 3), 128: Tiles(128, 32, 8, 3), 256: Tiles(64, 32, 8, 2)},
    ("dq", "sm80"): {64: Tiles(64, 32, 4, 3), 128: Tiles(64, 64, 8, 2), 256: Tiles(32, 32, 4, 2)},
    ("dkdv", "sm80"): {64: Tiles(32, 64, 4, 3), 128: Tiles(32, 64, 4, 2), 256: Tiles(32, 32, 8, 2)},
    ("statistics", "sm80"): {128: Tiles(64, 64, 4, 2), 256: Tiles(32, 32, 4, 2)},
    ("few rows", "sm80"): {64: Tiles(16, 64, 1, 1), 128: Tiles(16, 128, 4, 1), 256: Tiles(16, 64, 4, 1)},
    ("forward", "small"): {64: Tiles(64, 32, 4, 2), 128: Tiles(64, 32, 4, 2), 256: Tiles(32, 32, 4, 1)},
    ("dq", "small"): {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 32, 4, 2), 256: Tiles(16, 16, 4, 1)},
    ("dkdv", "small"): {64: Tiles(32, 64, 4, 2), 128: Tiles(32, 32, 4, 2), 256: Tiles(16, 16, 4, 1)},
    ("statistics", "small"): {128: Tiles(64, 32, 4, 2), 256: Tiles(32, 32, 4, 1)},
    ("few rows", "small"): {64: Tiles(16, 64, 1, 1), 128: Tiles(16, 64, 4, 1), 256: Tiles(16, 32, 4, 1)},
}
"""Launch tables of the 16-bit types by kernel and device family; a head dim takes the first entry that holds it.

"few rows" is the statistics kernel for 16 rows or less: one tile of keys, so that no load waits for another.
"""

_FULL: dict[Kernel, dict[int, Tiles]] = {
    "forward": {64: Tiles(32, 32, 4, 2), 128: Tiles(16, 32, 4, 1), 256: Tiles(16, 16, 4, 1)},
    "dq": {64: Tiles(32, 32, 4, 2), 128: Tiles(16, 32, 4, 1), 256: Tiles(16, 16, 4, 1)},
    "dkdv": {64: Tiles(16, 32, 4, 2), 128: Tiles(16, 16, 4, 1), 256: Tiles(16, 16, 4, 1)},
    "statistics": {128: Tiles(32, 32, 4, 1), 256: Tiles(16, 32, 4, 1)},
    "few rows": {128: Tiles(16, 32, 4, 1), 256: Tiles(16, 32, 4, 1)},
}
"""Launch tables of float32, which runs on the FMA pipe everywhere."""


def family(found: tuple[int, int]) -> str:
    """Return which launch table serves a capability; "small" has about 100 KB of shared memory a program."""
    if found in ((9, 0), (10, 0), (10, 3), (11, 0)):
        return "sm90"
    return "sm80" if found in ((8, 0), (8, 7)) else "small"


def padded(head_dim: int) -> int:
    """Return the power of two, at least 16, that holds ``head_dim``."""
    return max(16, 1 << (head_dim - 1).bit_length())


def tiles(kernel: Kernel, found: tuple[int, int], dtype: torch.dtype, d_pad: int, tma: bool) -> Tiles:
    """Return the pinned launch of ``kernel``; without TMA, addresses take registers and large tiles would spill.

    tma: whether all tiles are moved by TMA; the mask's gradient, if it is stored by pairs, is not.
    """
    served = "sm80" if family(found) == "sm90" and kernel not in STATISTICS and not tma else family(found)
    table = _FULL[kernel] if dtype == torch.float32 else _HALF[kernel, served]
    return next(entry for most, entry in table.items() if d_pad <= most)


_SPLIT: dict[tuple[str, bool], dict[int, Tiles]] = {
    ("sm90", True): {128: Tiles(32, 128, 8, 3), 256: Tiles(32, 64, 8, 3)},
    ("sm90", False): {64: Tiles(64, 128, 4, 3), 128: Tiles(64, 64, 4, 3), 256: Tiles(32, 64, 8, 3)},
    ("sm80", True): {128: Tiles(32, 64, 4, 3), 256: Tiles(32, 64, 8, 2)},
    ("sm80", False): {128: Tiles(64, 64, 4, 3), 256: Tiles(32, 64, 8, 2)},
    ("small", True): {128: Tiles(32, 64, 4, 2), 256: Tiles(32, 32, 4, 2)},
    ("small", False): {128: Tiles(64, 64, 4, 2), 256: Tiles(32, 32, 4, 2)},
}
"""Launch tables of the split-key forward for the 16-bit types, by device family and whether a tile has few rows."""


def split_tiles(found: tuple[int, int], dtype: torch.dtype, d_pad: int, rows: int, masked: bool) -> Tiles:
    """Return the pinned launch of the split-key forward of ``rows`` packed rows; 16 rows or less take a tile of 16.

    masked: with a mask tensor, tiles have fewer keys and eight warps, so that nothing spills.
    """
    table = _FULL["forward"] if dtype == torch.float32 else _SPLIT[family(found), rows <= 32]
    entry = next(entry for most, entry in table.items() if d_pad <= most)
    if masked and dtype != torch.float32:
        entry = entry._replace(block_k=min(entry.block_k, 64 if d_pad <= 128 else 32), warps=8)
    return entry._replace(block_q=16) if rows <= 16 else entry
