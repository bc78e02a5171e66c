"""Causes of findings: the earliest finding that explains another one is its cause."""

import pytest

from stabmon.findings import digest
from stabmon.records import Evidence, Severity
from stabmon.rules import Explanation, registry

FACTS = {"layers": 2, "heads": 2, "max_length": 1024, "is_causal": True, "bias": -6.931}
SECTIONS = "\n".join(f"{section}: words." for section in registry.SECTIONS)


@pytest.fixture
def rules():
    """Register rules that flag a metric above 1: ``code=(metric, severity, symptom_of, confirmations)``."""

    def register(**wanted):
        for code, (metric, severity, symptom_of, confirmations) in wanted.items():
            _register(code, metric, severity, symptom_of, confirmations)

    with registry.only():
        yield register


def _register(code, metric, severity, symptom_of, confirmations):
    def check(run, limits):
        for hit in run.series(metric).above(1.0):
            yield registry.Observation(hit, lambda: Explanation("said", "cause"), confirmations=confirmations)

    check.__doc__ = f"Flag it.\n\n{SECTIONS}\n"
    decorate = registry.rule(code, code.lower(), severity=severity, evidence=Evidence.MEASURED, symptom_of=symptom_of)
    decorate(check)


def follows(written, steps=12, **series):
    run = written(
        {"model": FACTS, "steps": steps, "series": {name.replace("__", "/"): v for name, v in series.items()}}
    )
    return {(one.code, one.layer): one.follows for one in run.findings()}


def at(step, steps=12):
    return [2 if i >= step else 0.1 for i in range(steps)]


W, INFO, ERROR = Severity.WARNING, Severity.INFO, Severity.ERROR


def test_a_symptom_in_another_layer_is_listed_by_itself_and_one_of_the_run_is_not(written, rules):
    rules(ATT001=("row_mass", W, (), 1), RES001=("branch_ratio", W, ("ATT001",), 1), LOS001=("loss", W, ("ATT001",), 1))
    found = written(
        {"model": FACTS, "steps": 12, "series": {"layers.0/row_mass": at(2), "branch_ratio": at(4), "loss": at(6)}}
    ).findings()
    cause = ("ATT001", "layers.0", 2)
    assert {(one.code, one.layer): one.follows for one in found} == {
        ("ATT001", "layers.0"): None,
        ("RES001", "layers.0"): cause,
        ("RES001", "layers.1"): None,
        ("LOS001", None): cause,
    }
    assert found[0].lead == 4


def test_what_follows_from_a_symptom_follows_from_its_cause(written, rules):
    rules(
        ATT001=("row_mass", W, (), 1),
        GRD001=("total_gradient_norm", W, ("ATT001",), 1),
        LOS001=("loss", W, ("GRD001",), 1),
    )
    found = follows(written, row_mass=at(1), total_gradient_norm=at(3), loss=at(5))
    assert found[("LOS001", None)] == found[("GRD001", None)] == ("ATT001", "layers.0", 1)


def test_a_cause_that_is_confirmed_after_its_symptom_groups_it(written, rules):
    rules(
        ATT003=("logit_std", W, (), 5),
        ATT004=("saturated_fraction", W, ("ATT003",), 1),
        LOS001=("loss", W, ("ATT004",), 1),
    )
    found = follows(written, logit_std=at(3), saturated_fraction=at(4), loss=at(5))
    assert found[("ATT004", "layers.1")] == ("ATT003", "layers.1", 7)
    assert found[("LOS001", None)] == ("ATT003", "layers.0", 7)


def test_of_two_that_explain_each_other_the_first_is_the_cause(written, rules):
    rules(ATT003=("logit_std", W, ("ATT008",), 1), ATT008=("query_norm", W, ("ATT003",), 1))
    found = follows(written, **{"layers.0/logit_std": at(2), "layers.0/query_norm": at(4)})
    assert (found[("ATT003", "layers.0")], found[("ATT008", "layers.0")]) == (None, ("ATT003", "layers.0", 2))
    found = follows(written, **{"layers.0/logit_std": at(4), "layers.0/query_norm": at(2)})
    assert (found[("ATT008", "layers.0")], found[("ATT003", "layers.0")]) == (None, ("ATT008", "layers.0", 2))


def test_information_explains_information_only(written, rules):
    rules(
        LOS004=("loss", INFO, (), 1),
        GRD001=("total_gradient_norm", W, ("LOS004",), 1),
        NUM002=("keys", INFO, ("LOS004",), 1),
    )
    found = follows(written, loss=at(2), total_gradient_norm=at(2), **{"layers.0/keys": at(2)})
    assert found[("GRD001", None)] is None
    assert found[("NUM002", "layers.0")] == ("LOS004", None, 2)


def test_a_cause_that_has_long_been_over_explains_nothing(written, rules):
    rules(ATT001=("row_mass", W, (), 1), LOS001=("loss", W, ("ATT001",), 1))
    brief = [2] + [0.1] * 29
    assert follows(written, 30, row_mass=brief, loss=at(8, 30))[("LOS001", None)] == ("ATT001", "layers.0", 0)
    assert follows(written, 30, row_mass=brief, loss=at(20, 30))[("LOS001", None)] is None


def test_groups_are_in_the_order_of_their_most_severe_finding(written, rules):
    rules(ATT001=("row_mass", W, (), 1), LOS002=("loss", ERROR, ("ATT001",), 1), CFG001=("keys", W, (), 1))
    series = {"keys": at(0), "layers.1/row_mass": at(3), "loss": at(5)}
    first, second = digest(written({"model": FACTS, "steps": 12, "series": series}).findings()).entries
    assert [first.code, *(one.code for one in first.symptoms)] == ["ATT001", "LOS002"]
    assert (second.code, second.where) == ("CFG001", "layers.0 and layers.1")


def test_confidence_rises_with_the_distance_from_the_limit_and_with_the_samples_that_agree(written, rules):
    rules(ATT001=("row_mass", W, (), 1))
    for series, sure in (([1.5], 0.6), ([9.0], 0.9), ([1.5] * 4, 0.857), ([1.5] * 40, 0.923)):
        run = written({"model": FACTS, "steps": len(series), "series": {"layers.0/row_mass": series}})
        assert run.findings()[0].confidence == pytest.approx(sure, abs=1e-3)
