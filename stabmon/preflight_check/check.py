"""``preflight``: one forward pass, no training, and the model is left as it was."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from stabmon.batch import Batch, arguments, run
from stabmon.discover import Found, scan
from stabmon.discover.nothing import nothing_found
from stabmon.discover.undisturbed import undisturbed
from stabmon.errors import ModelError
from stabmon.hooks import Recording, attach
from stabmon.hooks.forward import CallObserver
from stabmon.hooks.recording import Guarded
from stabmon.kernels import observe
from stabmon.kernels.problem import Problem
from stabmon.metrics import METRICS, Shown
from stabmon.monitor import new_run
from stabmon.monitor.arguments import check_model
from stabmon.monitor.watched import refuse_compiled
from stabmon.names import span
from stabmon.nn.self_attention import SelfAttention
from stabmon.preflight_check.jacobian import jacobian_bound
from stabmon.preflight_check.report import LayerReport, PreflightReport
from stabmon.preflight_check.sweep import of_inputs, of_tokens, sweep
from stabmon.preflight_check.sweep_report import LengthReport
from stabmon.preflight_check.twin import best_bias, softmax_square_sum
from stabmon.records import ModelMap, RunInfo
from stabmon.series import Floats, Layout, over_heads
from stabmon.stats import Plan, Slots, finalise

if TYPE_CHECKING:
    from stabmon.rules import Limits, Rule

ROWS = 256
"""Query rows a head over the batch whose logits are read."""
SEQUENCES = 4
"""Sequences of the batch that the length sweep and the Jacobian bound look at."""


_Inputs = dict[str, tuple[SelfAttention, Tensor]]


class FirstPass(NamedTuple):
    """Measurements of one forward pass: row, float32 [layout.width], what is known of the model, and its calls.

    problems: by layer, the call as far as it was wanted, of at most ``SEQUENCES`` sequences.
    inputs: by layer, each attention of stabmon's with its input [<= SEQUENCES, N, width], where they were wanted.
    """

    info: RunInfo
    layout: Layout
    row: Floats
    found: Found
    problems: Mapping[str, Problem]
    inputs: _Inputs


def preflight(
    model: nn.Module,
    batch: Batch,
    *,
    limits: "Limits | Mapping[str, Any] | str | Path | None" = None,
    rules: "str | Path | Iterable[str | Path | Rule]" = (),
    config: Mapping[str, Any] | None = None,
    lengths: Sequence[int] = (),
    jacobian: bool = False,
    as_sigmoid: bool = False,
) -> PreflightReport:
    """Say whether ``model`` starts healthy, from forward passes in eval mode without gradients.

    Weights, buffers, plain attributes, training flags and random state are as before afterwards.

    Args:
        model: any module that runs attention; see ``stabmon.discover.scan``.
        batch: a tensor (the only argument), a tuple (the arguments) or a mapping (the keyword arguments).
        limits: limits of the rules, as ``Limits``, as names and numbers, or as a YAML file of them.
        rules: a user's own rules: Python files that register them, or ``Rule`` objects.
        config: what is known of the run to come, such as its workload; rules order their fixes by it.
        lengths: numbers of tokens at which each sigmoid attention is looked at too, with the queries, keys and values
            it has in ``batch``; see ``stabmon.preflight_check.sweep``.
        jacobian: bound the Jacobian of each attention of stabmon's too; see ``stabmon.preflight_check.jacobian``.
        as_sigmoid: look at the model as ``stabmon.convert`` would make it, with a bias of -log of its longest training
            length, or of the most keys in ``batch`` where it says none; it has its own attention afterwards.

    Raises:
        ModelError: no attention was found, none could be converted, or the model does not take ``batch``.
        WatchError: the model was compiled before.
        ArgumentError: ``model`` is no module or holds no numbers.
        ConfigError: ``limits`` or ``rules`` cannot be read.
    """
    from stabmon.rules import Engine, resolve
    from stabmon.rules.limits import resolve as limits_of

    chosen = limits_of(limits)
    if as_sigmoid:
        with _as_sigmoid(model, batch) as notes:
            found = preflight(
                model, batch, limits=chosen, rules=rules, config=config, lengths=lengths, jacobian=jacobian
            )
        return found.model_copy(update={"notes": (*notes, *found.notes)})
    start = measure(model, batch, config=config, keep=bool(lengths) or jacobian)
    engine = Engine(start.info, start.layout, chosen, rules=resolve(rules))
    engine.observe(0, start.row)
    swept = _swept(start, lengths) if lengths else ()
    bounds = [jacobian_bound(layer, of, x) for layer, (of, x) in start.inputs.items()] if jacobian else []
    return PreflightReport(
        rows=_rows(start.info.model, start.layout, start.row),
        findings=tuple(engine.findings),
        map=start.info.model,
        sweep=tuple(swept),
        jacobian=tuple(bounds),
        notes=(*start.found.notes, *(_not_bounded(start) if jacobian else ())),
    )


@contextmanager
def _as_sigmoid(model: nn.Module, batch: Batch) -> Iterator[tuple[str, ...]]:
    """Convert ``model`` for a block, and yield which attentions stay as they are, and why."""
    from stabmon.conversion import converted
    from stabmon.conversion.lengths import longest

    known = longest(getattr(model, "config", None))
    with converted(model, max_length=None if known else scan(model, *arguments(batch)).keys) as report:
        yield tuple(f"{kept.module} was looked at as it is, because {kept.reason}" for kept in report.kept)


def _swept(start: FirstPass, lengths: Sequence[int]) -> Iterator[LengthReport]:
    """Yield each sigmoid attention at each length: stabmon's own with positions of that length."""
    for layer, problem in start.problems.items():
        of, x = start.inputs.get(layer, (None, None))
        if of is None or x is None:
            yield from sweep(layer, lengths, partial(of_tokens, problem))
        else:
            yield from sweep(layer, lengths, partial(of_inputs, of, x))


