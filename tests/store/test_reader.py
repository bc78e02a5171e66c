import math
import time

import numpy as np
import pytest

from stabmon.errors import StoreError
from stabmon.records import Heartbeat, RunState
from stabmon.series import Spot, is_missing
from stabmon.store import open_run
from stabmon.store.owner import LOCK

ROW_MASS = [0, 1, 2, 4, 5, 6]
"""Columns of row_mass in the layout, in its order: layers.10 before layers.2."""


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


@pytest.mark.parametrize("steps", [0, 1, 127, 128, 129, 256, 300])
def test_every_bit_comes_back_through_tail_and_folds(steps, write, odd_rows, tmp_path, layout):
    rows = odd_rows(steps)
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read("row_mass")
        assert (bits(read.values) == bits(rows[:, ROW_MASS])).all()
        assert read.values.shape == (steps, 6)
        assert read.steps.tolist() == list(range(steps))
        assert read.times.tolist() == [1000.0 + step for step in range(steps)]
        assert (read.low, read.high, read.cursor) == (None, None, steps)
        new = run.after(0)
        assert (bits(new.rows) == bits(rows)).all()
        assert new.rows.shape == (steps, layout.width)


def test_spots_name_layers_in_the_layouts_order_and_heads_where_there_are_some(write, odd_rows, tmp_path):
    write(odd_rows(2))
    with open_run(tmp_path / "lm") as run:
        of_layer = [Spot("layers.2", head) for head in range(3)]
        assert run.read("row_mass").spots == [Spot("layers.10", head) for head in range(3)] + of_layer
        assert run.read("row_mass", layer="layers.2").spots == of_layer
        assert run.read("branch_ratio").spots == [Spot("layers.10", None), Spot("layers.2", None)]
        assert run.read("loss").spots == [Spot(None, None)]


@pytest.mark.parametrize("layer", ["layers.2", "layers.10"])
@pytest.mark.parametrize("max_points", [None, 3], ids=["raw", "levels"])
def test_one_layer_is_that_part_of_all_layers(layer, max_points, write, odd_rows, tmp_path):
    write(odd_rows(300))
    with open_run(tmp_path / "lm") as run:
        whole, part = (
            run.read("row_mass", max_points=max_points),
            run.read("row_mass", layer=layer, max_points=max_points),
        )
    own = [spot.layer == layer for spot in whole.spots]
    assert (bits(part.values) == bits(whole.values[:, own])).all()


@pytest.mark.parametrize(("start", "stop"), [(None, 10), (5, None), (100, 140), (128, 256), (299, 300), (400, None)])
def test_a_range_of_steps_has_its_start_and_not_its_stop(start, stop, write, odd_rows, tmp_path):
    rows = odd_rows(300)
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read("loss", start=start, stop=stop)
        others = run.read("row_mass", start=start, stop=stop)
    there = ~is_missing(rows[start:stop, 3])  # a number of the training's own has a row only where it was logged
    assert read.steps.tolist() == np.arange(300)[start:stop][there].tolist()
    assert (bits(read.values) == bits(rows[start:stop, 3:4][there])).all()
    assert others.steps.tolist() == list(range(300))[start:stop]


def test_live_reading_goes_on_where_it_was(write, odd_rows, tmp_path):
    rows = odd_rows(400)
    writer = write(rows[:100])
    with open_run(tmp_path / "lm") as run:
        first = run.after(0)
        assert len(run.after(first.cursor).steps) == 0
        write(rows[100:], 100, writer)
        limited = run.after(first.cursor, limit=50)
        rest = run.after(limited.cursor)
        assert [limited.cursor, rest.cursor] == [150, 400]
        assert limited.steps.tolist() + rest.steps.tolist() == list(range(100, 400))
        assert (bits(np.concatenate([limited.rows, rest.rows])) == bits(rows[100:])).all()
        assert run.read("loss").cursor == 400


def test_findings_and_their_latest_form_come_back(write, odd_rows, make_finding, tmp_path):
    writer = write(odd_rows(1))
    one, two = make_finding(), make_finding(layer="layers.2", opened=1)
    writer.findings([one, two])
    writer.findings([one.model_copy(update={"cleared": 9})])
    with open_run(tmp_path / "lm") as run:
        found = run.findings()
    assert [finding.key for finding in found] == [two.key, one.key]
    assert [finding.cleared for finding in found] == [None, 9]
    assert math.isnan(found[0].value)
    assert found[0].limit == math.inf


def test_a_run_without_new_samples_is_paused_or_stale_and_a_finished_one_is_not(write, odd_rows, tmp_path, monkeypatch):
    writer = write(odd_rows(4))
    beat = Heartbeat(state=RunState.RUNNING, step=3, time=time.time(), dropped=2, overhead=0.01, interval=5.0)
    writer.heartbeat(beat)
    with open_run(tmp_path / "lm") as run:
        assert run.heartbeat() == beat.model_copy(update={"samples": 4})
        monkeypatch.setattr(time, "time", lambda: beat.time + 14.9)
        assert run.heartbeat().state is RunState.RUNNING
        monkeypatch.setattr(time, "time", lambda: beat.time + 15.1)
        assert run.heartbeat().state is RunState.PAUSED
        (tmp_path / "lm" / LOCK).unlink()  # as on a file system without locks
        assert run.heartbeat().state is RunState.STALE
        writer.close(RunState.FINISHED)
        assert run.heartbeat().state is RunState.FINISHED


def test_the_error_for_an_unknown_metric_or_layer_lists_the_known_ones(write, odd_rows, tmp_path):
    write(odd_rows(1))
    with open_run(tmp_path / "lm") as run:
        with pytest.raises(StoreError, match="no metric 'rowmass'; it records row_mass, logit_max, branch_ratio, loss"):
            run.read("rowmass")
        with pytest.raises(StoreError, match=r"no row_mass of layer 'layers.3'; it has layers.2, layers.10"):
            run.read("row_mass", layer="layers.3")


def test_sizes_count_samples_attempts_and_bytes(write, odd_rows, tmp_path):
    writer = write(odd_rows(130))
    write(odd_rows(5), 10, writer)
    with open_run(tmp_path / "lm") as run:
        assert run.sizes[:3] == (135, 2, 11)
        assert run.sizes.bytes > 130 * 11 * 4
