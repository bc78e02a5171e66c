"""One event, one finding: how it opens, goes on, clears and opens again."""

import logging
import math
import warnings
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pytest

from stabmon.errors import ConfigError
from stabmon.metrics import METRICS
from stabmon.records import Evidence, ModelMap, RunInfo, RunState, Severity
from stabmon.rules import Engine, Explanation, Limits, registry
from stabmon.rules.view import HISTORY, Run
from stabmon.series import MISSING, Layout, Logged
from stabmon.store import RunWriter, open_run

FACTS = {"layers": 2, "heads": 2, "max_length": 1024, "is_causal": True, "bias": -6.931}
DOCUMENTED = """Flag something.

What it checks: a.
Why it matters: b.
Suggested fix: c.
When the fix is wrong: d.
References: e.
"""


ANY_TIME = Limits.from_mapping({"att.first_steps": 1000})


def starving(written, masses):
    return written({"model": FACTS, "steps": len(masses), "series": {"row_mass": 0.8, "layers.1/row_mass": masses}})


@pytest.fixture
def own_rules():
    with registry.only():
        yield


def test_a_finding_opens_only_when_enough_samples_agree(written):
    assert starving(written, [0.8, 0.01, 0.01, 0.8, 0.01, 0.01]).findings(limits=ANY_TIME) == ()
    (found,) = starving(written, [0.8, 0.01, 0.01, 0.01]).findings(limits=ANY_TIME)
    assert (found.layer, found.opened, found.last, found.cleared) == ("layers.1", 3, 3, None)


def test_the_first_sample_of_a_run_needs_no_confirmation(written):
    (found,) = starving(written, [0.01]).findings()
    assert found.opened == 0


def test_a_finding_keeps_its_worst_value_and_clears_where_it_was_over(written):
    (found,) = starving(written, [0.01, 0.002, 0.01, 0.8, 0.8, 0.8, 0.8]).findings()
    assert (found.value, found.peak, found.last, found.cleared) == (pytest.approx(0.002), 1, 2, 3)
    assert "0.002" in found.message
    assert found.cells[0].value == found.value


def test_a_finding_does_not_flicker_around_its_limit(written):
    (found,) = starving(written, [0.01] + [0.049, 0.055] * 20).findings()
    assert found.cleared is None
    assert starving(written, [0.055] * 40).findings(limits=ANY_TIME) == ()


def test_a_short_pause_does_not_clear_a_finding(written):
    (found,) = starving(written, [0.01, 0.8, 0.8, 0.01, 0.8, 0.8, 0.01]).findings()
    assert (found.cleared, found.last) == (None, 6)


def test_what_opens_again_is_the_same_finding_with_a_count(written):
    masses = [0.01, 0.8, 0.8, 0.8, 0.01, 0.002, 0.01]
    (found,) = starving(written, masses).findings(limits=ANY_TIME)
    assert (found.opened, found.times, found.reopened, found.last, found.cleared) == (0, 2, 6, 6, None)
    assert (found.value, found.peak) == (pytest.approx(0.01), 0)
    (found,) = starving(written, [*masses, 0.002, 0.8, 0.8, 0.8]).findings(limits=ANY_TIME)
    assert (found.value, found.peak, found.since, found.cleared) == (pytest.approx(0.002), 7, 6, 8)


def test_a_repetition_at_another_severity_is_another_finding(written, own_rules):
    def graded(run, limits):
        for hit in run.series("row_mass").above(1.0):
            severity = Severity.ERROR if hit.value > 10 else Severity.INFO
            yield registry.Observation(hit, lambda: Explanation("said", "cause"), severity=severity)

    graded.__doc__ = DOCUMENTED
    registry.rule("ATT904", "graded", severity=Severity.INFO, evidence=Evidence.MEASURED)(graded)
    quiet = [0.5] * 3
    masses = [2, *quiet, 20, *quiet, 2, *quiet, 2, 20, *quiet, 2, 20, 20]
    run = written({"model": FACTS | {"layers": 1}, "steps": len(masses), "series": {"row_mass": masses}})
    assert [(one.severity, one.opened, one.times, one.reopened, one.cleared) for one in run.findings()] == [
        (Severity.INFO, 0, 4, 17, 18),
        (Severity.ERROR, 4, 3, 18, None),
    ]