def _not_bounded(start: FirstPass) -> Iterator[str]:
    """Yield why attentions have no bound of their Jacobian."""
    layers = [site.attention.layer for site in start.found.sites]
    others = [layer for layer in layers if layer not in start.inputs]
    if others:
        yield (
            f"{span(others)}: no bound of the Jacobian, which takes the projections' weights; they are known of "
            "stabmon.nn.SigmoidAttention and SoftmaxAttention alone"
        )


def _note_inputs(found: Found, inputs: _Inputs) -> list[Any]:
    """Put hooks on stabmon's own attentions that note their inputs, and return their handles."""

    def note(layer: str, module: nn.Module, given: tuple[Any, ...]) -> None:
        inputs.setdefault(layer, (module, given[0][:SEQUENCES].detach()))  # type: ignore[arg-type]

    ours = [site for site in found.sites if isinstance(site.module, SelfAttention)]
    return [site.module.register_forward_pre_hook(partial(note, site.attention.layer)) for site in ours]


def measure(
    model: nn.Module, batch: Batch, *, config: Mapping[str, Any] | None = None, keep: bool = False
) -> FirstPass:
    """Return the numbers that ``preflight`` judges; arguments and errors as there. keep: keep the calls."""
    check_model(model, None)
    refuse_compiled(model)
    found = scan(model, *arguments(batch))
    if not found.sites:
        raise ModelError(nothing_found(model, found))
    model_map = found.map_of(model)
    plan = Plan(model_map.attentions, preflight=True)
    recording = _PreflightRecording(plan, new_run.device_of(model), ROWS, keep)
    inputs: _Inputs = {}
    handles = attach(recording, found.sites, _TwinObserver)
    _one_pass(model, batch, [*handles, *(_note_inputs(found, inputs) if keep else ())])
    recording.flush()
    _softmax_is_its_own_twin(recording)
    row = finalise(recording.buffer.cpu().numpy(), plan)
    kept = {plan.attentions[index].layer: problem for index, problem in sorted(recording.problems.items())}
    return FirstPass(new_run.describe(model, model_map, "preflight", config), plan.layout, row, found, kept, inputs)


def _one_pass(model: nn.Module, batch: Batch, handles: Sequence[Any]) -> None:
    """Run ``batch`` through ``model``, which is left as it was, and take the hooks of ``handles`` off."""
    try:
        with undisturbed(model, keep_new=True):
            run(model, *arguments(batch))
    finally:
        for handle in handles:
            handle.remove()


class _PreflightRecording(Recording):
    """Records every pass, and lets a failure of its own be seen.

    problems: by number of the attention in the plan, sigmoid attention's calls where they are kept.
    """

    def __init__(self, plan: Plan, device: torch.device, rows: int, keep: bool) -> None:
        super().__init__(plan, device, rows)
        self.keep = keep
        self.problems: dict[int, Problem] = {}

    def counts(self, module: nn.Module) -> bool:
        return True

    def guard(self, owner: Guarded, action: Callable[..., None], *given: Any) -> None:
        action(*given)


class _TwinObserver(CallObserver):
    """Adds the softmax twin and the best bias of each call."""

    def measure(self, slots: Slots, call: observe.Call) -> None:
        super().measure(slots, call)
        recording = self.recording
        assert isinstance(recording, _PreflightRecording)
        rows = recording.request(call.problem.query.size(0)).rows
        recording.buffer[slots["best_bias"]].copy_(best_bias(call.problem, rows))
        if call.kind == "sigmoid" and call.problem.value.numel():
            recording.buffer[slots["twin_square_sum"]].add_(softmax_square_sum(call.problem))
            if recording.keep:
                kept = call.problem.sequences(slice(SEQUENCES))._replace(value=call.problem.value[:SEQUENCES].detach())
                recording.problems[recording.plan.slots.index(slots)] = kept


def _softmax_is_its_own_twin(recording: Recording) -> None:
    for attention, slots in zip(recording.plan.attentions, recording.plan.slots, strict=True):
        if attention.kind == "softmax":
            statistics = recording.buffer[slots["statistics"]].view(slots.heads, -1)
            recording.buffer[slots["twin_square_sum"]].copy_(statistics[:, 0])


def _rows(model_map: ModelMap, layout: Layout, row: Floats) -> tuple[LayerReport, ...]:
    return tuple(_layer(attention.layer, layout, row) for attention in model_map.attentions)


def _layer(layer: str, layout: Layout, row: Floats) -> LayerReport:
    values: dict[str, float] = {}
    for metric in (metric.name for metric in METRICS.values() if Shown.PREFLIGHT in metric.shown):
        column = next((column for column in layout.of_metric(metric) if column.layer == layer), None)
        heads = row[column.start : column.start + column.size] if column else None
        values[metric] = float("nan") if heads is None else float(over_heads(metric, heads))
    return LayerReport.model_validate({"layer": layer} | values)
