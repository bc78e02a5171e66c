"""Runs on disk: one writer, any number of readers, in a folder with one SQLite file each."""

from stabmon.store.connect import FILE
from stabmon.store.live import New
from stabmon.store.reader import RunReader, Sizes, open_run
from stabmon.store.reservation import reserve
from stabmon.store.runs import RunSummary, fresh_name, runs
from stabmon.store.writer import RunWriter

__all__ = ["FILE", "New", "RunReader", "RunSummary", "RunWriter", "Sizes", "fresh_name", "open_run", "reserve", "runs"]
