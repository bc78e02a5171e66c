"""The attentions of a model, found by running it once: every call of attention, with the module that made it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from stabmon import doors
from stabmon.batch import run
from stabmon.discover.call import AttentionCall, seen_call, seen_multihead
from stabmon.discover.describe import describe
from stabmon.discover.lineage import Lineage, Residual
from stabmon.discover.points import Points
from stabmon.discover.site import Found
from stabmon.discover.undisturbed import undisturbed
from stabmon.kernels import AuxRequest, observe
from stabmon.names import own_name
from stabmon.records import NormInput
from stabmon.stats.multihead import is_multihead


def scan(
    called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, model: nn.Module | None = None
) -> Found:
    """Return the attentions in the order in which a pass through ``called`` with ``args`` and ``kwargs`` runs them.

    The pass runs in eval mode without gradients. Weights, buffers, plain attributes of modules and all random state are
    as before afterwards.

    Args:
        called: the module that is called.
        args: its arguments.
        kwargs: its keyword arguments.
        model: the model that ``called`` is a part of, or that is a part of ``called``: what is found is within both and
            named by its paths. ``called`` by default.

    Raises:
        ModelError: the model does not take these inputs.
    """
    whole = called if model is None else model
    there = -1
    while there != doors.count():  # a pass may import the very function that it calls
        there = doors.count()
        pass_ = _Pass(whole, called)
        with undisturbed(called), pass_.observed():
            run(called, args, kwargs)
    found = describe(whole, called, pass_.seen, pass_.points, pass_.notes())
    return found._replace(small_norms=pass_.small_norms())


class _Pass:
    """The observer of attention calls in one pass, and the target of hooks on every module."""

    def __init__(self, model: nn.Module, called: nn.Module) -> None:
        self.model = model
        self._parts = set(called.modules())
        self.seen: list[AttentionCall] = []
        self.points = Points()
        self._lineage = Lineage(self._inside, self._joined)
        self._refused: list[str] = []
        self._running: list[tuple[nn.Module, str, int]] = []

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Observe a pass that runs in the block."""
        with ExitStack() as stack:
            for name, module in self.model.named_modules():
                if module not in self._parts:
                    continue
                enter, leave = partial(self._enter, name), partial(self._leave, name)
                for handle in (
                    module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True),
                    module.register_forward_hook(leave, with_kwargs=True, always_call=True),
                ):
                    stack.callback(handle.remove)
            doors.open_all()
            stack.callback(doors.close_all)
            stack.callback(observe.swap, observe.swap(self))
            stack.enter_context(self._lineage)
            yield

    def small_norms(self) -> tuple[NormInput, ...]:
        """Return the norms whose input was within their eps."""
        norms = self._lineage.norms
        return () if norms is None else norms.small()

    def notes(self) -> tuple[str, ...]:
        """Return in words what was seen that is no attention call stabmon knows."""
        known = {one.module_name for one in self.seen}
        notes = {
            f"{own_name(one.module) or type(self.model).__name__} computes {one.kind} weights of shape "
            f"{list(one.shape)} itself, which stabmon cannot read; call "
            f'stabmon.record_attention(query, key, output, kind="{one.kind}") there'
            for one in self._lineage.written_out
            if one.module not in known
        }
        failure = self._lineage.failure
        if failure is not None:
            notes.add(f"residual streams and branches were not found: {type(failure).__name__}: {failure}")
        return (*dict.fromkeys(self._refused), *sorted(notes))

    def request(self, query: Tensor, key: Tensor) -> AuxRequest | None:
        """Request no statistics."""
        return None

    def record(self, call: observe.Call) -> None:
        """Note an attention call of the innermost module that runs."""
        module = self._running[-1][0] if self._running else None  # None: of a part that is not watched
        if module is not None and not is_multihead(module):  # that is seen whole, at its end
            self._note(seen_call(module, self._stack(), call, qk_norm=self._lineage.has_qk_norm(call.problem.query)))

    def show(self, made: Callable[..., observe.Call], *args: Any, **kwargs: Any) -> None:
        """Note another function's call, as ``made`` describes it."""
        if not self._running or is_multihead(self._running[-1][0]):
            return
        try:
            call = made(*args, **kwargs)
        except Exception as error:  # the function itself took these arguments
            self._refused.append(f"{self._running[-1][1]}: an attention call cannot be read: {error}")
        else:
            self.record(call)

    def _note(self, seen: AttentionCall) -> None:
        self._lineage.begin(len(self.seen), seen.query, seen.output, seen.module_name)
        self.seen.append(seen.forgotten())

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._running.append((module, name, self.points.enter(module, name, args, kwargs)))
        self._lineage.quiet += is_multihead(module)

    def _leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if is_multihead(module):
            self._lineage.quiet -= 1
            if output is not None:
                self._note(seen_multihead(module, self._stack(), args, kwargs, output))
        _, _, call = self._running.pop()
        self.points.leave(module, name, call, output)

    def _inside(self) -> str:
        return self._running[-1][1] if self._running else ""

    def _stack(self) -> tuple[str, ...]:
        return tuple(name for _, name, _ in self._running)

    def _joined(self, call: int, residual: Residual) -> None:
        seen = self.seen[call]
        seen.added_in = self._stack()
        seen.branch_is_output = residual.is_output
        seen.hybrid_norm, seen.gain = residual.hybrid_norm, residual.gain
        seen.stream, seen.branch = self.points.of(residual.stream), self.points.of(residual.branch)
