"""Findings: each a record of what a rule saw, and the digest that every place shows them by."""

from stabmon.findings.digest import Digest, Entry, Health, Process, digest
from stabmon.findings.record import Finding, Key, Reading

__all__ = ["Digest", "Entry", "Finding", "Health", "Key", "Process", "Reading", "digest"]
