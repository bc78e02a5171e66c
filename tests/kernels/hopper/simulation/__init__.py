"""Runs a Gluon kernel of the hopper backend on the CPU: its warp groups as threads, its barriers, copies and products.

It shows wrong indices, masks, phases, races and deadlocks; not wrong code generation.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from .language import hopper, language
from .machine import Descriptor, Pointer, program

__all__ = ["Launchable", "at", "descriptor", "load"]


@contextmanager
def _stand_ins() -> Iterator[None]:
    gluon, experimental, core = ModuleType("gluon"), ModuleType("experimental"), ModuleType("core")
    triton_core = ModuleType("core")
    core.__dict__["builtin"] = _jit
    triton_core.__dict__["_aggregate"] = lambda cls: cls
    gluon.__dict__.update(jit=_jit, language=language())
    experimental.__dict__["gluon"] = gluon
    path = "triton.experimental.gluon"
    fakes = {
        "triton": ModuleType("triton"),
        "triton.language": ModuleType("language"),
        "triton.language.core": triton_core,
        "triton.experimental": experimental,
        path: gluon,
        f"{path}.language": gluon.language,
        f"{path}.language._core": core,
        f"{path}.language.nvidia": ModuleType("nvidia"),
        f"{path}.language.nvidia.hopper": hopper(),
    }
    kept = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _jit(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return function or (lambda kernel: kernel)


def load(folder: Path, name: str) -> ModuleType:
    """Return module ``name`` of the package at ``folder``, written for Gluon, so that its kernels run here."""
    package = ModuleType(f"stabmon.kernels.simulated_{abs(hash(folder))}")  # its parent is the real one
    package.__path__ = [str(folder)]
    with _stand_ins():
        sys.modules[package.__name__] = package
        spec = importlib.util.find_spec(f"{package.__name__}.{name}")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def descriptor(tensor: Tensor, rows: int, columns: int) -> Descriptor:
    """Return what stands for the TMA descriptor of a tensor in tiles [rows, columns]."""
    return Descriptor(tensor, [1, 1, rows, columns])


def at(index: int, count: int) -> None:
    """Be program ``index`` of ``count``."""
    program.index, program.count = index, count
    program.products.clear()
    program.flights.clear()


class Launchable:
    """A module of simulated kernels that can be launched as ``kernel[grid](...)``, tensors standing for pointers."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> "_Kernel":
        return _Kernel(getattr(self._module, name))


class _Kernel:
    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def run(*arguments: Any, num_warps: int, enable_fp_fusion: bool, **constants: Any) -> None:
            given = [Pointer(x) if isinstance(x, Tensor) else x for x in arguments]
            for index in range(*grid):
                at(index, *grid)
                self._function(*given, **constants)

        return run
