"""A device that is not here: Triton compiles for it, and nothing is launched."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction


class Device:
    """The part of a driver that Triton needs before it compiles; it caches by the number, one for each capability."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self.number = 10 * capability[0] + capability[1]
        self.target = GPUTarget("cuda", self.number, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.number

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(capability: tuple[int, int], compiled: list[Any]) -> None:
    """From now on let launches compile for a device of ``capability``, and append to ``compiled`` what they compile."""

    def launch(kernel, grid):
        return lambda *args, **kwargs: compiled.append(kernel.run(*args, grid=grid, warmup=True, **kwargs))

    triton.runtime.driver.set_active(Device(capability))
    JITFunction.__getitem__ = launch
