"""A training in several processes: who writes, whose numbers belong together, and one exchange a sample."""

from stabmon.distributed.exchange import Exchange
from stabmon.distributed.meeting import Meeting
from stabmon.distributed.merge import Merge
from stabmon.distributed.own import Own
from stabmon.distributed.process import processes, rank

__all__ = ["Exchange", "Meeting", "Merge", "Own", "processes", "rank"]
