"""The tables of overhead for people."""

from typing import Any

from rich.table import Table

from stabmon.formatting import number, plural, signed


def table(found: dict[str, Any]) -> Table:
    """Return the table of ``measure``."""
    compiled = ", compiled" if found["compiled"] else ""
    shown = Table(title=f"{found['task']}{compiled} on {found['device']}, {plural(found['steps'], 'step')} each")
    launches = "operations added" if found["device"] == "cpu" else "launches added"
    for name in ("", "ms a step", "ratio", "95 % interval", "host synchronisations", "memory added", launches):
        shown.add_column(name, justify="right" if name else "left")
    for row in found["rows"]:
        shown.add_row(
            row["contender"],
            number(row["milliseconds"]),
            f"{row['ratio']:.4f}",
            f"{row['ratio_low']:.4f} to {row['ratio_high']:.4f}",
            _given(row, "synchronisations"),
            _given(row, "memory", " MiB"),
            _given(row, "launches"),
        )
    return shown


def long_table(found: dict[str, Any]) -> Table:
    """Return the table of ``long_run``."""
    shown = Table(title=f"{plural(found['steps'], 'step')} of a small model on cpu, default schedule")
    for name in ("to step", "µs a step", "of them stabmon", "memory", "open files", "the run's folder"):
        shown.add_column(name, justify="right")
    for row in found["rows"]:
        shown.add_row(
            f"{row['step']:,}",
            number(row["step_microseconds"]),
            number(row["own_microseconds"]),
            "-" if row["memory_mib"] is None else f"{row['memory_mib']:.1f} MiB",
            "-" if row["open_files"] is None else str(row["open_files"]),
            f"{row['run_mib']:.1f} MiB",
        )
    if found["failures"]:
        shown.caption = "\n".join(found["failures"])
    return shown


def ranks_table(found: dict[str, Any]) -> Table:
    """Return the table of ``ranks``."""
    title = f"{found['ranks']} ranks under DDP on {found['device']}, {plural(found['layers'], 'layer')}, every step"
    shown = Table(title=f"{title}, {plural(found['steps'], 'step')} each")
    for name in ("ms a step", "with stabmon", "ratio", "bytes a rank sends", "ms an exchange", "95 % quantile"):
        shown.add_column(name, justify="right")
    shown.add_row(
        number(found["plain_milliseconds"]),
        number(found["watched_milliseconds"]),
        f"{found['ratio']:.3f}",
        f"{found['payload_bytes']:,.0f}",
        number(found["reduction_milliseconds"]),
        number(found["reduction_high"]),
    )
    return shown


def _given(row: dict[str, Any], name: str, unit: str = "") -> str:
    value = row.get(name)
    return "-" if value is None else f"{signed(value)}{unit}"
