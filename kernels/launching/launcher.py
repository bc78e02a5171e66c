"""One kernel with all of its arguments but tensors and factors, launched with little work on the host.

``kernel[grid](...)`` looks at every argument of every call to find the compiled kernel. A ``Launcher`` holds the whole
numbers and constants, so only what Triton asks of a pointer is left to look at: its type, and whether its address is
a multiple of 16. The first launch is ``kernel[grid](...)``, which says which compiled kernel it took; later ones
call that kernel as Triton's tutorials do, ``compiled[grid](...)``. Triton's own settings (``TRITON_DEBUG``) count as
they are at the first launch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import releases

Describe = Callable[[Tensor], Any]
"""Builds the TMA descriptor of a tensor."""


class Launcher:
    """A kernel whose parameters are tensors, numbers, factors, and what it is compiled for, in this order.

    kernel: a function under ``triton.jit``.
    grid: programs along one to three dimensions.
    operands: for each tensor how its descriptor is built, or None where the kernel takes a pointer.
    numbers: whole numbers, each of which Triton may compile for.
    constants: what the kernel is compiled for by name, and the compiler's options.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        operands: Sequence[Describe | None],
        numbers: Sequence[int],
        constants: dict[str, Any],
    ) -> None:
        self._kernel, self._grid, self._operands, self._numbers = kernel, grid, operands, numbers
        self._constants = constants
        self._blocks = (*grid, 1, 1)[:3]
        self._pointers = tuple(index for index, describe in enumerate(operands) if describe is None)
        self._templates: list[tuple[int, type, dict[str, Any]]] = []
        self._rest: tuple[Any, ...] = ()
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def __call__(self, tensors: Sequence[Tensor | None], *factors: float) -> None:
        """Launch on the current stream of the tensors' device.

        tensors: of the layouts that the launcher was made for.
        factors: floats, and whole numbers of 32 bits that the kernel does not specialise.
        """
        device = tensors[0].device  # type: ignore[union-attr]
        if device.index is None or device.index == torch.cuda.current_device():
            self._launch(tensors, factors)
        else:
            with torch.cuda.device(device):
                self._launch(tensors, factors)

    def _launch(self, tensors: Sequence[Tensor | None], factors: tuple[float, ...]) -> None:
        specialised = tuple([
            None if (tensor := tensors[index]) is None else (tensor.dtype, tensor.data_ptr() % 16 == 0)
            for index in self._pointers
        ])  # fmt: skip
        compiled = self._compiled.get(specialised)
        if compiled is None or self._kernel.pre_run_hooks:
            self._launch_by_name(specialised, tensors, factors)
            return
        operands: list[Any] = list(tensors)
        for index, kind, fields in self._templates:
            descriptor: Any = object.__new__(kind)
            descriptor.__dict__.update(fields, base=tensors[index])
            operands[index] = descriptor
        compiled[self._blocks](*operands, *self._numbers, *factors, *self._rest)

    def _launch_by_name(
        self, specialised: tuple[Any, ...], tensors: Sequence[Tensor | None], factors: tuple[float, ...]
    ) -> None:
        pairs = zip(tensors, self._operands, strict=True)
        operands = [x if describe is None or x is None else describe(x) for x, describe in pairs]
        compiled = self._kernel[self._grid](*operands, *self._numbers, *factors, **self._constants)
        if not _is_known(compiled):
            return
        self._templates = [
            (index, type(operands[index]), {k: v for k, v in vars(operands[index]).items() if k != "base"})
            for index, describe in enumerate(self._operands) if describe is not None
        ]  # fmt: skip
        given = len(operands) + len(self._numbers) + len(factors)
        self._rest = tuple(self._constants[name] for name in [*self._kernel.signature.parameters][given:])
        self._compiled[specialised] = compiled


def _is_known(compiled: object) -> bool:
    """Return whether a launch gave a compiled kernel of a supported release; the interpreter gives none."""
    if not releases.is_supported():
        return False
    from triton.compiler import CompiledKernel

    return isinstance(compiled, CompiledKernel)
