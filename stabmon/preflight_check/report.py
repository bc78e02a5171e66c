"""The report of ``preflight``: one row a layer, the findings, and both as a table."""

from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING

from pydantic import ConfigDict
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stabmon.findings import Finding
from stabmon.fixes.gravest import gravest
from stabmon.fixes.record import Fix
from stabmon.preflight_check.jacobian_report import JacobianBound, jacobian_table
from stabmon.preflight_check.sweep_report import LengthStart, sentences, sweep_table
from stabmon.records import ModelMap, Record, Severity


class LayerStart(Record):
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

    rows: tuple[LayerStart, ...]
    findings: tuple[Finding, ...]
    map: ModelMap
    sweep: tuple[LengthStart, ...] = ()
    """Each sigmoid attention of stabmon's at each of the lengths that were asked for."""
    jacobian: tuple[JacobianBound, ...] = ()
    """Each attention of stabmon's, where it was asked for."""

    @property
    def healthy(self) -> bool:
        """Whether no finding is a warning or an error."""
        return not any(finding.severity.rank >= Severity.WARNING.rank for finding in self.findings)

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """The first fix of the gravest rule, for every layer that it names: one cause, to be mended in all of them."""
        return gravest(self.findings)

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
            found = [finding for finding in self.findings if finding.layer == row.layer]
            worst = max(found, key=lambda finding: finding.severity.rank, default=None)
            numbers = map(_number, row.numbers.values())
            codes = "\n".join(dict.fromkeys(finding.code for finding in found)) or "-"
            table.add_row(row.layer, *numbers, codes, style=worst.severity.style if worst else None)
        return table

    def __rich__(self) -> Group:
        more: list[Table | Text] = []
        if self.sweep:
            more += [sweep_table(self.sweep), *map(Text, sentences(self.sweep))]
        if self.jacobian:
            more.append(jacobian_table(self.jacobian))
        return Group(self.table(), *self._said(), *more)

    def __str__(self) -> str:
        text = StringIO()
        Console(file=text, width=120, no_color=True, highlight=False).print(self)
        return text.getvalue()

    def _said(self) -> Iterator[Text | Padding]:
        """Say what each rule sees in the first layer it names, the first fix there, and which rules follow from it."""
        by_code: dict[str, list[Finding]] = {}
        symptoms: dict[str, dict[str, None]] = {}
        for finding in sorted(self.findings, key=lambda finding: -finding.severity.rank):
            if finding.follows is None:
                by_code.setdefault(finding.code, []).append(finding)
            else:
                symptoms.setdefault(finding.follows[0], {})[f"{finding.code} {finding.name}"] = None
        for code, found in by_code.items():
            first, more = found[0], len(found) - 1
            others = f" and {more} more layer{'s' * (more > 1)}" if more else ""
            yield Text.assemble((f"{code} {first.name}", first.severity.style), f", {first.layer or 'run'}{others}:")
            lines = [f"{first.message}.", f"Cause: {first.cause}."]
            lines += [_remedy(first.fix)] if first.fixes else []
            lines += [f"With it: {', '.join(symptoms[code])}."] if code in symptoms else []
            yield from (Padding(Text(line), (0, 0, 0, 2)) for line in lines)


def _remedy(fix: Fix) -> str:
    expected = "" if fix.effect is None else f" Expected: {fix.effect}."
    return f"Fix: {fix}: {fix.why}.{expected}"


def _number(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.2g}" if abs(value) < 0.01 else f"{value:.3g}"
