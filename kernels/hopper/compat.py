# mypy: disable-error-code="untyped-decorator"
"""The differences of Gluon between the Triton releases that the kernels are written for, 3.6 to 3.9."""

from typing import Any, TypeVar, dataclass_transform

from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._core import builtin
from triton.experimental.gluon.language.nvidia.hopper import tma
from triton.language.core import _aggregate

T = TypeVar("T", bound=type)

load = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
"""(descriptor, coordinates, barrier, shared tile): start a TMA load. Newer releases keep the old name only to
say that it is gone."""
store = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global
"""(descriptor, coordinates, shared tile): start a TMA store."""

barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier
"""(): wait for all threads of the warp group, and for what they did to shared memory."""


@builtin
def _reduce_add(descriptor: Any, coordinates: Any, tile: Any, _semantic: Any = None) -> None:
    """Do what ``tma.async_atomic_add`` does, for releases whose compiler knows it and whose language does not."""
    from triton._C.libtriton import ir

    at = _semantic._convert_to_ir_values(coordinates, require_i64=False)
    _semantic.builder.create_async_tma_reduce(ir.DESCRIPTOR_REDUCE_KIND.ADD, descriptor.handle, at, tile.handle)


add = tma.async_atomic_add if hasattr(tma, "async_atomic_add") else _reduce_add
"""(descriptor, coordinates, shared tile): start a TMA store that adds to what is there."""


@dataclass_transform()
def aggregate(cls: T) -> T:
    """Return ``cls`` as a named tuple of kernels, made of the values of its annotated fields in their order.

    Newer releases write such a constructor themselves, and all of them keep their aggregates private.
    """
    names = tuple(cls.__annotations__)

    def build(self: object, *values: Any) -> None:
        for name, value in zip(names, values, strict=True):
            setattr(self, name, value)

    build.__dict__["__triton_builtin__"] = True  # the compiler may call it, and need not hash its source
    cls.__init__ = build  # type: ignore[misc]
    made: T = _aggregate(cls)
    return made
