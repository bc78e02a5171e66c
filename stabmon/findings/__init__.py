"""Findings: one event of a run as a record."""

from stabmon.findings.record import Cell, Finding, Key

__all__ = ["Cell", "Finding", "Key"]
