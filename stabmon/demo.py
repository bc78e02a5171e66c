"""Two trainings, side by side: an instability predicted at step 0, the training as it is, and the same with the fix.

preflight(naive) -> train(naive) -> apply the fixes to a copy with the same seed -> preflight(fixed) -> train(fixed).
"""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from stabmon import config as configuration
from stabmon.config import RunConfig
from stabmon.findings import Finding
from stabmon.fixes import apply_to_config
from stabmon.preflight_check import PreflightReport, preflight
from stabmon.records import Record
from stabmon.store import fresh_name
from stabmon.workloads import training


class DemoRun(Record):
    """One of the two trainings."""

    name: str
    path: str
    """The run's folder: ``run.sqlite`` and TensorBoard's event file."""
    bias: float
    """Mean bias over layers and heads."""
    bias_per_layer: dict[str, float]
    final_loss: float
    """Mean training loss of the last 20 steps, in nats a byte."""
    overhead_percent: float | None
    """Time that stabmon took on the training thread, in percent of the step time; None where it was not measured."""
    healthy_at_step_zero: bool
    findings: tuple[Finding, ...]


class DemoReport(Record):
    """Both trainings, side by side."""

    naive: DemoRun
    fixed: DemoRun

    @property
    def gain(self) -> float:
        """Final loss of the naive run less that of the fixed one, in nats."""
        return self.naive.final_loss - self.fixed.final_loss


class PreparedModel(NamedTuple):
    """A model that is about to be trained, with its preflight report."""

    name: str
    config: RunConfig
    """Configuration that the run is stored with; that of the fixed model has its fixes."""
    model: nn.Module
    report: PreflightReport


def default_config(device: str) -> RunConfig:
    """Return the documented naive run (b = 0) that fits ``device``."""
    name = "language-gpu" if device.startswith("cuda") else "demo"
    return configuration.load(name)


def prepare(config: RunConfig, directory: Path, device: str) -> tuple[PreparedModel, PreparedModel]:
    """Build the naive model, and with the same seed the fixed one, and run preflight on both."""
    inputs, _ = next(iter(training.batches(config, device)))
    naive, fixed = training.build(config, device), training.build(config, device)
    before = preflight(naive, inputs)
    fixed_config = config
    for fix in before.fixes:
        fix.apply(fixed)
        fixed_config = apply_to_config(fix, fixed_config)
    after = preflight(fixed, inputs)
    biases = {"model.bias": round(_mean(_biases(after)), 2)}  # a configuration has one, the fixes one a layer
    return (
        PreparedModel(fresh_name(directory, "naive"), config, naive, before),
        PreparedModel(fresh_name(directory, "fixed"), configuration.override(fixed_config, biases), fixed, after),
    )


def train(prepared: PreparedModel, directory: Path, device: str, progress: training.Progress | None = None) -> DemoRun:
    """Train ``prepared`` with the monitor on and return its outcome."""
    result = training.train(
        prepared.config, model=prepared.model, directory=directory, name=prepared.name, device=device, progress=progress
    )
    biases = _biases(prepared.report)
    return DemoRun(
        name=prepared.name,
        path=str(result.path),
        bias=_mean(biases),
        bias_per_layer=biases,
        final_loss=result.final_loss,
        overhead_percent=None if result.overhead is None else 100.0 * result.overhead,
        healthy_at_step_zero=prepared.report.healthy,
        findings=tuple(result.findings),
    )


def _biases(report: PreflightReport) -> dict[str, float]:
    return {row.layer: row.bias for row in report.rows}


def _mean(biases: dict[str, float]) -> float:
    return sum(biases.values()) / len(biases)
