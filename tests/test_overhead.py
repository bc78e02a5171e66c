"""The overhead benchmark runs and its numbers fit together; how large they are is for the benchmark to say."""

from stabmon import config
from stabmon.overhead import measure


def test_steps_with_and_without_the_monitor_are_compared():
    small = {"model.layers": 1, "model.width": 16, "model.heads": 2, "model.context": 32, "training.batch": 2}
    result = measure(config.override(config.load("naive"), small), steps=8)
    assert result["steps"] == 8
    assert result["ratio_low"] <= result["ratio"] <= result["ratio_high"]
    assert result["milliseconds_with"] > 0
    assert 0 < result["self_measured"] < 1
