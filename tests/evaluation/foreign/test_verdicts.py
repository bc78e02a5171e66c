"""Labels of foreign runs: against the best arm, against the softmax twin, and what a fix did."""

import math

import pytest

from stabmon.errors import ConfigError
from stabmon.evaluation.foreign.evaluate import Folder
from stabmon.evaluation.foreign.report import figures
from stabmon.evaluation.foreign.setup import SIZES, setups
from stabmon.evaluation.foreign.training import FILE, Ended
from stabmon.evaluation.foreign.verdicts import verdict, yardsticks
from stabmon.evaluation.verdict import Alarm
from stabmon.records import Severity
from stabmon.rules import Limits

EVERY = {one.name: one for one in setups(SIZES["cpu"])}
STEPS = 100


def run(name, end, start=3.0):
    losses = [start + (end - start) * min(1.0, step / 50) for step in range(STEPS)]
    return Ended(setup=EVERY[name], losses=losses, frequencies=3.0, seconds=1.0, device="cpu")


def judged(end, alarms=(), fixed=None, name="gpt.zero.0"):
    runs = [run("gpt.softmax.0", 2.0), run("gpt.length.0", 2.02), run(name, end)]
    held = yardsticks(runs)["gpt"]
    after = None if fixed is None else run(name, fixed)
    return verdict(runs[2], runs[0], held, tuple(alarms), "a fix", after)


def alarm(severity=Severity.WARNING, at_start=False):
    return Alarm(code="ATT001", severity=severity, opened=0, at_start=at_start, fix=None)


@pytest.mark.parametrize(("end", "why"), [(2.03, "well"), (2.1, "undecided"), (2.3, "failed"), (math.nan, "failed")])
def test_a_run_is_held_to_the_best_arm(end, why):
    assert judged(end).why == why


def test_a_run_behind_its_twin_is_called_so_at_the_step_that_shows_it():
    assert not judged(2.04).is_behind
    late = judged(2.2)
    assert late.is_behind
    assert 10 < late.shown_behind < 50
    assert judged(2.0).shown_behind is None


def test_harm_and_closure_are_those_of_the_first_fix():
    assert judged(2.3, fixed=2.05).fixed is True
    assert judged(2.3, fixed=2.4).fixed is False
    assert judged(2.03, fixed=2.2).harmed is True
    assert judged(2.03, fixed=2.01).harmed is False
    assert judged(2.03).harmed is None


def test_figures_name_the_runs_that_break_them():
    found = {
        one.name: one
        for one in figures([judged(2.3), judged(2.02, [alarm(at_start=True)], fixed=2.3, name="gpt.qk.0")])
    }
    assert found["failed runs found"].broken_by == ("gpt.zero.0",)
    assert found["ended well, with a warning"].broken_by == ("gpt.qk.0",)
    assert found["ended well, with an error"].broken_by == ()
    assert found["harm by the first fix, of runs that ended well"].value.value == 1.0
    assert found["alarmed at step 0 and failed"].value.value == 0.0


def test_stored_runs_of_another_size_are_refused_and_not_taken_for_those_asked_for(tmp_path):
    folder = Folder(tmp_path, "cpu", Limits())
    stored = run("gpt.zero.0", 2.0)
    folder.of(stored.setup).mkdir(parents=True)
    (folder.of(stored.setup) / FILE).write_text(stored.model_dump_json())
    assert folder.ended(stored.setup) == stored
    assert folder.ended(EVERY["gpt.qk.0"]) is None
    longer = stored.setup.model_copy(update={"steps": 10 * stored.setup.steps})
    with pytest.raises(ConfigError, match="give the same --subset and --steps, or another --dir"):
        folder.ended(longer)
