"""A finding as data: one event of a run, the numbers it was read from, and the fixes to try. No torch."""

from stabmon.fixes.record import Fix
from stabmon.records import Evidence, Record, Severity

Key = tuple[str, str | None, int]
"""What tells one event from another within a run: code of the rule, layer, and the step at which it opened."""


class Cell(Record):
    """One number of one series: what a finding was read from."""

    metric: str
    layer: str | None
    head: int | None
    step: int
    value: float


class Finding(Record):
    """One event: a rule saw something, from the step at which it opened to the one at which it cleared."""

    code: str
    name: str
    severity: Severity
    evidence: Evidence
    layer: str | None
    head: int | None
    """The worst head, or None where the rule speaks of a layer or of the run."""
    metric: str
    value: float
    """The worst value seen so far."""
    limit: float
    message: str
    """One sentence with the numbers filled in."""
    cause: str
    opened: int
    """First step at which the rule saw it."""
    peak: int
    """Step of ``value``."""
    last: int
    """Latest step at which the rule saw it."""
    cleared: int | None = None
    """First step at which it was over; None while it is open."""
    cells: tuple[Cell, ...] = ()
    """The numbers it was read from."""
    fixes: tuple[Fix, ...] = ()
    """What to try, best first."""
    confidence: float = 1.0
    """How sure it is, from 0 to 1: it rises with the distance from the limit and with the samples that agree."""
    follows: Key | None = None
    """Key of the finding whose symptom this one is; None for a finding that stands for itself."""
    lead: int | None = None
    """Steps from its opening to that of the first finding about the loss that follows it; None while there is none."""

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
    def key(self) -> Key:
        """What tells this event from others of the run."""
        return (self.code, self.layer, self.opened)
