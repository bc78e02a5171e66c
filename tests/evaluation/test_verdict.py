"""An alarm counts as raised at the step at which it warns somebody, not at the one at which it was noted."""

from stabmon.evaluation.verdict import alarms
from stabmon.findings import Finding
from stabmon.records import Severity
from tests.evaluation.made import finding


def _raised(*late: Finding, warned: dict[str, int], early: tuple[Finding, ...] = ()) -> list[tuple[str, int, bool]]:
    steps = {one.key: warned[one.code] for one in late if one.code in warned}
    return [(alarm.code, alarm.opened, alarm.at_start) for alarm in alarms(early, late, steps)]


def test_information_that_becomes_a_warning_counts_from_then_on() -> None:
    starved, growth = finding("ATT002", 0, Severity.WARNING), finding("ATT003", 15, Severity.ERROR)
    assert _raised(starved, growth, warned={"ATT002": 39, "ATT003": 17}) == [
        ("ATT003", 17, False),
        ("ATT002", 39, False),
    ]


def test_information_is_no_alarm_and_preflight_findings_come_first() -> None:
    noted, early = finding("RES003", 0, Severity.INFO), finding("ATT001", 0, Severity.ERROR)
    again = finding("ATT001", 2, Severity.ERROR)
    assert _raised(noted, again, warned={"ATT001": 2}, early=(early,)) == [("ATT001", 0, True)]
