"""A finding as data: what a rule flagged in a run, the numbers behind it, and the fixes to try. No torch."""

from typing import TYPE_CHECKING

from stabmon.fixes.record import Fix
from stabmon.records import Evidence, Record, Severity

if TYPE_CHECKING:
    from rich.console import Group

Key = tuple[str, str | None, int]
"""Identifies a finding within a run: code of the rule, layer, and the step at which it opened."""


class Reading(Record):
    """One number of one series, as evidence of a finding."""

    metric: str
    layer: str | None
    head: int | None
    step: int
    value: float


class Finding(Record):
    """A problem that one rule flagged in one place, from the step at which it opened to that at which it cleared.

    One that clears and opens again is the same finding: it counts how often it opened, and is open again.
    """

    code: str
    name: str
    severity: Severity
    evidence: Evidence
    layer: str | None
    head: int | None
    """The worst head, or None where the finding is about a layer or the run."""
    metric: str
    value: float
    """The worst value so far."""
    limit: float
    message: str
    """One sentence with the numbers filled in."""
    cause: str
    opened: int
    """First step at which the rule flagged it."""
    peak: int
    """Step of ``value``."""
    last: int
    """Latest step at which the rule flagged it."""
    cleared: int | None = None
    """First step at which it was over; None while it is open."""
    times: int = 1
    """Number of times that it opened."""
    reopened: int | None = None
    """Step at which it last opened again; None where it opened once."""
    cells: tuple[Reading, ...] = ()
    """The numbers behind it."""
    fixes: tuple[Fix, ...] = ()
    """Fixes to try, best first."""
    confidence: float = 1.0
    """From 0 to 1; it rises with the distance from the limit and with the number of samples that agree."""
    follows: Key | None = None
    """Key of the finding that this one is a symptom of; None where it has no cause."""
    lead: int | None = None
    """Steps from its opening to that of the first finding about the loss that follows it; None while there is none."""

    def __str__(self) -> str:
        place = "" if self.layer is None else f" in {self.layer}"
        when = f"since step {self.opened}" if self.cleared is None else f"steps {self.opened} to {self.last}"
        return f"{self.severity} {self.code} {self.name}{place}, {when}: {self.message}"

    def __rich__(self) -> "Group":
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        rule, (_, rest) = f"{self.code} {self.name}", str(self).split(self.name, 1)
        lines = [f"Cause: {self.cause}.", *(f"Fix: {fix}: {fix.why.removesuffix('.')}." for fix in self.fixes[:1])]
        headline = Text.assemble((rule, self.severity.style), rest)
        return Group(headline, *(Padding(Text(line), (0, 0, 0, 2)) for line in lines))

    def _repr_html_(self) -> str:
        from stabmon.notebook import html

        return html(self.__rich__())

    @property
    def fix(self) -> Fix:
        """The first fix to try.

        Raises:
            LookupError: the rule names none.
        """
        if not self.fixes:
            raise LookupError(f"{self.code} {self.name} suggests no fix; see `stabmon rules {self.code}`")
        return self.fixes[0]

    @property
    def since(self) -> int:
        """Step at which it last opened."""
        return self.opened if self.reopened is None else self.reopened

    @property
    def key(self) -> Key:
        """Identifies this finding within its run."""
        return (self.code, self.layer, self.opened)
