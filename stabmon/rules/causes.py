"""Causes and symptoms: a finding follows from the earliest one that explains it."""

from collections.abc import Iterator

from stabmon.records import Severity
from stabmon.rules.live_finding import LiveFinding

RECENT = 8
"""Samples for which a cleared finding still counts as a cause, and by which a symptom may open before its cause: loss
spikes follow by 1 to 8 steps (arXiv 2304.13013), and one rule's limit is reached before another's."""


class Causes:
    """The findings of one run, each with its cause."""

    def __init__(self) -> None:
        self.findings: list[LiveFinding] = []
        """Every finding, in the order of opening."""

    def opened(self, finding: LiveFinding, samples: int) -> list[LiveFinding]:
        """Take a finding that opened at the sample with this number; return the others that changed by it."""
        self.findings = [other for other in self.findings if other.key != finding.key]
        finding.follows = self.cause_of(finding, samples)
        self.findings.append(finding)
        return [*self._led(finding), *self._explained(finding)]

    def reopened(self, finding: LiveFinding) -> list[LiveFinding]:
        """Take a finding that opened again; return the others that changed by it."""
        return self._explained(finding)

    def escalated(self, finding: LiveFinding, samples: int) -> list[LiveFinding]:
        """Take a finding whose severity rose: information may be too light to be its cause."""
        if finding.follows is not None and not _weighs(finding.follows, finding):
            finding.follows = self.cause_of(finding, samples)
        return self._led(finding)

    def cause_of(self, finding: LiveFinding, samples: int) -> LiveFinding | None:
        """Return the finding that one which opens or escalates at the sample with this number follows from, if any."""
        for other in self._recent(samples):
            if other is not finding and _explains(other, finding):
                root = other.follows or other
                if root is not finding and _weighs(root, finding):
                    return root
        return None

    def _recent(self, samples: int) -> Iterator[LiveFinding]:
        return (finding for finding in self.findings if finding.ended is None or samples - finding.ended < RECENT)

    def _explained(self, cause: LiveFinding) -> list[LiveFinding]:
        """Let findings that opened shortly before ``cause`` follow from it: limits are crossed one after another."""
        root = cause.follows or cause
        changed: list[LiveFinding] = []
        for finding in self.findings:
            started_first = finding.sample < cause.began - RECENT
            if finding in (cause, root) or finding.follows is not None or started_first:
                continue
            if _explains(cause, finding) and _weighs(root, finding):
                for below in [finding, *(other for other in self.findings if other.follows is finding)]:
                    below.follows = root
                    below.touch()
                    changed += [below, *self._led(below)]
        return changed

    def _led(self, finding: LiveFinding) -> list[LiveFinding]:
        """Note the steps by which the cause of a finding about the loss came before it."""
        root = finding.follows
        if root is None or root.lead is not None or not finding.rule.code.startswith("LOS"):
            return []
        root.lead = finding.opened - root.opened
        root.touch()
        return [root]


def _explains(cause: LiveFinding, finding: LiveFinding) -> bool:
    """Return whether ``finding`` is a symptom of ``cause``: in the same layer, or one of them about the whole run."""
    if cause.rule.code not in finding.rule.symptom_of:
        return False
    return cause.run_wide or finding.run_wide or cause.layer == finding.layer


def _weighs(cause: LiveFinding, finding: LiveFinding) -> bool:
    """Return whether ``cause`` is severe enough: information explains information only."""
    return cause.severity is not Severity.INFO or finding.severity is Severity.INFO
