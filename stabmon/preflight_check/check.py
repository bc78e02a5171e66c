"""``preflight``: one forward pass, no training, and the model is left as it was."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from stabmon.batch import Batch
from stabmon.discover.find import map_of, sites
from stabmon.hooks import Recording, attach
from stabmon.hooks.forward import SigmoidObserver
from stabmon.hooks.recording import Guarded
from stabmon.kernels import AuxRequest, observe
from stabmon.metrics import METRICS, Shown
from stabmon.monitor import new_run
from stabmon.monitor.arguments import check_heads, check_model
from stabmon.monitor.watched import refuse_compiled
from stabmon.nn import SigmoidAttention
from stabmon.nn.self_attention import SelfAttention
from stabmon.preflight_check.jacobian import jacobian_bound
from stabmon.preflight_check.one_pass import run, undisturbed
from stabmon.preflight_check.report import LayerReport, PreflightReport
from stabmon.preflight_check.sweep import sweep
from stabmon.preflight_check.twin import best_bias, softmax_square_sum
from stabmon.records import ModelMap, RunInfo
from stabmon.series import Floats, Layout, over_heads
from stabmon.stats import Plan, finalise

if TYPE_CHECKING:
    from stabmon.rules import Limits, Rule

ROWS = 256
"""Query rows a head over the batch whose logits are read."""
SEQUENCES = 4
"""Sequences of the batch that the length sweep and the Jacobian bound look at."""


class FirstPass(NamedTuple):
    """Measurements of one forward pass: row, float32 [layout.width], and what is known of the model."""

    info: RunInfo
    layout: Layout
    row: Floats


def preflight(
    model: nn.Module,
    batch: Batch,
    *,
    heads: Mapping[str, int] | None = None,
    limits: "Limits | Mapping[str, Any] | str | Path | None" = None,
    rules: "str | Path | Iterable[str | Path | Rule]" = (),
    config: Mapping[str, Any] | None = None,
    lengths: Sequence[int] = (),
    jacobian: bool = False,
) -> PreflightReport:
    """Say whether ``model`` starts healthy, from one forward pass in eval mode without gradients.

    Weights, buffers, training flags and torch's random state are as before afterwards.

    Args:
        model: a module with attention that stabmon can read; see ``stabmon.discover.find``.
        batch: a tensor (the only argument), a tuple (the arguments) or a mapping (the keyword arguments).
        heads: number of heads by module path, where a module's attributes do not say it.
        limits: limits of the rules, as ``Limits``, as names and numbers, or as a YAML file of them.
        rules: a user's own rules: Python files that register them, or ``Rule`` objects.
        config: what is known of the run to come, such as its workload; rules order their fixes by it.
        lengths: numbers of tokens at which each of the model's own ``SigmoidAttention`` is looked at too, with the
            inputs it has in ``batch``; see ``stabmon.preflight_check.sweep``.
        jacobian: bound the Jacobian of each attention of stabmon's too; see ``stabmon.preflight_check.jacobian``.

    Raises:
        ModelError: no attention was found, a head count is unknown, or the model does not take ``batch``.
        WatchError: the model was compiled before.
        ArgumentError: ``model`` is no module or holds no numbers, ``heads`` is no mapping.
        ConfigError: ``limits`` or ``rules`` cannot be read.
    """
    from stabmon.rules import Engine, resolve
    from stabmon.rules.limits import resolve as limits_of

    chosen = limits_of(limits)
    start = measure(model, batch, heads=heads, config=config)
    engine = Engine(start.info, start.layout, chosen, rules=resolve(rules))
    engine.observe(0, start.row)
    inputs = _inputs(model, batch, heads) if lengths or jacobian else {}
    sigmoid = [(layer, of, x) for layer, (of, x) in inputs.items() if isinstance(of, SigmoidAttention)]
    swept = [sweep(*one, lengths) for one in sigmoid] if lengths else []
    return PreflightReport(
        rows=_rows(start.info.model, start.layout, start.row),
        findings=tuple(engine.findings),
        map=start.info.model,
        sweep=tuple(row for rows in swept for row in rows),
        jacobian=tuple(jacobian_bound(layer, of, x) for layer, (of, x) in inputs.items()) if jacobian else (),
    )


def _inputs(model: nn.Module, batch: Batch, heads: Mapping[str, int] | None) -> dict[str, tuple[SelfAttention, Tensor]]:
    """Return each attention of stabmon's in ``model``, by layer, with its input [<= SEQUENCES, N, width] in a pass."""
    seen: dict[str, tuple[SelfAttention, Tensor]] = {}

    def note(layer: str, module: nn.Module, given: tuple[Any, ...]) -> None:
        seen[layer] = (module, given[0][:SEQUENCES].detach())  # type: ignore[assignment]

    ours = [site for site in sites(model, heads) if isinstance(site.module, SelfAttention)]
    handles = [site.module.register_forward_pre_hook(partial(note, site.attention.layer)) for site in ours]
    _one_pass(model, batch, handles)
    return {site.attention.layer: seen[site.attention.layer] for site in ours if site.attention.layer in seen}


def measure(
    model: nn.Module,
    batch: Batch,
    *,
    heads: Mapping[str, int] | None = None,
    config: Mapping[str, Any] | None = None,
) -> FirstPass:
    """Return the numbers that ``preflight`` judges; arguments and errors as there."""
    check_model(model, None)
    check_heads(heads)
    refuse_compiled(model)
    found = sites(model, heads)
    model_map = map_of(model, found)
    plan = Plan(model_map.attentions, preflight=True)
    recording = _PreflightRecording(plan, new_run.device_of(model), ROWS)
    handles = attach(recording, found, _TwinObserver)
    _one_pass(model, batch, handles)
    recording.flush()
    _softmax_is_its_own_twin(recording)
    row = finalise(recording.buffer.cpu().numpy(), plan)
    return FirstPass(new_run.describe(model, model_map, "preflight", config), plan.layout, row)


def _one_pass(model: nn.Module, batch: Batch, handles: Sequence[Any]) -> None:
    """Run ``batch`` through ``model``, which is left as it was, and take the hooks of ``handles`` off."""
    try:
        with torch.no_grad(), undisturbed(model):
            run(model, batch)
    finally:
        for handle in handles:
            handle.remove()


class _PreflightRecording(Recording):
    """Records every pass, and lets a failure of its own be seen."""

    def counts(self, module: nn.Module) -> bool:
        return True

    def guard(self, owner: Guarded, action: Callable[..., None], *given: Any) -> None:
        action(*given)


class _TwinObserver(SigmoidObserver):
    """Adds the softmax twin and the best bias of each call."""

    def measure(self, call: observe.Call, request: AuxRequest) -> None:
        super().measure(call, request)
        self.recording.buffer[self.slots["twin_square_sum"]].add_(softmax_square_sum(call.problem))
        self.recording.buffer[self.slots["best_bias"]].copy_(best_bias(call.problem, request.rows))


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
