"""The same rules over a stored run."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from stabmon.records import Finding
from stabmon.rules.engine import Engine
from stabmon.rules.limits import Limits

if TYPE_CHECKING:
    from stabmon.store import RunReader


def replay(reader: "RunReader", limits: Limits | None = None, silence: Collection[str] = ()) -> tuple[Finding, ...]:
    """Feed a stored run to a new engine, sample by sample, and return its findings: those of the live run, bit for bit.

    Raises:
        ConfigError: ``silence`` names a rule that does not exist.
        StoreError: the run cannot be read.
    """
    engine = Engine(reader.info, reader.layout, limits, silence)
    cursor, more = 0, True
    while more:
        cursor, steps, rows = reader.after(cursor)
        for step, row in zip(steps, rows, strict=True):
            engine.observe(int(step), row)
        more = len(steps) > 0
    return engine.findings
