"""Doors: functions of other libraries through which attention runs, wrapped so that a monitor sees their calls."""

from stabmon.doors.opening import close_all, count, open_all

__all__ = ["close_all", "count", "open_all"]
