"""From raw sums on the device to one row of series: the plan of the buffer, its writers, and the arithmetic after.

What is named here needs no torch; what hooks call (the writers, and the statistics beside them) does.
"""

from stabmon.stats.finalise import finalise
from stabmon.stats.plan import Plan
from stabmon.stats.slots import Slots

__all__ = ["Plan", "Slots", "finalise"]