def test_a_repetition_from_another_cause_is_another_finding_up_to_a_few(written, own_rules):
    for code, metric, explained in (("ATT905", "logit_std", ()), ("ATT906", "row_mass", ("ATT905",))):

        def above_one(run, limits, metric=metric):
            for hit in run.series(metric).above(1.0):
                yield registry.Observation(hit, lambda: Explanation("said", "cause"))

        above_one.__doc__ = DOCUMENTED
        made = registry.rule(
            code, f"of-{code.lower()}", severity=Severity.INFO, evidence=Evidence.MEASURED, symptom_of=explained
        )
        made(above_one)
    pause = 12
    masses, stds = ([2] + [0.5] * pause) * 4, [0.5] * 2 * (pause + 1) + ([2] + [0.5] * pause) * 2
    series = {"row_mass": masses, "logit_std": stds}
    run = written({"model": FACTS | {"layers": 1}, "steps": len(masses), "series": series})
    assert [(one.code, one.opened, one.times, one.follows) for one in run.findings()] == [
        ("ATT906", 0, 2, None),
        ("ATT905", 26, 2, None),
        ("ATT906", 26, 2, ("ATT905", "layers.0", 26)),
    ]


def test_symptoms_that_open_before_their_cause_each_time_stay_a_few(written, own_rules):
    for code, metric, explained in (("ATT907", "logit_std", ()), ("ATT908", "row_mass", ("ATT907",))):

        def over_one(run, limits, metric=metric):
            for hit in run.series(metric).above(1.0):
                yield registry.Observation(hit, lambda: Explanation("said", "cause"))

        over_one.__doc__ = DOCUMENTED
        made = registry.rule(
            code, f"of-{code.lower()}", severity=Severity.INFO, evidence=Evidence.MEASURED, symptom_of=explained
        )
        made(over_one)
    masses = ([2, 2, 2] + [0.5] * 17) * 30
    stds = ([0.5, 0.5, 2] + [0.5] * 17) * 30
    run = written({"model": FACTS | {"layers": 1}, "steps": 600, "series": {"row_mass": masses, "logit_std": stds}})
    found = [one for one in run.findings() if one.code == "ATT908"]
    assert len(found) == 3
    assert sum(one.times for one in found) == 30


def test_samples_that_were_not_taken_neither_clear_nor_confirm(written):
    (found,) = starving(written, [0.01, None, None, None, None, 0.8, 0.8]).findings()
    assert found.cleared is None
    assert starving(written, [0.8, 0.01, None, 0.01, None, None]).findings(limits=ANY_TIME) == ()


def test_observe_returns_what_opened_grew_or_cleared_and_nothing_else(written):
    run = starving(written, [0.01, 0.01, 0.0099, 0.005, 0.005, 0.8, 0.8, 0.8, 0.8])
    engine = run.engine()
    changed = [len(engine.observe(step, row)) for step, row in zip(run.steps, run.rows, strict=True)]
    assert changed == [1, 0, 0, 1, 0, 0, 0, 1, 0]


def test_nan_is_never_over_a_limit_and_infinity_always_is(written):
    for value, expected in ((math.nan, 0), (math.inf, 2), (-math.inf, 0)):
        run = written({"model": FACTS, "series": {"row_mass": value}})
        found = [finding for finding in run.findings(ignore=("NUM001",)) if finding.code == "ATT001"]
        assert len(found) == expected


def test_one_non_finite_event_is_one_finding(written):
    series = {
        "row_mass": [0.8, math.inf],
        "branch_ratio": [2, math.nan],
        "loss": [3, math.nan],
        "logit_std": [1, math.inf],
    }
    run = written({"model": FACTS, "steps": 2, "series": series})
    (found,) = run.findings()
    assert (found.code, found.layer, found.metric, found.opened) == ("NUM001", "layers.0", "logit_std", 1)
    assert found.cells[-1].step == 0


def test_non_finite_layers_come_in_natural_order_and_gradients_from_the_back(written):
    facts = FACTS | {"layers": 12}
    forward = {"layers.10/logit_max": math.nan, "layers.2/attention_norm": math.nan, "loss": math.nan}
    (found,) = written({"model": facts, "series": forward}).findings()
    assert (found.layer, found.metric) == ("layers.2", "attention_norm")
    (found,) = written({"model": facts, "series": {"gradient_norm": math.nan}}).findings()
    assert found.layer == "layers.11"


