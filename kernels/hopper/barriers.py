# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Barriers in shared memory: a phase of one ends when all arrivals, and all bytes that are expected, are in."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier


@gluon.jit
def barriers(NUMBER: gl.constexpr, ARRIVALS: gl.constexpr):
    """Return NUMBER barriers of ARRIVALS arrivals, initialised; other warps see them after a fence."""
    made = gl.allocate_shared_memory(gl.int64, [NUMBER, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(NUMBER):
        mbarrier.init(made.index(i), count=ARRIVALS)
    return made
