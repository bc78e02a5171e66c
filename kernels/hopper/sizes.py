"""Sizes that hosts and kernels share."""

SLAB = 64
"""Rows of one consumer: the rows of one wgmma."""
WARPS = 4
"""Warps of one consumer."""
