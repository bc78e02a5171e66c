# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Barriers in shared memory: a phase of one ends when all arrivals, and all bytes that are expected, are in.

And what waits, or lets others go on, by other means of the hardware.
"""

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


@gluon.jit
def await_full(full, step, STAGES: gl.constexpr):
    """Wait until what ``step`` uses of a ring of STAGES buffers is there."""
    mbarrier.wait(full.index(step & (STAGES - 1)), (step & STAGES) // STAGES)


@gluon.jit
def await_empty(empty, step, STAGES: gl.constexpr):
    """Wait until the buffer that ``step`` uses of a ring of STAGES is free."""
    mbarrier.wait(empty.index(step & (STAGES - 1)), ((step & STAGES) // STAGES) ^ 1)


TURNS = 8
"""The first of the hardware's sixteen barriers that Triton leaves alone."""
AWAIT = gl.constexpr(tuple(f"bar.sync {TURNS + c}, 256; mov.b32 $0, $1;" for c in range(4)))
PASS = gl.constexpr(tuple(f"bar.arrive {TURNS + c}, 256; mov.b32 $0, $1;" for c in range(4)))


@gluon.jit
def await_turn(step, ME: gl.constexpr):
    """Let consumer ME go on once the one before it has passed its turn on; step: any number, which keeps the place.

    Consumers that start their products in turn do not compute their weights all at once: while one multiplies, the
    others keep the special functions busy. A product with an operand in registers holds its warp until that is read.
    """
    gl.inline_asm_elementwise(AWAIT[ME], "=r,r", [step], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def pass_turn(step, ME: gl.constexpr, CONSUMERS: gl.constexpr):
    """Give the turn to the consumer after ME, the first after the last; the last one gives it away before it begins."""
    gl.inline_asm_elementwise(PASS[(ME + 1) % CONSUMERS], "=r,r", [step], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def release_next_kernel(number):
    """Let the next kernel of the stream begin when all programs have come here; number: any, which keeps the place."""
    gl.inline_asm_elementwise(
        "griddepcontrol.launch_dependents; mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1
    )