def test_a_large_start_stays_open_after_the_first_steps_until_it_is_over(written):
    masses = [256.0] * 50 + [1.0] * 3
    run = written({"model": FACTS, "steps": 53, "series": {"row_mass": masses}})
    assert {(finding.opened, finding.cleared) for finding in run.findings()} == {(0, 50)}
    late = written({"model": FACTS, "steps": 53, "series": {"row_mass": [1.0] * 30 + [256.0] * 23}})
    assert late.findings() == ()


def test_a_symptom_follows_from_its_cause_in_the_same_layer_and_from_nothing_where_that_is_ignored(written):
    run = written({"model": FACTS, "series": {"row_mass": 256, "branch_ratio": 1000}})
    assert {(finding.code, finding.layer): finding.follows for finding in run.findings()} == {
        ("ATT001", "layers.0"): None,
        ("ATT001", "layers.1"): None,
        ("RES001", "layers.0"): ("ATT001", "layers.0", 0),
        ("RES001", "layers.1"): ("ATT001", "layers.1", 0),
    }
    alone = run.findings(ignore=("ATT001",))
    assert {(finding.code, finding.follows) for finding in alone} == {("RES001", None)}


def test_a_rule_is_ignored_by_code_or_name_and_an_unknown_one_names_the_nearest(written):
    run = starving(written, [0.01])
    assert run.findings(ignore=("att002",)) == run.findings(ignore=("starved-rows",)) == ()
    with pytest.raises(ConfigError, match="ATT002"):
        run.findings(ignore=("ATT02",))


def test_limits_can_be_set(written):
    run = written({"model": FACTS, "series": {"row_mass": 8}})
    assert run.findings() == ()
    found = run.findings(limits=Limits.from_mapping({"att.row_mass_max": 6}))
    assert [finding.limit for finding in found] == [6, 6]


def test_the_same_samples_give_the_same_findings_and_the_engine_keeps_none_of_them(written):
    run = starving(written, [0.01, 0.002, 0.8, 0.8, 0.8, 0.01, 0.01, 0.01])
    engine, buffer = run.engine(), np.empty_like(run.rows[0])
    for step, row in zip(run.steps, run.rows, strict=True):
        buffer[:] = row
        engine.observe(step, buffer)
    assert engine.findings == run.findings()


def test_the_worst_head_is_named(written):
    run = written({"model": FACTS, "series": {"row_mass": 20, "layers.1:1/row_mass": 30}})
    first, second = run.findings()
    assert (first.head, second.head, second.value) == (0, 1, 30)
    assert "in both heads" in second.message


def _raises(run, limits):
    raise ZeroDivisionError
    yield


def _tells_a_number(run, limits):
    for hit in run.series("row_mass").above(0.1):
        yield registry.Observation(hit, lambda: Explanation(1.0, "cause"))


def _exits(run, limits):
    raise SystemExit(3)
    yield


def _recurses(run, limits):
    yield from _recurses(run, limits)


@pytest.mark.parametrize("fails", [_raises, _tells_a_number, _exits, _recurses])
def test_a_failing_rule_is_reported_once_and_the_others_go_on(fails, written, own_rules, caplog):
    seen = []

    def works(run, limits):
        seen.append(run.step)
        return ()

    for code, name, check in (("ATT901", "fails", fails), ("ATT902", "works", works)):
        check.__doc__ = DOCUMENTED
        registry.rule(code, name, severity=Severity.INFO, evidence=Evidence.MEASURED)(check)
    run = starving(written, [0.8] * 4)
    with caplog.at_level(logging.ERROR, logger="stabmon"):
        assert "ATT901" not in {finding.code for finding in run.findings()}
    assert seen == [0, 1, 2, 3]
    (record,) = caplog.records
    assert record.getMessage().startswith("rule ATT901 failed at step 0 and is switched off for this run: ")
    assert ".py, line " in record.getMessage()


