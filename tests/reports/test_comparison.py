import numpy as np
import pytest

from stabmon.errors import ArgumentError
from stabmon.records import RunState
from stabmon.reports.comparison import compare
from stabmon.series import MISSING
from stabmon.store import open_run
from tests.server.conftest import layout


def column(metric: str, layer: str | None = None) -> int:
    return next(one.start for one in layout().of_metric(metric) if one.layer == layer)


def changed(store, name: str, change) -> None:
    """Write a healthy run of 40 samples whose rows ``change(step, row)`` edits."""
    writer = store.start(name)
    for step in range(40):
        row = store.row(step)
        change(step, row)
        writer.sample(step, 1000.0 + step, row)
    writer.close(RunState.FINISHED)


def compared(store, *names: str, **options):
    runs = {name: open_run(store.directory / name) for name in names}
    try:
        return compare(runs, **options)
    finally:
        for run in runs.values():
            run.close()


def test_settings_that_differ_come_with_a_value_for_each_run(naive, fixed):
    result = compare({"naive": naive, "fixed": fixed})
    assert [(one.name, one.values) for one in result.settings] == [
        ("attention bias", ("0", "-5.545")),
        ("model.bias", ("0", "-5.545")),
    ]


def test_findings_stand_side_by_side(naive, fixed):
    result = compare({"naive": naive, "fixed": fixed})
    first = result.findings[0]
    assert (first.code, first.places) == ("ATT001", ("error: layers.0 to layers.3, since step 0", None))
    assert {one.code for one in result.findings} == {"ATT001", "GRD001", "NUM001"}, "a symptom too"


def test_the_final_loss_is_the_mean_of_the_last_tenth(naive, fixed):
    result = compare({"naive": naive, "fixed": fixed})
    for run, one in zip((naive, fixed), result.runs, strict=True):
        assert one.loss == pytest.approx(run.read("loss").values[-30:, 0].mean(dtype=np.float64))


def test_runs_part_first_where_the_data_comes_first(store):
    mass, loss = column("row_mass", "layers.1"), column("loss")

    def broken(step, row):
        row[mass] *= 1.5 if step >= 10 else 1.0
        row[loss] *= 1.001 if step >= 10 else 1.0
        row[loss] *= 1.2 if step >= 20 else 1.0

    changed(store, "good", lambda step, row: None)
    changed(store, "bad", broken)
    run = compared(store, "good", "bad").runs[1]
    assert (run.parts.step, run.parts.metric, run.parts.layer) == (10, "row_mass", "layers.1")
    assert (run.differs.step, run.differs.metric) == (10, "row_mass")
    assert (run.loss_parts.step, run.loss_parts.metric, run.loss_parts.layer) == (20, "loss", None)
    assert run.loss_parts.other == pytest.approx(1.2 * 1.001 * run.loss_parts.first)
    assert compared(store, "good", "bad", apart=0.3).runs[1].loss_parts is None


def test_runs_of_the_same_numbers_do_not_part(store):
    for name in ("a", "b"):
        changed(store, name, lambda step, row: None)
    run = compared(store, "a", "b").runs[1]
    assert (run.differs, run.parts, run.loss_parts) == (None, None, None)


def test_nan_parts_from_a_number_and_from_nothing_else_and_what_is_missing_parts_from_nothing(store):
    loss = column("loss")

    def at(step, value):
        def change(now, row):
            row[loss] = (
                value if now in (step, step + 2, step + 4) else MISSING if now in (step + 1, step + 3) else row[loss]
            )

        return change

    for name, value in (("number", 1.0), ("nan", np.nan), ("nan-too", np.nan), ("infinite", np.inf)):
        changed(store, name, at(7, value))
    changed(store, "plain", lambda step, row: None)
    changed(store, "missing", at(7, MISSING))
    assert compared(store, "number", "nan").runs[1].loss_parts.step == 7
    assert compared(store, "nan", "infinite").runs[1].loss_parts.step == 7
    assert compared(store, "plain", "infinite").runs[1].loss_parts.step == 7
    assert compared(store, "nan", "nan-too").runs[1].differs is None
    assert compared(store, "plain", "missing").runs[1].differs is None


def test_one_run_and_seven_are_refused(naive):
    with pytest.raises(ArgumentError, match="expected 2 to 6 runs to compare, got 1"):
        compare({"naive": naive})
    with pytest.raises(ArgumentError, match="got 7"):
        compare({str(number): naive for number in range(7)})


def test_a_single_spike_is_a_difference_and_no_parting(store):
    loss = column("loss")

    def spike(step, row):
        row[loss] *= 3 if step in (10, 11) else 1

    changed(store, "good", lambda step, row: None)
    changed(store, "spike", spike)
    run = compared(store, "good", "spike").runs[1]
    assert (run.differs.step, run.parts) == (10, None)
