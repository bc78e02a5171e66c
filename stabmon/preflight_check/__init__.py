"""``preflight``: what one forward pass says about a model before it trains."""

from stabmon.preflight_check.check import measure, preflight
from stabmon.preflight_check.report import PreflightReport

__all__ = ["PreflightReport", "measure", "preflight"]
