"""``watch``: a step's life, from the hooks on a model to the recorder."""

from stabmon.monitor.monitor import Monitor
from stabmon.monitor.watching import watch

__all__ = ["Monitor", "watch"]
