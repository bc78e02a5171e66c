"""The report of ``preflight``: one row a layer, the findings, and both as a table."""

from typing import TYPE_CHECKING

from pydantic import ConfigDict
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from stabmon.findings import Finding, digest
from stabmon.findings.description import described
from stabmon.findings.digest import alarming, first_fixes, in_order
from stabmon.fixes.record import Fix
from stabmon.formatting import measured
from stabmon.notebook import html
from stabmon.preflight_check.jacobian_report import JacobianBound, jacobian_table
from stabmon.preflight_check.sweep_report import LengthReport, sentences, sweep_table
from stabmon.records import ModelMap, Record
from stabmon.terminal import text_of


class LayerReport(Record):
    """The start of one attention: beside ``layer``, an attribute for each metric that preflight shows.

    Each is reduced over heads as the glossary says, and NaN where it was not measured.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    layer: str

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> float: ...

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics by name, in the glossary's order."""
        return dict(self.__pydantic_extra__)


class PreflightReport(Record):
    """The outcome of one forward pass; ``print`` it, or ``model_dump_json`` it."""

    rows: tuple[LayerReport, ...]
    findings: tuple[Finding, ...]
    map: ModelMap
    sweep: tuple[LengthReport, ...] = ()
    """Each sigmoid attention at each of the lengths that were asked for."""
    jacobian: tuple[JacobianBound, ...] = ()
    """Each attention of stabmon's, where it was asked for."""
    notes: tuple[str, ...] = ()
    """Numbers that are missing, and why."""

    @property
    def healthy(self) -> bool:
        """True if no finding is a warning or an error."""
        return not alarming(self.findings)

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """The first fix of the rule that ranks first, for each of its layers: one cause, fixed in all of them."""
        return first_fixes(self.findings)

    def table(self) -> Table:
        """Return one row a layer, with the codes of its findings; it fits a terminal of 80 columns."""
        verdict = "healthy" if self.healthy else "not healthy"
        table = Table(
            title=f"At step 0 this model is {verdict}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        table.add_column("layer", no_wrap=True)
        for name in self.rows[0].numbers:
            table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
        table.add_column("rules", no_wrap=True)
        for row in self.rows:
            found = [finding for finding in in_order(self.findings) if finding.layer == row.layer]
            numbers = map(measured, row.numbers.values())
            codes = "\n".join(dict.fromkeys(finding.code for finding in found)) or "-"
            table.add_row(row.layer, *numbers, codes, style=found[0].severity.style if found else None)
        return table

    def __rich__(self) -> Group:
        more: list[Table | Text] = []
        if self.sweep:
            more += [sweep_table(self.sweep), *map(Text, sentences(self.sweep))]
        if self.jacobian:
            more.append(jacobian_table(self.jacobian))
        notes = [Text(f"Missing: {note}.") for note in self.notes]
        return Group(self.table(), *described(digest(self.findings).entries), *more, *notes)

    def _repr_html_(self) -> str:
        return html(self.__rich__())

    def __str__(self) -> str:
        return text_of(self)
