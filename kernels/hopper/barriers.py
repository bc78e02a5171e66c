# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Barriers in shared memory, whose phase ends with its last arrival and last expected byte, and named barriers."""

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


FIRST = 8
"""The first of the hardware's sixteen named barriers that Triton leaves alone."""
SYNC = gl.constexpr(tuple(f"bar.sync {FIRST + c}, 256; mov.b32 $0, $1;" for c in range(4)))
ARRIVE = gl.constexpr(tuple(f"bar.arrive {FIRST + c}, 256; mov.b32 $0, $1;" for c in range(4)))


@gluon.jit
def ping_pong_wait(step, ME: gl.constexpr):
    """Let consumer ME go on once the one before it has arrived; step: any number, which keeps the position in the code.

    Consumers that start their products one after the other do not compute their weights all at once: while one
    multiplies, the others keep the special functions busy. A product with an operand in registers holds its warp until
    that is read.
    """
    gl.inline_asm_elementwise(SYNC[ME], "=r,r", [step], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def ping_pong_arrive(step, ME: gl.constexpr, CONSUMERS: gl.constexpr):
    """Let the consumer after ME go on, the first after the last; the last one arrives once before it begins."""
    gl.inline_asm_elementwise(ARRIVE[(ME + 1) % CONSUMERS], "=r,r", [step], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def release_next_kernel(number):
    """Let the stream's next kernel begin when all programs have arrived here; number: any, which keeps the position."""
    gl.inline_asm_elementwise(
        "griddepcontrol.launch_dependents; mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1
    )
