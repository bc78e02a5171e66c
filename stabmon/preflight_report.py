"""What ``preflight`` says of a model: one row a layer, the findings, and both as a table."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from stabmon.records import Finding, ModelMap, Record, Severity

_COLUMNS = (
    "attention_norm",
    "twin_ratio",
    "row_mass",
    "logit_std",
    "bias",
    "best_bias",
    "branch_ratio",
    "block_growth",
)
_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


class LayerStart(Record):
    """How one attention starts: each number over its heads as the glossary says, NaN where it was not measured."""

    layer: str
    attention_norm: float
    twin_ratio: float
    """Attention norm over that of softmax on the same q, k, v."""
    row_mass: float
    logit_std: float
    bias: float
    best_bias: float
    """The bias at which rows would sum to one."""
    branch_ratio: float
    block_growth: float


class PreflightReport(Record):
    """The outcome of one forward pass; ``print`` it, or ``model_dump_json`` it."""

    rows: tuple[LayerStart, ...]
    findings: tuple[Finding, ...]
    map: ModelMap

    @property
    def healthy(self) -> bool:
        """Whether no finding is a warning or an error."""
        return not any(finding.severity.rank >= Severity.WARNING.rank for finding in self.findings)

    def table(self) -> Table:
        """Return one row a layer, with the codes of its findings, and under it what each rule says first."""
        verdict = "healthy" if self.healthy else "not healthy"
        table = Table(title=f"At step 0 this model is {verdict}", title_justify="left", caption_justify="left")
        table.add_column("layer")
        for name in _COLUMNS:
            table.add_column(name.replace("_", " "), justify="right")
        table.add_column("findings")
        for row in self.rows:
            found = [finding for finding in self.findings if finding.layer == row.layer]
            worst = max(found, key=lambda finding: finding.severity.rank, default=None)
            numbers = [_number(getattr(row, name)) for name in _COLUMNS]
            codes = ", ".join(dict.fromkeys(finding.code for finding in found)) or "-"
            table.add_row(row.layer, *numbers, codes, style=_STYLE[worst.severity] if worst else None)
        table.caption = "\n".join(self._said()) or None
        return table

    def __str__(self) -> str:
        text = StringIO()
        Console(file=text, width=140, no_color=True).print(self.table())
        return text.getvalue()

    def _said(self) -> list[str]:
        first = {finding.code: finding for finding in reversed(self.findings)}
        return [
            f"{finding.code} {finding.name}: {finding.message}" + (f" Fix: {finding.fix.why}" if finding.fixes else "")
            for finding in sorted(first.values(), key=lambda finding: (-finding.severity.rank, finding.code))
        ]


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3g}"
