"""Rules about values that are not finite, NUM."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.findings import Reading
from stabmon.formatting import number, plural
from stabmon.metrics import DataPath, on_path
from stabmon.records import Evidence, Severity
from stabmon.rules import run_config, suggested_fixes
from stabmon.rules.families import NumericLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside, over_limit
from stabmon.rules.view import Hit, Run
from stabmon.series import Spot


@rule(
    "NUM001",
    "non-finite",
    severity=Severity.ERROR,
    evidence=Evidence.LITERATURE,
    symptom_of=("UPD001", "UPD002", "ATT003", "ATT008", "NUM002", "NUM003", "GRD002", "LOS002"),
    judges_non_finite=True,
)
def non_finite(run: Run, limits: NumericLimits) -> Iterator[Observation]:
    """Flag the first NaN or infinity of a run's forward pass, in the order of the data's path.

    What it checks: whether any recorded number but a gradient's is NaN or infinite. The layers are taken in order, and
        within a layer input, queries and keys, logits, weights, output; then the loss. One finding covers all that
        follow from it, gradients too.
    Why it matters: after one NaN in a forward pass every weight is NaN one step later, and the run is lost.
    Suggested fix: go back to a checkpoint before the step. In fp16, bf16; where the logits were growing, QK norm; where
        they were not, a lower learning rate.
    When the fix is wrong: where the NaN is in one bad batch: look at the data of that step first.
    References: questions behind it: issue 8035 of deepspeedai/DeepSpeed and issue 165 of
        bitsandbytes-foundation/bitsandbytes, where people look for the first NaN layer by hand.
    """
    if not run.any_not_finite:
        return
    found = sorted((cell for metric in run.layout.metrics for cell in _cells(run, metric)), key=partial(_path, run))
    if not _is_gradient(found[0]):
        explain, fixes = partial(_explain, run, found), partial(suggested_fixes.for_overflow, run)
        yield Observation(_hit(found[0]), explain, fixes, one_for_the_run=True)


@rule(
    "NUM002",
    "overflowed-gradients",
    severity=Severity.WARNING,
    evidence=Evidence.LITERATURE,
    symptom_of=("NUM001", "NUM003"),
    judges_non_finite=True,
)
def overflowed_gradients(run: Run, limits: NumericLimits) -> Iterator[Observation]:
    """Flag gradients that overflow although the forward pass is finite.

    What it checks: whether a gradient norm is NaN or infinite while every other recorded number is finite. It is
        information at first, because a GradScaler that adjusts its scale makes gradients infinite by design; after
        ``limits.scaler_samples_max`` samples in a row it is a warning. A step that a GradScaler skips is no step of the
        optimizer: it is recorded only where ``Monitor.skipped`` is called for it.
    Why it matters: a GradScaler skips each such step, so the run makes no progress although it computes; without one,
        every weight is NaN one step later.
    Suggested fix: bf16, whose range is that of fp32; in fp16 a smaller loss scale.
    When the fix is wrong: with several processes of which not all call ``watch`` the numbers are those of one, and the
        NaN may have come from another one's batch by the average of the gradients. In the first steps of an fp16 run,
        and once every few thousand steps: that is the normal operation of a GradScaler.
    References: torch.amp.GradScaler (starts at 65536, halves at each overflow); issue 8035 of deepspeedai/DeepSpeed.
    """
    if not run.any_not_finite:
        return
    found = sorted((cell for metric in run.layout.metrics for cell in _cells(run, metric)), key=partial(_path, run))
    if _is_gradient(found[0]):
        lasts = _lasts(run, found[0], limits.scaler_samples_max)
        severity = Severity.WARNING if lasts else Severity.INFO
        explain, fixes = partial(_explain, run, found), partial(suggested_fixes.for_overflow, run)
        yield Observation(_hit(found[0]), explain, fixes, severity=severity, one_for_the_run=True)


@rule(
    "NUM003", "near-fp16-limit", severity=Severity.WARNING, evidence=Evidence.MEASURED, symptom_of=("ATT001", "UPD002")
)
def near_fp16_limit(run: Run, limits: NumericLimits) -> Iterator[Observation]:
    """Flag an fp16 run whose residual stream is near the largest number of fp16.

    What it checks: in runs with fp16 in their configuration, the rms of each block's output against
        ``limits.fp16_rms_max``.
    Why it matters: the largest number of fp16 is 65504. Single channels of a stream reach 30 times its rms, so further
        growth gives an infinity in the forward pass, which a GradScaler does not correct.
    Suggested fix: bf16; where the stream has grown since the start, remove the cause of the growth.
    When the fix is wrong: where the stream is kept in fp32, as torch's autocast does between its matrix products.
    References: by arithmetic; measured: streams of 2,000 to 30,000 rms at learning rates too high for the model.
    """
    if run_config.is_fp16(run):
        for hit in run.series("residual_out").above(limits.fp16_rms_max):
            yield Observation(hit, partial(_explain_near, run, hit), partial(suggested_fixes.for_overflow, run))


def _explain_near(run: Run, hit: Hit) -> Explanation:
    message = (
        f"{over_limit(hit)}; fp16 ends at {number(65504)}{beside(run, hit.layer, 'block_growth', 'attention_norm')}"
    )
    return Explanation(
        message, "the stream has outgrown fp16's range", run.cells(hit.layer, "residual_out", "block_growth")
    )


def _hit(first: Reading) -> Hit:
    return Hit(first.metric, first.layer, first.head, first.value, np.inf, np.inf, 1, 1)


def _cells(run: Run, metric: str) -> list[Reading]:
    series = run.series(metric)
    return [series.cell(column) for column in series.not_finite()]


def _is_gradient(cell: Reading) -> bool:
    return on_path(cell.metric)[0] is DataPath.GRADIENT


def _path(run: Run, cell: Reading) -> tuple[int, ...]:
    """Return a key that sorts numbers by where the data come by them: the layers of a pass, the loss, and back."""
    place, position = run.place(cell.layer, cell.metric), on_path(cell.metric)
    if _is_gradient(cell):
        return (2, *position, -place, cell.head or 0)
    if cell.layer is None:
        return (1,)
    return (0, place, *position, cell.head or 0)


def _column(run: Run, cell: Reading) -> int:
    return run.series(cell.metric).spots.index(Spot(cell.layer, cell.head))


def _lasts(run: Run, first: Reading, samples: int) -> bool:
    past = run.series(first.metric).past(samples)[:, _column(run, first)]
    return len(past) == samples and not np.isfinite(past).any()


def _explain(run: Run, found: list[Reading]) -> Explanation:
    first = found[0]
    where = "" if first.layer is None else f" of {first.layer}"
    where += "" if first.head is None else f" head {first.head}"
    rest = f", with {len(found) - 1} more numbers after it" if len(found) > 1 else ""
    message = f"{first.metric}{where} is {number(first.value)} at step {first.step}{_ranks(run, first)}{rest}"
    return Explanation(message, _cause(run, first), tuple(found[:8]) + _before(run, first))


def _ranks(run: Run, first: Reading) -> str:
    """Return the ranks whose own forward pass was not finite in words, "" in a training of one process."""
    lowest, number_of = (run.series(name) for name in ("non_finite_rank", "non_finite_ranks"))
    if _is_gradient(first) or first.step != run.step or not lowest.spots:
        return ""
    if not np.isfinite([lowest.now[0], number_of.now[0]]).all():
        return ""
    count = int(number_of.now[0])
    others = f"and {plural(count - 1, 'other rank')}" if count > 1 else "alone"
    return f" on rank {lowest.now[0]:.0f} {others}"


def _cause(run: Run, first: Reading) -> str:
    if _is_gradient(first):
        if run.series("non_finite_rank").spots:
            return "the forward pass of every rank was finite: look at the backward pass, or at a GradScaler"
        if run_config.is_fp16(run):
            return "the forward pass was finite: the backward pass overflowed, or a GradScaler is adjusting its scale"
        return (
            "the forward pass of this process was finite: look at its backward pass, at a GradScaler where there is "
            "one, and with several processes at the batches of the others, whose gradients are averaged into these"
        )
    if _ranks(run, first).endswith(" alone"):
        where = "its loss" if first.layer is None else first.layer
        return f"the numbers of one rank alone are not finite, from {where} on: look at its batch and its device"
    if first.layer is None:
        return "the layers were finite: the loss itself, its targets or the output projection overflowed"
    return f"{first.layer} is the first place on the data's path where a number was not finite"


def _before(run: Run, first: Reading) -> tuple[Reading, ...]:
    """Return the last finite value of the same cell, where the sample before had one."""
    column, past = _column(run, first), run.series(first.metric).past(1)
    if not len(past) or not np.isfinite(past[-1, column]):
        return ()
    return (first.model_copy(update={"step": run.step_before(first.metric), "value": float(past[-1, column])}),)
