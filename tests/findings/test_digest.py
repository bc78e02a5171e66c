"""The digest: one order, one grouping and one wording of findings for every place that shows them."""

import pytest

from stabmon.findings import Digest, Finding, digest
from stabmon.findings.digest import counts, first_fixes, grouped, in_order
from stabmon.fixes.change import Effect, Safety
from stabmon.fixes.record import Fix
from stabmon.names import span
from stabmon.records import Evidence, Heartbeat, RunState, Severity

INFO, WARNING, ERROR = Severity


def finding(code="ATT001", layer="layers.0", opened=0, severity=WARNING, **changes):
    whole = {
        "name": f"name-of-{code.lower()}",
        "evidence": Evidence.MEASURED,
        "head": None,
        "metric": "row_mass",
        "value": 12.0,
        "limit": 10.0,
        "message": f"rows of {layer} are heavy",
        "cause": "the bias",
        "peak": opened,
        "last": changes.get("cleared", opened),
    }
    return Finding(**whole | changes | {"code": code, "layer": layer, "opened": opened, "severity": severity})


def fix(module, value=-5.5, effect=None):
    return Fix(
        kind="bias",
        module=module,
        value=value,
        safety=Safety.ANY_TIME,
        why="rows then sum to one.",
        code="x",
        effect=effect,
    )


def test_repetition_is_said_with_its_count():
    def when(*findings):
        (entry,) = digest(findings).entries
        return entry.when

    again = {"times": 17, "reopened": 300, "last": 310}
    assert when(finding(opened=40, **again)) == "17 times since step 40"
    assert when(finding(opened=40, **again, cleared=311)) == "17 times in steps 40 to 310"
    assert when(finding(opened=40, **again), finding(opened=50, layer="layers.1")) == "up to 17 times since step 40"
    assert digest([finding(opened=40, **again)]).health.title == "At risk since step 300"


def codes(entries):
    return [entry.code for entry in entries]


def test_findings_are_ordered_by_open_severity_step_and_natural_order_of_layers():
    wanted = [
        finding("UPD001", None, 9, ERROR),
        finding("ATT001", "layers.2"),
        finding("ATT001", "layers.10"),
        finding("CFG001", "layers.0"),
        finding("ATT001", "layers.0", 3),
        finding("LOS001", None, severity=INFO),
        finding("NUM001", None, severity=ERROR, cleared=4),
        finding("GRD001", None, cleared=2),
    ]
    assert in_order(reversed(wanted)) == tuple(wanted)


def test_the_layers_of_a_rule_are_one_group_and_what_follows_is_under_it():
    layers = [finding(layer=f"layers.{index}", severity=ERROR) for index in range(3)]
    symptoms = [finding("RES001", f"layers.{index}", 5, follows=layers[index].key) for index in range(2)]
    (entry,) = digest([*symptoms, *reversed(layers)]).entries
    assert (entry.code, entry.where, entry.when) == ("ATT001", "layers.0 to layers.2", "since step 0")
    assert entry.keys == ("ATT001:layers.0:0", "ATT001:layers.1:0", "ATT001:layers.2:0")
    assert entry.message == "rows of layers.0 are heavy (in layers.0)"
    assert entry.place_and_time == "in layers.0 to layers.2 since step 0"
    assert [(one.code, one.where) for one in entry.symptoms] == [("RES001", "layers.0 and layers.1")]


def test_severities_and_cleared_findings_of_one_rule_are_groups_of_their_own():
    found = [finding(), finding(layer="layers.1", severity=ERROR), finding(layer="layers.2", cleared=5, last=4)]
    entries = digest(found).entries
    assert [(one.severity, one.open, one.when) for one in entries] == [
        (ERROR, True, "since step 0"),
        (WARNING, True, "since step 0"),
        (WARNING, False, "steps 0 to 4"),
    ]
    assert len({one.id for one in entries}) == 3


def test_a_group_ranks_as_the_most_severe_of_its_symptoms():
    cause = finding("CFG001", opened=3)
    found = [finding("ATT001"), cause, finding("LOS002", None, 7, ERROR, follows=cause.key)]
    assert codes(digest(found).entries) == ["CFG001", "ATT001"]


def test_a_cause_that_has_cleared_stays_above_its_open_symptom():
    cause = finding("UPD001", None, cleared=3)
    shown = digest([finding("ATT001", cleared=9), cause, finding("LOS002", None, 7, ERROR, follows=cause.key)])
    assert codes(shown.entries) == ["UPD001", "ATT001"]
    assert shown.health.title == "Unhealthy since step 7"


def test_a_symptom_whose_cause_is_not_shown_is_listed_by_itself():
    assert codes(digest([finding(follows=("CFG001", None, 0))]).entries) == ["ATT001"]


def test_a_single_finding_names_its_head_and_one_of_the_run_no_layer():
    one, of_run = digest([finding(head=3), finding("LOS001", None)]).entries
    assert one.where == "layers.0 head 3"
    assert (of_run.where, of_run.place_and_time) == ("whole run", "since step 0")
    assert of_run.message == "rows of None are heavy"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["layers.3"], "layers.3"),
        (["layers.1", "layers.0", "layers.1"], "layers.0 and layers.1"),
        (["layers.10", "layers.9", "layers.8"], "layers.8 to layers.10"),
        (["layers.0", "layers.2", "layers.7"], "3 of layers.0 to layers.7"),
        (["encoder.0", "encoder.1", "decoder.0"], "3 of decoder.0 to encoder.1"),
        (["a.0.b", "a.1.b", "a.2.b"], "a.0.b to a.2.b"),
        (["first", "second", "third"], "3 of first to third"),
    ],
)
def test_layers_are_named_as_a_range_where_they_follow_one_another(names, text):
    assert span(names) == text


