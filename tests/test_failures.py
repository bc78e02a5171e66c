"""Failures as records: each once, with its steps."""

import logging
from concurrent.futures import ThreadPoolExecutor

from stabmon.failures import Failures
from stabmon.records import Failure


def test_a_failure_is_logged_once_and_counted_with_its_steps(caplog):
    failures = Failures()
    for step in (None, 3, 7):
        failures.step = step
        failures.report("learning rate", f"that of step {step} is no number", "it is not recorded")
        failures.add("the end of a step", "ValueError", level=logging.ERROR)
    rate, end = failures.records
    assert rate == Failure(
        subject="learning rate",
        reason="that of step None is no number; it is not recorded",
        first_step=None,
        last_step=7,
        count=3,
    )
    assert (end.first_step, end.last_step, end.count) == (None, 7, 3)
    assert failures.texts == (rate.text, end.text)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_steps_are_said_as_far_as_they_are_known():
    assert Failure(subject="a", reason="b", first_step=None, last_step=None).when == ""
    assert Failure(subject="a", reason="b", first_step=1000, last_step=1000).when == "step 1,000"
    assert Failure(subject="a", reason="b", first_step=None, last_step=9, count=2).when == "up to step 9, 2 times"
    assert Failure(subject="a", reason="b", first_step=3, last_step=90, count=12).when == "steps 3 to 90, 12 times"


def test_failures_from_many_threads_are_all_counted():
    failures = Failures()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: failures.report(f"sink {at % 3}", "full", "free it"), range(300)))
    assert [one.count for one in failures.records] == [100, 100, 100]
