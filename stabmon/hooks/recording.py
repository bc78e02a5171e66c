"""State shared by all hooks of a monitor: the buffer they write to, and whether this step and this pass count."""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from stabmon.failures import Failures
from stabmon.kernels import AuxRequest
from stabmon.metrics import RAW, Per
from stabmon.stats import Plan
from stabmon.stats.deferred_writer import DeferredWriter
from stabmon.stats.direct_writer import DirectWriter
from stabmon.stats.writer import Writer

ROWS_A_SEQUENCE = 16
"""Query rows that are read of a sequence, on the CPU, before another sequence is."""


class Recording:
    """The open step of a monitor.

    buffer: [plan.width] float32 on the model's device, written through ``writer``, whole after ``flush``, reset to
        ``initial`` after a recorded step.
    active: whether the open step is recorded.
    begun: whether a training pass has run since the last optimizer step: forward with gradients, or backward.
    in_eval: whether the training runs in eval mode, as its backward passes show.
    at_begin: called when a pass through the whole model, or the first one through a part, begins in a recorded step.
    offset: where in its stratum each sampled row lies.
    seconds: time that guarded code took on the training thread.
    traced: whether torch.compile took hooks into a graph, where their time cannot be separated from the model's.
    graphed: whether a graph writes, of torch.compile or of CUDA.
    ended: whether an optimizer's step within a graph has ended the open step; ``finish_step`` does what is left to do.
    missed: whether a pass within a graph began before that was done, so that it could not be recorded.
    """

    def __init__(self, plan: Plan, device: torch.device, rows: int, failures: Failures | None = None) -> None:
        self._lay(plan, device)
        self.rows = rows
        self.active = False
        self.begun = self.in_eval = False
        self.at_begin: Callable[[], None] | None = None
        self._beginning = Guarded("the beginning of a step")
        self.offset = 0.5
        self.seconds = 0.0
        self.traced = self.graphed = self.ended = self.missed = False
        self.finish_step: Callable[[], None] | None = None
        self.failures = Failures() if failures is None else failures

    def _lay(self, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        self.initial = torch.tensor(plan.initial, device=device)
        self.buffer = self.initial.clone()
        self._deferred, self._direct = DeferredWriter(plan, self.buffer), DirectWriter(plan, self.buffer)

    def lay_anew(self, plan: Plan, device: torch.device) -> None:
        """Replace the plan and the buffer; numbers of the open step that both plans have are kept.

        Hooks that were attached before write to slots of the old buffer: attach them again.
        """
        self.flush()
        before, numbers = _places(self.plan), self.buffer
        self._lay(plan, device)
        for name, at in _places(plan).items():
            old = before.get(name)
            if old is not None and old.stop - old.start == at.stop - at.start:
                self.buffer[at].copy_(numbers[old])

    @property
    def gradient_norms(self) -> list[slice]:
        """Return where the buffer holds gradient norms."""
        of_blocks = {slots["gradient_norm"].start: slots["gradient_norm"] for slots in self.plan.slots}
        return [*of_blocks.values(), self.plan.of_run("other_gradient_norm")]

    @property
    def writer(self) -> Writer:
        """The way into the buffer: through cells where a graph is traced or captured, else deferred."""
        if torch.compiler.is_compiling() or (self.buffer.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.graphed = True
            return self._direct
        return self._deferred

    def flush(self) -> None:
        """Bring what is deferred to the buffer: the open step is over."""
        self._deferred.flush()
        if self.graphed:
            self._direct.flush()

    def counts(self, module: nn.Module) -> bool:
        """Return whether this pass through ``module`` is to be recorded.

        Passes in eval mode or without gradients are not. A recomputation under activation checkpointing is not either,
        except in the reentrant form, whose first pass runs without gradients.
        """
        if not module.training or not torch.is_grad_enabled():
            return False
        if self.ended:
            if torch.compiler.is_compiling():
                self.missed = True
                return False
            if self.finish_step is not None:
                self.finish_step()
        if torch.compiler.is_compiling():
            self.begun = True
            return self.active
        if is_transformed():
            return False
        if not self.begun:
            self.begin()
        return self.active and (torch._C._current_graph_task_id() == -1 or _in_reentrant_checkpoint())

    def begin(self) -> None:
        """Note, outside of graphs, that a training pass begins."""
        self.begun = True
        if self.at_begin is not None and self.active:
            self.guard(self._beginning, self.at_begin)

    def request(self, batch: int) -> AuxRequest:
        """Return which rows to sample of each of ``batch`` sequences; a compiled graph keeps to strata's middles."""
        offset = 0.5 if torch.compiler.is_compiling() else self.offset
        return AuxRequest(rows=max(1, -(-self.rows // batch)), offset=offset)

    def reading(self, batch: int) -> tuple[slice, AuxRequest]:
        """Return which sequences of a batch are read on the CPU, and which rows of each of them.

        A sequence costs a pass over its keys, so each that is read gives ``ROWS_A_SEQUENCE`` rows; they take turns.
        """
        sequences = min(batch, -(-self.rows // ROWS_A_SEQUENCE))
        apart, offset = batch // sequences, self.request(batch).offset
        return slice(int(offset * apart), None, apart), AuxRequest(rows=-(-self.rows // sequences), offset=offset)

    def guard(self, owner: "Guarded", action: Callable[..., None], *given: Any) -> None:
        """Run ``action`` unless ``owner`` is switched off; time it, and if it fails report it and switch it off."""
        if not owner.enabled:
            return
        if torch.compiler.is_compiling():
            self.traced = True
            with torch.no_grad():
                action(*given)
            return
        began = time.perf_counter()
        try:
            with torch.no_grad():
                action(*given)
        except Exception as error:  # a monitor must never stop a training
            owner.enabled = False
            self.fail(owner.name, f"{type(error).__name__}: {error}")
        finally:
            self.seconds += time.perf_counter() - began

    def fail(self, subject: str, reason: str) -> None:
        """Report a failure of stabmon's own; the training goes on without what failed."""
        self.failures.add(subject, reason, "It is not recorded any more; the training goes on.", level=logging.ERROR)


def is_transformed() -> bool:
    """Return whether this pass is one of torch.func, fake tensors or tracing, whose tensors hold no numbers to read."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
        or torch._C._get_tracing_state() is not None
    )


def _places(plan: Plan) -> dict[tuple[str, str], slice]:
    """Return where each raw input is, by the module of its attention ("" for the run and "log" for logged numbers)."""
    of_run = {("", raw.name): plan.of_run(raw.name) for raw in RAW.values() if raw.per is Per.RUN}
    of_attention = {
        (attention.module, name): at
        for attention, slots in zip(plan.attentions, plan.slots, strict=True)
        for name, at in slots.slices.items()
    }
    return of_run | of_attention | {("log", name): at for name, at in plan.logged.items()}


class Guarded:
    """Something that ``Recording.guard`` can switch off."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.enabled = True


def _in_reentrant_checkpoint() -> bool:
    node = torch._C._current_autograd_node()
    return node is not None and "Checkpoint" in node.name()
