"""The differences of Gluon between the Triton releases that the kernels are written for, 3.6 to 3.9."""

from triton.experimental.gluon.language.nvidia.hopper import tma

load = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
"""(descriptor, coordinates, barrier, shared tile): start a TMA load. Newer releases keep the old name only to
say that it is gone."""
store = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global
"""(descriptor, coordinates, shared tile): start a TMA store."""