def test_texts_and_fixes_are_made_only_when_a_finding_is_new_or_worse(written, own_rules):
    made = []

    def counted(run, limits):
        for hit in run.series("row_mass").above(1.0):
            yield registry.Observation(hit, partial(explain, run.step), fixes)

    def explain(step):
        made.append(step)
        return Explanation("said", "cause")

    def fixes():
        made.append("fixes")
        return ()

    counted.__doc__ = DOCUMENTED
    registry.rule("ATT903", "counted", severity=Severity.INFO, evidence=Evidence.MEASURED)(counted)
    masses = [2, 2, 2, 3, 3, 2]
    written({"model": FACTS | {"layers": 1}, "steps": 6, "series": {"row_mass": masses}}).findings()
    assert made == [0, "fixes", 3]


def test_a_resumed_run_forgets_the_samples_that_it_repeats(written):
    run = written({"model": FACTS, "series": {"loss": 1.0}})
    view = Run(run.info, run.layout)
    for step in (0, 1, 2, 3, 2):
        view.add(step, run.rows[0])
    assert view.past_steps(9) == [0, 1]


def test_history_is_bounded_and_keeps_the_newest(written):
    run = written({"model": FACTS, "series": {"loss": 1.0}})
    view = Run(run.info, run.layout)
    for step in range(3 * HISTORY + 5):
        view.add(step, np.full(run.layout.width, step, np.float32))
    assert view.past_steps(3) == [3 * HISTORY + 1, 3 * HISTORY + 2, 3 * HISTORY + 3]
    assert view.series("loss").past(2)[:, 0].tolist() == [3 * HISTORY + 2, 3 * HISTORY + 3]
    assert len(view.past(10 * HISTORY)) == HISTORY - 1
    assert view.series("loss").start.tolist() == [2.0]


def test_a_run_without_the_metrics_of_a_rule_finds_nothing(written):
    assert written({"model": FACTS, "steps": 3, "series": {"learning_rate": 1e-3}}).findings() == ()
    empty = written({"model": FACTS, "series": {"loss": None}})
    assert empty.findings() == ()
    assert np.array([MISSING]).view(np.uint32)[0] == empty.rows.view(np.uint32)[0, 0]
    assert Engine(empty.info, empty.layout).findings == ()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", [{}, {"workload": "vision", "training": {"precision": "fp16", "clip": 0.1}}])
def test_no_rule_fails_on_numbers_of_any_kind(seed, config, written, caplog):
    facts = FACTS | {"layers": 3}
    series = dict.fromkeys(METRICS, 1.0)
    run = written({"model": facts, "config": config, "steps": 150, "series": series})
    noise = np.random.default_rng(seed)
    rows = np.exp(noise.normal(0, 3, run.rows.shape)).astype(np.float32)
    odd = np.array([np.nan, np.inf, -np.inf, 0, -1, 1e38, 1e-38, MISSING], np.float32)
    where = noise.random(rows.shape) < noise.choice([0.0, 0.01, 0.3, 1.0], (len(rows), 1))
    rows[where] = noise.choice(odd, where.sum())
    engine = run.engine()
    with caplog.at_level(logging.ERROR, logger="stabmon"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for step, row in enumerate(rows):
            engine.observe(step, row)
    assert caplog.records == []
    assert all(0 <= finding.confidence <= 1 for finding in engine.findings)


def test_a_replay_sees_what_was_logged_between_samples_as_the_live_run_did(tmp_path):
    layout = Layout.of([("loss", None, 1), ("row_mass", "layers.0", 1)])
    run = RunInfo(name="run", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=1))
    live, writer = Engine(run, layout), RunWriter.create(tmp_path / "run", run, layout)
    for sample in range(150):
        value = math.nan if sample == 140 else 3.0
        logged = [Logged(10 * sample - 3, 0.0, "loss", value), Logged(10 * sample - 2, 0.0, "loss", 2.0)]
        row = np.array([MISSING, 1.0], np.float32)
        live.logged(logged if sample else ())
        live.observe(10 * sample, row)
        writer.sample(10 * sample, 0.0, row, logged if sample else ())
    writer.close(RunState.FINISHED)
    replayed = Engine(run, layout)
    with open_run(tmp_path / "run") as reader:
        replayed.catch_up(reader)
    assert [found.opened for found in live.findings if found.code == "NUM001"] == [1400]
    assert [found.message for found in replayed.findings] == [found.message for found in live.findings]
