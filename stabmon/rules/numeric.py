"""Rules about numbers that are not numbers, NUM."""

from collections.abc import Iterator

import numpy as np

from stabmon.names import natural_key
from stabmon.records import Cell, Evidence, Severity
from stabmon.rules.registry import Sighting, Told, rule
from stabmon.rules.thresholds import NumericLimits
from stabmon.rules.view import Hit, Run
from stabmon.series import Spot

FORWARD = (
    "residual_in",
    "query_norm",
    "key_norm",
    "bias",
    "logit_max",
    "logit_mean",
    "logit_std",
    "row_mass",
    "saturated_fraction",
    "dead_fraction",
    "best_bias",
    "attention_norm",
    "output_rms",
    "twin_ratio",
    "layer_scale",
    "branch_ratio",
    "residual_out",
    "block_growth",
)
"""The metrics of one layer in the order of the data's path through it; loss and gradients follow all layers."""
BACKWARD = ("gradient_norm", "total_gradient_norm")


@rule("NUM001", "non-finite", severity=Severity.ERROR, evidence=Evidence.LITERATURE, judges_non_finite=True)
def non_finite(run: Run, limits: NumericLimits) -> Iterator[Sighting]:
    """Flag the first NaN or infinity of a run, in the order of the data's path.

    What it checks: whether any recorded number is NaN or infinite. The layers are taken in order, and within a layer
        input, queries and keys, logits, weights, output; then the loss, then the gradients from the last layer back
        to the first. One event stands for all that follow from it. Gradients alone are information, because a
        GradScaler in search of its scale makes them infinite on purpose; after ``limits.scaler_samples_max`` samples
        in a row they are a warning.
    Why it matters: after one NaN in a forward pass every weight is NaN one step later, and the run is lost from there
        on.
    Suggested fix: go back to a checkpoint before the step. Where the logits were growing, QK norm; where they were
        not, a lower learning rate; in fp16, bf16 or a smaller loss scale.
    When the fix is wrong: where one bad batch holds the NaN: look at the data of that step first.
    References: the questions that led to it: issue 8035 of deepspeedai/DeepSpeed and issue 165 of
        bitsandbytes-foundation/bitsandbytes, where people look for the first NaN layer by hand.
    """
    if not run.any_not_finite:
        return
    found = [cell for metric in run.layout.metrics for cell in _cells(run, metric)]
    found.sort(key=_path)
    first, severity = found[0], Severity.ERROR
    if first.metric in BACKWARD:
        severity = Severity.WARNING if _lasts(run, first, limits.scaler_samples_max) else Severity.INFO
    hit = Hit(first.metric, first.layer, first.head, first.value, np.inf, np.inf, 1, 1)
    yield Sighting(hit, lambda: _tell(run, found), severity=severity, one_for_the_run=True)


def _cells(run: Run, metric: str) -> list[Cell]:
    series = run.series(metric)
    return [series.cell(column) for column in series.not_finite()]


def _path(cell: Cell) -> tuple[object, ...]:
    layer = natural_key(cell.layer or "")
    if cell.metric in BACKWARD:
        back = tuple((-kind, -number, text) for kind, number, text in layer)
        return (2, BACKWARD.index(cell.metric), back, 0, cell.head or 0)
    if cell.layer is None:
        return (1, 0, layer, 0, 0)
    place = FORWARD.index(cell.metric) if cell.metric in FORWARD else len(FORWARD)
    return (0, 0, layer, place, cell.head or 0)


def _column(run: Run, cell: Cell) -> int:
    return run.series(cell.metric).spots.index(Spot(cell.layer, cell.head))


def _lasts(run: Run, first: Cell, samples: int) -> bool:
    past = run.series(first.metric).past(samples)[:, _column(run, first)]
    return len(past) == samples and not np.isfinite(past).any()


def _tell(run: Run, found: list[Cell]) -> Told:
    first = found[0]
    where = "" if first.layer is None else f" of {first.layer}"
    where += "" if first.head is None else f" head {first.head}"
    rest = f", with {len(found) - 1} more numbers after it" if len(found) > 1 else ""
    message = f"{first.metric}{where} is {_word(first.value)} at step {run.step}{rest}"
    return Told(message, _cause(run, first), tuple(found[:8]) + _before(run, first))


def _word(value: float) -> str:
    return "NaN" if np.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _cause(run: Run, first: Cell) -> str:
    if first.metric in BACKWARD:
        return "the forward pass was finite: the backward pass overflowed, or a GradScaler is looking for its scale"
    if first.layer is None:
        return "the layers were finite: the loss itself, its targets or the output projection overflowed"
    return f"{first.layer} is the first place on the data's path where a number was not finite"


def _before(run: Run, first: Cell) -> tuple[Cell, ...]:
    """Return the last finite value of the same cell, where the sample before had one."""
    column, past = _column(run, first), run.series(first.metric).past(1)
    if not len(past) or not np.isfinite(past[-1, column]):
        return ()
    return (first.model_copy(update={"step": run.past_steps(1)[-1], "value": float(past[-1, column])}),)
