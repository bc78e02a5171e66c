"""The rank of this process, known before torch.distributed is initialised where a launcher says it."""

import os

from torch import distributed

LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
"""Variables in which torchrun, Slurm, Open MPI and MPICH say the rank and the number of processes."""


def is_initialised() -> bool:
    """Return whether torch.distributed has a process group."""
    return distributed.is_available() and distributed.is_initialized()


def processes() -> int:
    """Return the number of processes of torch.distributed's default group, 1 without one."""
    return distributed.get_world_size() if is_initialised() else 1


def rank() -> int:
    """Return this process's rank: torch.distributed's, before it is initialised the launcher's, else 0."""
    if is_initialised():
        return distributed.get_rank()
    for own, size in LAUNCHERS:
        if _number(size) > 1:
            return max(_number(own), 0)
    return 0


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else -1
