"""Gradient norms of each block and of the rest, after each backward pass and before anything clips them."""

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.autograd import Variable

from stabmon.distributed.shards import Part, Stored, fsdp_modules
from stabmon.hooks.backward import BackwardHook
from stabmon.hooks.keys import rekeyed
from stabmon.hooks.recording import Guarded, Recording
from stabmon.hooks.uncompiled import uncompiled

Groups = list[tuple[slice, list[nn.Parameter]]]
"""The element of each norm, and the parameters whose gradients it is of."""


class GradientNorms(Guarded):
    """Computes the norms in a callback that runs when the backward pass is over.

    A hook on each parameter only notes that its group has new gradients. Under gradient accumulation the last pass
    stays, which sees the sum. Gradients scaled by ``scaler`` are divided by its scale, on the device. ``began`` is
    called at the first gradient of a pass. ``groups`` is called again when a parameter of ``model`` has been added,
    replaced, frozen or unfrozen. Of a parameter that is sharded over processes the norm is this process's estimate of
    the whole one (``stabmon.distributed.shards``).
    """

    def __init__(
        self,
        recording: Recording,
        model: nn.Module,
        groups: Callable[[Stored], Groups],
        scaler: GradScaler | None,
        began: Callable[[], None],
    ) -> None:
        super().__init__("gradient norms")
        self.recording = recording
        self.scaler = scaler
        self._model, self._grouped, self._began = model, groups, began
        self._groups: Groups = []
        self._known: list[tuple[int, bool]] | None = None
        self._stored: Stored | None = None
        self._handles: list[Any] = []
        self._changed: set[int] = set()
        self._tables: dict[tuple[tuple[int, int], ...], tuple[Tensor, Tensor]] = {}
        self._task = -1

    def refresh(self) -> None:
        """Put a hook on every parameter that trains now, unless they are the same as before."""
        stored = Stored(self._model)
        now = [(id(p), p.requires_grad) for p in stored.of(self._model)]
        if now == self._known:
            return
        self.remove()
        self._known, self._stored = now, stored
        self._groups = self._grouped(stored)  # which keeps the parameters, so that no identity comes again
        self._handles = [
            parameter.register_post_accumulate_grad_hook(_Note(self, index))  # type: ignore[no-untyped-call]
            for index, (_, parameters) in enumerate(self._groups)
            for parameter in parameters
        ]
        began = BackwardHook(_NoteAll(self))
        self._handles += [rekeyed(module.register_forward_hook(began)) for module in fsdp_modules(self._model)]

    def remove(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._known = [], None

    def note(self, index: int) -> None:
        """Note that group ``index`` has new gradients, and request a callback at the end of this backward pass."""
        if index not in self._changed or torch._C._current_graph_task_id() != self._task:
            self._note({index})

    def note_all(self) -> None:
        """Note that a backward pass brings gradients whose parameters' own hooks are not called."""
        if not self.recording.begun:
            self.recording.begun = self.recording.in_eval = True
        if self.recording.active:
            self._note(set(range(len(self._groups))))

    def _note(self, groups: set[int]) -> None:
        self._changed |= groups
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            self._began()
            Variable._execution_engine.queue_callback(self._queue_last)

    @uncompiled
    def _queue_last(self) -> None:
        """Move to the end of the callbacks: DDP's own, which waits for the averaged gradients, must have run."""
        Variable._execution_engine.queue_callback(self._end)

    @uncompiled
    def _end(self) -> None:
        self._task = -1
        if self._changed and self.enabled and self.recording.active:
            self.recording.guard(self, self._write)
        self._changed.clear()

    def _write(self) -> None:
        assert self._stored is not None
        groups = [self._groups[index] for index in sorted(self._changed)]
        found = [(at, parts) for at, parameters in groups if (parts := _parts(self._stored, parameters))]
        if not found:  # an optimizer inside the backward pass has freed them
            return
        norms = _norms([part for _, group in found for part in group])
        table, elements = self._table(tuple((at.start, len(group)) for at, group in found))
        # A row for each group; 0 fills it up.
        each = torch.stack([*norms, norms[0].new_zeros(())])[table]
        total = torch.linalg.vector_norm(each, dim=1)
        if self.scaler is not None and self.scaler.is_enabled():
            total /= self.scaler._get_scale_async()
        self.recording.buffer.index_copy_(0, elements, total)

    def _table(self, groups: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
        """Return the norms of each group of (element, size), [groups, largest size], and the elements [groups]."""
        if groups not in self._tables:
            last = sum(size for _, size in groups)
            table = torch.full((len(groups), max(size for _, size in groups)), last)
            first = 0
            for row, (_, size) in enumerate(groups):
                table[row, :size] = torch.arange(first, first + size)
                first += size
            elements = torch.tensor([element for element, _ in groups])
            device = self.recording.buffer.device
            self._tables[groups] = table.to(device), elements.to(device)
        return self._tables[groups]


class _Note:
    """The hook of one parameter; plain, so that nothing is copied or pickled with the parameter.

    The norms, which hold all parameters, are referred to weakly: the collector does not see through a parameter's
    hooks, and a model that is forgotten with its monitor would be kept for ever.
    """

    def __init__(self, norms: GradientNorms, index: int) -> None:
        self.norms, self.index = weakref.ref(norms), index

    @uncompiled
    def __call__(self, parameter: Tensor) -> None:
        """Note the parameter's group on steps that are recorded."""
        norms = self.norms()
        if norms is None:
            return
        if not norms.recording.begun:  # by a pass that does not count otherwise
            norms.recording.begun = norms.recording.in_eval = True
        if norms.recording.active:
            norms.note(self.index)


class _NoteAll:
    """Called at the beginning of a backward pass through a module that FSDP shards; keeps the norms weakly."""

    def __init__(self, norms: GradientNorms) -> None:
        self.norms = weakref.ref(norms)

    def __call__(self) -> None:
        norms = self.norms()
        if norms is not None:
            norms.note_all()


def _norms(parts: list[Part]) -> list[Tensor]:
    """Return the estimate of the L2 norm of each gradient, float32; those of float64 are accumulated in float64."""
    gradients = [part.tensor for part in parts]
    wide = torch.float64 in {gradient.dtype for gradient in gradients}
    norms: list[Tensor] = list(torch._foreach_norm(gradients, 2, torch.float64 if wide else torch.float32))
    if max(part.shards for part in parts) > 1:
        norms = list(torch._foreach_mul(norms, [math.sqrt(part.shards) for part in parts]))
    return [norm.float() for norm in norms] if wide else norms


def _parts(stored: Stored, parameters: list[nn.Parameter]) -> list[Part]:
    return [_dense(part) for parameter in parameters if (part := stored.part(parameter)) is not None]


def _dense(part: Part) -> Part:
    if not (part.tensor.is_sparse or part.tensor.is_complex()):
        return part
    tensor = part.tensor.coalesce().values() if part.tensor.is_sparse else part.tensor
    return part._replace(tensor=torch.view_as_real(tensor) if tensor.is_complex() else tensor)
