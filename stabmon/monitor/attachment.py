"""The hooks of a monitor on its model: put on, taken off, and laid anew for what each first pass shows."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

from torch import nn
from torch.amp import GradScaler

from stabmon.discover import Found, Site, scan
from stabmon.discover.nothing import nothing_found
from stabmon.distributed import Exchange, Meeting, Own
from stabmon.distributed.own import identity
from stabmon.distributed.shards import Stored
from stabmon.errors import ModelError, StabmonError
from stabmon.hooks import GradientNorms, Recording, attach, gradient_norms
from stabmon.hooks.hook import BeginHook
from stabmon.hooks.keys import rekeyed
from stabmon.hooks.recording import Guarded
from stabmon.monitor.arrivals import Seen
from stabmon.monitor.new_run import device_of
from stabmon.monitor.trigger import Trigger
from stabmon.names import own_name
from stabmon.records import NormInput
from stabmon.stats import Plan

P = ParamSpec("P")


class Attachment:
    """Everything that a monitor puts on ``model``.

    began: called when the first gradient of a backward pass arrives.
    map: the attentions that were found so far.
    """

    def __init__(
        self,
        model: nn.Module,
        recording: Recording,
        began: Callable[[], None],
        *,
        scaler: GradScaler | None,
        optimizer: bool,
    ) -> None:
        self.model = model
        self.map = Found(()).map_of(model)
        self._sites: list[Site] = []
        self._norms: dict[str, NormInput] = {}
        self._meeting = Meeting()
        self._alone_with_shards = False
        self._recording, self._began = recording, weakly(began)
        self._scaler, self._optimizer = scaler, optimizer
        self._trigger = Trigger(model, weakly(self._first_pass))
        self._waits = True
        self._gradients: GradientNorms | None = None
        self._handles: list[Any] = []
        self._refusal: str | None = None
        self._looking = Guarded("looking for attention")

    def put_on(self) -> None:
        """Put all hooks on."""
        self._handles.append(rekeyed(self.model.register_forward_pre_hook(BeginHook(self._recording))))
        self._handles += attach(self._recording, self._sites)
        self._gradients = gradient_norms(self.model, self._recording, self._sites, self._scaler, self._began)
        self._gradients.enabled = not self._alone_with_shards
        self._gradients.refresh()
        self._recording.at_begin = weakly(self._gradients.refresh)
        self._handles.append(self._gradients)
        if self._waits:
            self._trigger.arm()

    def take_off(self) -> None:
        """Take all hooks off."""
        self._trigger.disarm()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def look(self, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Add the attentions that run when ``called``, the model or a part of it, is given these arguments.

        Plan, buffer and hooks are made anew for them; the numbers of the open step are kept.

        Raises:
            ModelError: no attention has been found so far, or ``called`` does not take the arguments; or it is sharded
                and not watched by all processes, so that a pass of this one alone would wait for them for ever.
        """
        if self._meeting.expected and Stored(self.model).sharded and not self._meeting.together():
            raise ModelError(f"no pass was made to look for it: {self._meeting.refusal}")
        found = scan(called, args, kwargs, model=self.model)
        for note in found.notes:
            subject, _, reason = note.partition(": ")
            self._recording.failures.add(*((subject, reason) if reason else ("looking for attention", note)))
        known = {site.attention.layer for site in self._sites}
        new = [site for site in found.sites if site.attention.layer not in known]
        if not new:
            if not known:
                raise ModelError(nothing_found(called, found))
            return
        self._sites += new
        self._norms |= {norm.module: norm for norm in found.small_norms}
        self.map = Found(tuple(self._sites), small_norms=tuple(self._norms.values())).map_of(self.model)
        self.take_off()
        logged = tuple(self._recording.plan.logged)
        plan = Plan(self.map.attentions, logged, optimizer=self._optimizer)
        self._recording.lay_anew(plan, device_of(self.model))
        self.put_on()

    def refresh(self) -> None:
        """See parameters that were added, replaced, frozen or unfrozen; outside of graphs the next pass does."""
        if self._gradients is not None:
            self._gradients.refresh()

    def end_search(self) -> None:
        """Look for attention no more: the run begins."""
        self._waits = False
        self._trigger.disarm()

    def meet(self, step: int) -> Exchange | None:
        """Return the exchange with the monitors of all other processes, at ``step``, or None where there is none.

        Without one the numbers are those of this process, and norms of what is sharded are left out.
        """
        meeting, failures = self._meeting, self._recording.failures
        messages = meeting.exchange(self._own(step).model_dump_json())
        if messages is not None:
            together = Exchange(meeting, [Own.model_validate_json(message) for message in messages], failures)
            found = {"attentions": together.map.attentions, "parameters": together.map.parameters}
            self.map = self.map.model_copy(update=found)
            return together
        if meeting.expected:
            advice = "recorded are the numbers of this rank alone; call watch on every rank"
            failures.report("several processes", meeting.refusal or "they do not record together", advice)
            if Stored(self.model).sharded:
                self._leave_norms_out()
        return None

    def _own(self, step: int) -> Own:
        stored, blocks = Stored(self.model), tuple(f"{site.attention.block}." for site in self._sites)
        names = [name for full, _ in self.model.named_parameters() if not (name := own_name(full)).startswith(blocks)]
        return Own(
            attentions=self._recording.plan.attentions,
            heads=tuple(stored.heads(site.module) for site in self._sites),
            logged=tuple(self._recording.plan.logged),
            optimizer=self._optimizer,
            sharded=stored.sharded,
            others=identity(names),
            step=step,
            parameters=self.map.parameters,
        )

    def _leave_norms_out(self) -> None:
        self._alone_with_shards = True
        if self._gradients is not None:
            self._gradients.enabled = False
        for at in self._recording.gradient_norms:
            self._recording.buffer[at] = self._recording.initial[at]
        self._recording.failures.report("gradient norms", "this process has only its own shards", "they are left out")

    @property
    def seen(self) -> Seen:
        """Facts that were seen of the model so far."""
        return Seen(
            type(self.model).__name__,
            self._trigger.fired,
            self._trigger.others,
            {site.attention.layer: site.module.training for site in self._sites},
            None if self._sites else self._refusal,
        )

    def _first_pass(self, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Look before the user's pass goes on; why it failed is said at the end of the step."""
        self._recording.guard(self._looking, self._try_to_look, called, args, kwargs)

    def _try_to_look(self, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        try:
            self.look(called, args, kwargs)
        except Exception as error:  # whatever the model raises in this pass, it is the user's own pass that may say so
            self._refusal = str(error) if isinstance(error, StabmonError) else f"{type(error).__name__}: {error}"


def weakly(method: Callable[P, None]) -> Callable[P, None]:
    """Return a call of a bound ``method`` that does not keep its object alive.

    In a cycle of references a forgotten monitor would be collected late, when torch's handles cannot remove hooks any
    more: Python clears the weak references that are part of it first.
    """
    reference = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        bound = reference()
        if bound is not None:
            bound(*args, **kwargs)

    return call
