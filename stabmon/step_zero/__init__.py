"""``preflight``: what one forward pass says about a model before it trains."""

from stabmon.step_zero.check import measure, preflight
from stabmon.step_zero.report import PreflightReport

__all__ = ["PreflightReport", "measure", "preflight"]
