"""A training of several processes neither waits nor changes when one of them fails, is late or does not watch."""

import json

import numpy as np
import pytest
from torch import distributed, multiprocessing

from stabmon.records import RunState
from stabmon.series import is_missing
from stabmon.store import open_run
from tests.distributed.processes import every_fault

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    multiprocessing.spawn(every_fault, (2, folder), nprocs=2)

    def of(name, rank=0):
        found = json.loads((folder / f"{name}-{rank}.json").read_text())
        assert "error" not in found, found["error"]
        return found

    of.runs = folder / "runs"
    return of


def steps(reported, name):
    with open_run(reported.runs / name) as run:
        return run.read("attention_norm").steps.tolist()


def test_a_nan_of_rank_1_is_named_as_its(reported):
    for rank in (0, 1):
        code, opened, message, cause = reported("nan", rank)["findings"][0]
        assert (code, opened) == ("NUM001", 2)
        assert "at step 2 on rank 1 alone" in message
        assert "one rank alone" in cause
    with open_run(reported.runs / "nan") as run:
        assert run.read("non_finite_rank").values[2, 0] == 1
        assert run.read("non_finite_ranks").values[:, 0].tolist() == [0, 0, 1]


def test_a_sample_that_one_rank_drops_is_missing_and_the_next_ones_belong_together(reported):
    assert steps(reported, "dropped") == [0, 2, 3, 4]  # that of step 1 is handed over in the backward pass of step 2
    assert any("rank 0 gave step" in text for text in reported("dropped")["failures"])
    with open_run(reported.runs / "dropped") as run:
        assert not is_missing(run.read("attention_norm").values).any()


def test_a_hook_that_fails_on_one_rank_costs_its_number_there_and_is_said_on_rank_0(reported):
    assert steps(reported, "failing") == [0, 1, 2]
    assert any("rank 1: reports more failures" in text for text in reported("failing")["failures"])
    assert any("division by zero" in text for text in reported("failing", 1)["failures"])
    with open_run(reported.runs / "failing") as run:
        assert not is_missing(run.read("residual_out").values).any()  # those of rank 0 are left


def test_a_rank_that_closes_first_ends_the_record_and_not_the_training(reported):
    assert steps(reported, "closing") == [0, 1]
    assert any("rank 1 has closed its monitor" in text for text in reported("closing")["failures"])


def test_ranks_that_count_from_other_steps_count_as_rank_0_and_no_two_steps_are_mixed(reported):
    first, other = reported("counting"), reported("counting", 1)
    assert steps(reported, "counting") == [3, 4, 5, 6]
    assert first["steps"] == other["steps"] == 7
    assert any("rank 0 is at step 3, this one counted 0" in text for text in other["failures"])
    with open_run(reported.runs / "counting") as run:
        mean = np.mean([first["losses"], other["losses"]], axis=0)
        np.testing.assert_allclose(run.read("loss").values[:, 0], mean, rtol=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_race_whose_passes_would_wait_for_other_ranks_is_refused_or_ends_and_is_said(reported, rank):
    found = reported("racing", rank)
    assert "passes wait for other processes" in found["refused"]
    assert any("the race against softmax ended at step 0: a race is not" in text for text in found["failures"])


def test_where_only_rank_0_watches_its_own_numbers_are_recorded_and_this_is_said(reported):
    assert reported("one_watches")["same"]
    assert reported("one_watches", 1)["same"]
    (failure,) = reported("one_watches")["failures"]
    assert "rank 1 had not called watch" in failure
    assert "numbers of this rank alone" in failure
    with open_run(reported.runs / "one") as run:
        assert np.isfinite(run.read("attention_norm").values).all()
        assert run.layout.of_metric("reduction_bytes") == []


def test_where_only_rank_0_watches_shards_no_pass_and_no_norm_is_made_of_them(reported):
    assert reported("one_watches_shards")["same"]
    failures = reported("one_watches_shards")["failures"]
    assert any("no attention is recorded: no pass was made" in text for text in failures)
    assert any("only its own shards" in text for text in failures)
    with open_run(reported.runs / "shards") as run:
        assert is_missing(run.read("total_gradient_norm").values).all()
        assert np.isfinite(run.read("loss").values).all()


def test_a_rank_that_dies_ends_the_training_as_without_stabmon(reported):
    died = reported("dying")
    assert died["raised"]
    assert "stabmon" not in died["raised"]
    assert steps(reported, "dying") == [0, 1]
    with open_run(reported.runs / "dying") as run:
        assert run.heartbeat().state is RunState.FAILED
