"""Numbers that a training logs between samples, in the file and in what is read from it."""

import numpy as np
import pytest

from stabmon.records import RunState
from stabmon.series import MISSING, Logged
from stabmon.store import RunWriter, open_run


def rows(layout, losses):
    made = np.ones((len(losses), layout.width), np.float32)
    made[:, layout.of_metric("loss")[0].start] = [MISSING if loss is None else loss for loss in losses]
    return made


def noted(steps, metric="loss"):
    return [Logged(step, 1000.0 + step, metric, float(step)) for step in steps]


@pytest.fixture
def sparse(write, layout, tmp_path):
    """A run of ``samples`` samples, ten steps apart and without a loss, whose loss is logged one step before each."""

    def make(samples):
        writer = write([])
        for at, row in enumerate(rows(layout, [None] * samples)):
            writer.sample(10 * at, 1000.0 + 10 * at, row, noted([10 * at - 1]) if at else ())
        return writer

    return make


def test_a_logged_number_has_a_row_at_each_step_where_it_was_logged_and_no_other(sparse, tmp_path):
    sparse(300)
    expected = [10 * at - 1 for at in range(1, 300)]
    with open_run(tmp_path / "lm") as run:
        read = run.read("loss")
        assert read.steps.tolist() == expected
        assert read.values[:, 0].tolist() == expected
        assert read.times.tolist() == [1000.0 + step for step in expected]
        assert run.read("loss", start=29, stop=59).steps.tolist() == [29, 39, 49]
        assert run.read("row_mass").steps.tolist() == list(range(0, 3000, 10))


def test_zooming_out_keeps_every_extreme_of_a_logged_number(sparse, tmp_path):
    writer = sparse(300)
    writer.logged([Logged(2991, 0.0, "loss", 1e6), Logged(2992, 0.0, "loss", 1.0)])
    with open_run(tmp_path / "lm") as run:
        read = run.read("loss", max_points=20)
    assert len(read.steps) <= 20
    assert read.high.max() == 1e6
    assert read.low.min() == 1.0
    assert read.values[0, 0] == pytest.approx(read.steps[0] + 10 * (301 // 20) / 2)


def test_sampled_and_logged_values_of_one_number_are_one_series(write, layout, tmp_path):
    writer = write(rows(layout, [10.0, None, 12.0]))
    writer.logged(noted([3, 5]))
    writer.logged(noted([7]))
    writer.close(RunState.FINISHED)
    with open_run(tmp_path / "lm") as run:
        read = run.read_layers("loss")
        assert dict(zip(read.steps.tolist(), read.values[:, 0].tolist(), strict=True)) == {
            0: 10,
            2: 12,
            3: 3,
            5: 5,
            7: 7,
        }


def test_a_reader_that_follows_gets_each_logged_number_before_the_sample_that_came_next(sparse, tmp_path):
    writer = sparse(200)
    with open_run(tmp_path / "lm") as run:
        first = run.after(0, limit=150)
        rest = run.after(first.cursor)
        assert [[one.step for one in first.before(at)] for at in (0, 1, 149, 150)] == [[], [9], [1489], []]
        assert [[one.step for one in rest.before(at)] for at in (0, 49, 50)] == [[1499], [1989], []]
        writer.logged(noted([1999]))
        assert [one.step for one in run.after(rest.cursor).before(0)] == [1999]
        part = rest.part(10, 12)
        assert part.cursor == 162
        assert [one.step for one in (*part.before(0), *part.before(1))] == [1599, 1609]


def test_what_a_run_that_goes_back_logs_again_replaces_what_it_logged_before(write, layout, info, tmp_path):
    write(rows(layout, [0.0] * 3)).logged(noted([5, 8]))
    writer = RunWriter.create(tmp_path / "again", info, layout)
    for step in range(3):
        writer.sample(step, 0.0, rows(layout, [0.0])[0])
    writer.logged(noted([5, 8]))
    writer.close(RunState.FAILED)
    writer = RunWriter.create(tmp_path / "again", info, layout, resume=True)
    writer.logged([Logged(6, 0.0, "loss", 60.0)])
    writer.sample(7, 0.0, rows(layout, [70.0])[0])
    writer.close(RunState.FINISHED)
    with open_run(tmp_path / "again") as run:
        read = run.read("loss", start=3)
        assert dict(zip(read.steps.tolist(), read.values[:, 0].tolist(), strict=True)) == {5: 5, 6: 60, 7: 70}
        assert run.read("loss", start=3, attempt=1).steps.tolist() == [5, 8]
        assert run.sizes.attempts == 2


def test_a_run_can_begin_with_logged_numbers(write, layout, tmp_path):
    writer = write([])
    writer.logged(noted([0, 1]))
    writer.sample(2, 0.0, rows(layout, [2.0])[0])
    with open_run(tmp_path / "lm") as run:
        assert run.read("loss").steps.tolist() == [0, 1, 2]
        assert run.sizes.attempts == 1


def test_nan_and_infinity_are_kept_between_samples(write, layout, tmp_path):
    values = [float("nan"), float("inf"), -float("inf")]
    write(rows(layout, [1.0])).logged([Logged(step, 0.0, "loss", value) for step, value in enumerate(values, 1)])
    with open_run(tmp_path / "lm") as run:
        assert np.array_equal(run.read("loss").values[1:, 0], values, equal_nan=True)