def test_the_fix_is_that_of_the_first_finding_with_its_reason_and_expected_effect():
    effect = Effect(metric="row_mass", before=128.0, after=1.0)
    with_fix, without = digest([finding(fixes=(fix("m", effect=effect),)), finding("CFG001")]).entries
    assert with_fix.fix == "bias = -5.5 in m"
    assert with_fix.advice == "bias = -5.5 in m: rows then sum to one. Expected: row mass 128 -> 1."
    assert (without.fix, without.advice) == (None, None)


def test_the_fixes_to_try_first_are_those_of_the_first_group_in_every_layer():
    light = finding("RES001", severity=INFO, fixes=(fix("gain"),))
    errors = [finding(layer=f"layers.{index}", severity=ERROR, fixes=(fix(f"m{index}"),)) for index in range(2)]
    found = [light, finding("NUM001", None, severity=ERROR), *errors, errors[0].model_copy(update={"opened": 9})]
    assert first_fixes(found) == (fix("m0"), fix("m1"))
    assert first_fixes([finding()]) == ()


def test_counts_are_by_severity_the_most_severe_first():
    assert list(counts([finding(), finding(severity=INFO), finding(), finding(severity=ERROR)]).items()) == [
        (ERROR, 1),
        (WARNING, 2),
        (INFO, 1),
    ]


def beat(state, step=9, **numbers):
    return Heartbeat(state=state, step=step, time=0.0, **numbers)


@pytest.mark.parametrize(
    ("found", "options", "level", "title", "text"),
    [
        ([], {"layers": 4}, "healthy", "Healthy", "No warning or error in 4 attention layers."),
        ([finding(severity=INFO)], {"layers": 1}, "healthy", "Healthy", "No warning or error in 1 attention layer."),
        ([], {"beat": beat(RunState.STARTING, -1)}, "info", "Waiting for the first step", "Nothing was sampled yet."),
        ([], {"beat": beat(RunState.CRASHED, -1)}, "info", "No step was recorded", ""),
        ([], {"beat": beat(RunState.PAUSED)}, "healthy", "Healthy", "No warning or error."),
        ([], {"beat": beat(RunState.FAILED)}, "healthy", "Healthy until it ended", "No warning or error."),
        (
            [finding(opened=3), finding("LOS001", None, 9)],
            {"beat": beat(RunState.FAILED)},
            "warning",
            "At risk since step 3",
            "name of att001 in layers.0, and 1 more warning.",
        ),
        (
            [finding(severity=ERROR), finding(layer="layers.1", severity=ERROR)],
            {},
            "error",
            "Unhealthy since step 0",
            "name of att001 in layers.0 and layers.1.",
        ),
        (
            [finding(cleared=4), finding("LOS001", None, cleared=9)],
            {},
            "recovered",
            "Healthy since step 9",
            "2 findings cleared.",
        ),
    ],
    ids=["healthy", "information", "waiting", "none", "paused", "failed", "warning", "error", "recovered"],
)
def test_the_findings_are_a_sentence_whatever_became_of_the_process(found, options, level, title, text):
    health = digest(found, **options).health
    assert (health.level, health.title, health.text) == (level, title, text)


@pytest.mark.parametrize("state", RunState)
def test_the_process_is_a_sentence_of_its_own_and_never_calls_a_lost_run_healthy(state):
    process = digest([], beat=beat(state, samples=8)).process
    assert process.title.lower() == state
    lively = {RunState.STARTING, RunState.RUNNING, RunState.FINISHED}
    assert (process.level == "healthy") == (state in lively)


def test_lost_samples_are_a_warning_about_the_process():
    process = digest([], beat=beat(RunState.RUNNING, samples=8, dropped=2)).process
    assert (process.level, process.text) == ("warning", "2 of 10 samples are lost.")
    assert digest([], beat=beat(RunState.FAILED, samples=8, dropped=2)).process.level == "error"


def test_of_rules_that_would_change_the_same_thing_the_first_says_so():
    layers = [f"layers.{index}" for index in range(2)]
    first, later = ([finding(code, at, fixes=(fix(at),)) for at in layers] for code in ("ATT001", "ATT003"))
    other = finding("ATT004", "layers.7", fixes=(fix("layers.7"),))
    entries = digest([*first, *later, other]).entries
    assert [(entry.code, entry.first_try) for entry in entries] == [
        ("ATT001", None),
        ("ATT003", "ATT001"),
        ("ATT004", None),
    ]
    assert entries[1].fix == "first try the fix of ATT001"


def test_a_digest_travels_as_json():
    cause = finding(severity=ERROR, fixes=(fix("m"),))
    shown = digest([cause, finding("RES001", opened=4, follows=cause.key)])
    assert Digest.model_validate_json(shown.model_dump_json()) == shown
    assert [len(group.findings) for group in grouped([cause])] == [1]


def test_the_verdict_counts_the_further_errors_and_warnings_and_leaves_information_out():
    found = [
        finding(severity=ERROR),
        finding("ATT003", "layers.1", severity=ERROR),
        *(finding("CFG001", f"layers.{layer}") for layer in range(3)),
        finding("ATT004", severity=INFO),
    ]
    text = digest(found, layers=4, beat=beat(RunState.FINISHED)).health.text
    assert text == "name of att001 in layers.0, and 1 more error and 3 more warnings."


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (finding(opened=3), "warning ATT001 name-of-att001 in layers.0, since step 3: rows of layers.0 are heavy"),
        (
            finding("LOS001", None, 3, severity=ERROR, last=5, cleared=6),
            "error LOS001 name-of-los001, steps 3 to 5: rows of None are heavy",
        ),
    ],
    ids=["open", "cleared"],
)
def test_a_finding_prints_as_one_line(one, text):
    assert str(one) == text
