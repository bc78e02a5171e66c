"""Sending runs to a server: the run's own file is read and sent on by a thread, so that a training never waits."""

from stabmon.remote.client import Client
from stabmon.remote.sink import RemoteSink
from stabmon.remote.spool import SpoolSink, spool_folder

__all__ = ["Client", "RemoteSink", "SpoolSink", "spool_folder"]
