"""The map of a model as a table: what stabmon found, before it records anything."""

from rich.table import Table

from stabmon.formatting import number
from stabmon.records import Attention, ModelMap


def map_table(found: ModelMap) -> Table:
    """Return one row an attention, in the order of a pass."""
    count = len(found.attentions)
    title = f"stabmon found {count} attention{'s' * (count != 1)} in a model of {found.parameters:,} parameters"
    table = Table(title=title, title_justify="left")
    for column in ("layer", "attention", "kind", "heads", "bias", "position", "around it"):
        table.add_column(column, justify="right" if column in ("heads", "bias") else "left")
    for attention in found.attentions:
        table.add_row(
            attention.layer,
            attention.module.removeprefix(f"{attention.layer}."),
            attention.kind,
            f"{attention.heads} × {attention.head_dim}",
            _bias(attention),
            _position(attention),
            _settings(attention),
        )
    return table


def _bias(attention: Attention) -> str:
    if attention.kind == "softmax":
        return "-"
    return number(attention.bias, 4) if isinstance(attention.bias, float) else attention.bias or "per call"


def _position(attention: Attention) -> str:
    parts = [attention.position, "causal" if attention.is_causal else None]
    return ", ".join(part for part in parts if part) or "-"


def _settings(attention: Attention) -> str:
    settings = {"QK norm": attention.qk_norm, "hybrid norm": attention.hybrid_norm, "LayerScale": attention.layer_scale}
    return ", ".join(name for name, present in settings.items() if present) or "-"
