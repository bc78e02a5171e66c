from pathlib import Path

import pytest

from stabmon.rules import catalogue

CASES = Path(__file__).parent / "cases"
CODES = [rule.code for rule in catalogue()]


@pytest.mark.parametrize("code", CODES)
def test_a_bad_run_is_found_where_when_and_with_the_fix_that_its_case_states(code, case):
    run, expected = case(CASES / code / "bad.yaml")
    found = [finding for finding in run.findings() if finding.code == code]
    assert [finding.layer for finding in found] == [wanted["layer"] for wanted in expected]
    for finding, wanted in zip(found, expected, strict=True):
        kinds = [fix.kind for fix in finding.fixes]
        assert (finding.opened, finding.severity.value, kinds) == (
            wanted["opened"],
            wanted["severity"],
            wanted.get("fixes", []),
        )
        assert wanted.get("head", finding.head) == finding.head
        assert wanted.get("metric", finding.metric) == finding.metric
        if "value" in wanted:
            assert finding.fix.value == pytest.approx(wanted["value"], abs=1e-9)
            assert finding.fix.module == f"{finding.layer}.attention"


@pytest.mark.parametrize("code", CODES)
def test_a_good_run_is_left_alone_by_the_rule(code, case):
    run, expected = case(CASES / code / "good.yaml")
    assert expected == []
    assert [finding.message for finding in run.findings() if finding.code == code] == []


@pytest.mark.parametrize("code", CODES)
def test_a_finding_says_what_it_saw_in_one_sentence_with_its_evidence(code, case):
    run, _ = case(CASES / code / "bad.yaml")
    for finding in run.findings():
        assert "\n" not in finding.message
        assert "\n" not in finding.cause
        assert finding.cells[0].metric == finding.metric
        assert finding.cells[0].step == finding.peak
        assert all(fix.why and fix.code for fix in finding.fixes)


def test_every_case_on_disk_belongs_to_a_rule():
    assert sorted(path.name for path in CASES.iterdir()) == CODES
