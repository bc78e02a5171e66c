"""Overhead of the monitor, next to other ways of watching a training: step times, host waits, memory and launches.

Every contender trains a copy of the model of its own, since a compiled model cannot be watched for some steps only.
They take turns step by step, in a random order, so that other load on the machine slows all alike.
"""

from stabmon.overhead.long_run import long_run
from stabmon.overhead.measure import measure
from stabmon.overhead.ranks import ranks
from stabmon.overhead.report import long_table, ranks_table, table
from stabmon.overhead.task import configured, gpt_124m

__all__ = ["configured", "gpt_124m", "long_run", "long_table", "measure", "ranks", "ranks_table", "table"]
