"""Re-evaluation of the rules on a stored run."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from stabmon.findings import Finding
from stabmon.rules.engine import Engine
from stabmon.rules.limits import Limits
from stabmon.rules.registry import Rule

if TYPE_CHECKING:
    from stabmon.store import RunReader


def replay(
    reader: "RunReader",
    limits: Limits | None = None,
    ignore: Collection[str] = (),
    rules: Sequence[Rule] = (),
) -> tuple[Finding, ...]:
    """Feed a stored run to a new engine, sample by sample, and return its findings: those of the live run, bit for bit.

    limits: None for those of the recorded run, which ``Limits.from_mapping(reader.info.limits)`` returns.
    ignore: codes or names of rules that are not run.
    rules: a user's own rules, in addition to the catalogue.

    Raises:
        ConfigError: ``ignore`` names a rule, or ``limits`` layers, that do not exist; a rule's code is taken.
        StoreError: the run cannot be read.
    """
    own = Limits.from_mapping(reader.info.limits) if limits is None else limits
    engine = Engine(reader.info, reader.layout, own, ignore, rules)
    engine.catch_up(reader)
    return engine.findings
