"""stabmon: the stability monitor for transformers that train with sigmoid attention.

The names below load on first use, so that ``import stabmon`` and the commands that need no torch stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stabmon.generators import same_generators

if TYPE_CHECKING:
    from stabmon.ab_test import RaceReport, TrialReport, race, trial
    from stabmon.conversion import ConversionReport, convert
    from stabmon.doors.record_attention import record_attention
    from stabmon.findings import Finding
    from stabmon.fixes.record import Fix
    from stabmon.monitor import Monitor, Race, watch
    from stabmon.preflight_check import PreflightReport, preflight
    from stabmon.records import Severity
    from stabmon.schedule import Schedule

__version__ = "0.1.0"
__all__ = [
    "ConversionReport",
    "Finding",
    "Fix",
    "Monitor",
    "PreflightReport",
    "Race",
    "RaceReport",
    "Schedule",
    "Severity",
    "TrialReport",
    "__version__",
    "convert",
    "preflight",
    "race",
    "record_attention",
    "trial",
    "watch",
]

_HOME = {
    "ConversionReport": "conversion",
    "Finding": "findings",
    "Fix": "fixes.record",
    "Monitor": "monitor",
    "PreflightReport": "preflight_check",
    "Race": "monitor",
    "RaceReport": "ab_test",
    "Schedule": "schedule",
    "Severity": "records",
    "TrialReport": "ab_test",
    "convert": "conversion",
    "preflight": "preflight_check",
    "race": "ab_test",
    "record_attention": "doors.record_attention",
    "trial": "ab_test",
    "watch": "monitor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stabmon' has no attribute {name!r}; it offers {', '.join(__all__)}")
    with same_generators():
        value = getattr(import_module(f"stabmon.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
