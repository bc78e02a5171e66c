"""The quick part of stabmon's own checks, on a user's machine: ``stabmon selftest``."""

from stabmon.selftest.check import Result, run_all

__all__ = ["Result", "run_all"]
