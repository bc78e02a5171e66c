"""``watch``: a step's life, from the hooks on a model to the recorder."""

from stabmon.monitor.live_race import Race
from stabmon.monitor.monitor import Monitor
from stabmon.monitor.watching import watch

__all__ = ["Monitor", "Race", "watch"]
