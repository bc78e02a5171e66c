"""The fixes to try first: those of the gravest finding, in every layer. No torch."""

from collections.abc import Iterable

from stabmon.findings import Finding
from stabmon.fixes.record import Fix


def gravest(findings: Iterable[Finding]) -> tuple[Fix, ...]:
    """Return the first fix of the gravest rule among ``findings``, for every layer it names; empty where none has one.

    One cause at a time: what other rules say may be a symptom of it.
    """
    mendable = [finding for finding in findings if finding.fixes]
    if not mendable:
        return ()
    code = max(mendable, key=lambda finding: finding.severity.rank).code
    return tuple(dict.fromkeys(finding.fix for finding in mendable if finding.code == code))
