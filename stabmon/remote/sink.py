"""A server as a sink: nothing is handed over, since a thread reads the run's file."""

from collections.abc import Callable, Sequence
from pathlib import Path

from stabmon.errors import StoreError
from stabmon.findings import Finding
from stabmon.records import RunInfo, RunState
from stabmon.remote.client import Client
from stabmon.remote.sender import Sender
from stabmon.series import Floats, Layout

CLOSING = 20.0
"""Seconds that closing waits for the server."""


class RemoteSink:
    """Sends the run that the store writes into ``folder`` to a server.

    failed: receives what goes wrong, as a subject, what happened, and its effect.
    spool: the folder is removed once the server has the run.
    """

    name = "server"
    closing = CLOSING

    def __init__(self, folder: Path, client: Client, failed: Callable[[str, str, str], None], *, spool: bool) -> None:
        self.folder = folder
        self._address = client.address
        self._sender = Sender(folder, client, lambda text: failed("server", text, self.advice), spool=spool)

    @property
    def sent(self) -> int:
        """Samples that the server has."""
        return self._sender.copy.samples

    @property
    def advice(self) -> str:
        """The effect of a failure."""
        return f"the run is in {self.folder} and is sent when that is possible again, also by a later training there"

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Begin to send."""
        self._sender.start()

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Nothing: the store writes it."""

    def findings(self, changed: Sequence[Finding]) -> None:
        """Nothing: the store writes them."""

    def discard(self) -> None:
        """Send nothing more of a run that has not begun."""
        self._sender.abandon()

    def close(self, state: RunState) -> None:
        """Wait until the server has the run, but not for long.

        Raises:
            StoreError: it has not.
        """
        if not self._sender.end(0.8 * self.closing):
            raise StoreError(f"{self._address} has only the first {self.sent:,} samples of the run")
