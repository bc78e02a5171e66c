"""Findings as they are shown: causes in order, and beneath each the symptoms that follow from it."""

from collections.abc import Iterable
from typing import NamedTuple

from stabmon.findings import Finding, Key
from stabmon.names import natural_key
from stabmon.records import Severity


class Group(NamedTuple):
    """A finding that stands for itself, and those that follow from it, in the order in which they opened."""

    cause: Finding
    symptoms: tuple[Finding, ...]

    @property
    def severity(self) -> Severity:
        """The gravest of all its findings."""
        return max((self.cause, *self.symptoms), key=lambda finding: finding.severity.rank).severity


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Group findings by cause: grave groups first, then the earliest, layers in natural order.

    A symptom whose cause is not among ``findings`` stands for itself.
    """
    all_ = sorted(findings, key=lambda finding: (finding.opened, natural_key(finding.layer or "")))
    known = {finding.key for finding in all_}
    symptoms: dict[Key, list[Finding]] = {}
    for finding in all_:
        if finding.follows in known and finding.follows is not None:
            symptoms.setdefault(finding.follows, []).append(finding)
    groups = [
        Group(finding, tuple(symptoms.get(finding.key, ())))
        for finding in all_
        if finding.follows is None or finding.follows not in known
    ]
    return sorted(groups, key=lambda group: -group.severity.rank)
