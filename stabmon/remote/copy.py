"""The copy of a run on a server: what the server lacks is read from the run's file and sent, in order."""

import time
from pathlib import Path
from typing import Any

from stabmon.findings import Finding, Key
from stabmon.records import Failure, Heartbeat, RunState
from stabmon.remote.client import Client, Refused, Unreachable
from stabmon.store import RunReader, open_run, wire

BYTES = 1 << 22
"""Most bytes of the rows of one request."""
BEAT = 5.0
"""Seconds between heartbeats while nothing else is new."""
FINDINGS = 500
"""Most findings, or failures, of one request."""
_ENDED = (RunState.FINISHED, RunState.FAILED, RunState.CRASHED)


class Copy:
    """Sends one run; any call may be repeated, since the server says how much it has."""

    def __init__(self, folder: Path, client: Client) -> None:
        self.folder, self.client = folder, client
        self.name: str | None = None
        """The run's name on the server, once it is open there."""
        self.samples = 0
        """Samples that the server has."""
        self.ended = False
        """The run has ended, and the server has all of it."""
        self._reader: RunReader | None = None
        self._findings: dict[Key, Finding] = {}
        self._failures: set[Failure] = set()
        self._beaten = float("-inf")

    def send(self) -> None:
        """Send what is new.

        Raises:
            Unreachable, Refused: of the server; what it has taken stays so.
            StoreError: the run's file cannot be read.
        """
        reader = self._reader = self._reader or open_run(self.folder)
        beat = reader.heartbeat()  # first: once the run has ended, nothing follows what is read below
        is_over = beat.state in _ENDED
        if self.name is None:
            self._open(reader)
        try:
            while self._send_samples(reader, is_over=is_over):
                pass
            self._send_findings(reader)
            self._send_failures(reader)
            if is_over or time.monotonic() - self._beaten > BEAT:
                self._send_heartbeat(beat)
                self._beaten = time.monotonic()
        except Refused as error:
            if error.status == 409:  # the server was started again, or has other samples: it says which at opening
                self.name = None
            raise
        self.ended = is_over

    def close(self) -> None:
        """Close the file and the connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self.client.close()

    def _open(self, reader: RunReader) -> None:
        data = f'{{"info":{reader.info.model_dump_json()},"layout":{reader.layout.model_dump_json()}}}'
        answer = self.client.send("POST", "/runs", data.encode())
        self.samples, self.name = self._read(answer, "samples", int), self._read(answer, "name", str)
        self._findings, self._failures, self._beaten = {}, set(), float("-inf")

    def _read(self, answer: dict[str, Any], name: str, kind: type[Any]) -> Any:
        """Return what the server's ``answer`` says of ``name``."""
        if not isinstance(answer.get(name), kind):
            raise Unreachable(f"{self.client.address} does not answer as `stabmon serve` does, but {answer!r:.80}")
        return answer[name]

    def _send_samples(self, reader: RunReader, *, is_over: bool) -> bool:
        """Send the next samples; return whether there may be more."""
        limit = max(1, min(1000, BYTES // (4 * max(1, reader.layout.width))))
        new = reader.after(self.samples, limit=limit)
        batch = wire.batch_of(new, whole=is_over and len(new.steps) < limit)
        if batch.rows or batch.later:
            data = wire.pack(batch, reader.layout.width)
            answer = self.client.send("POST", f"/runs/{self.name}/samples", data, wire.MEDIA_TYPE)
            self.samples = self._read(answer, "samples", int)
        return len(batch.rows) == limit

    def _send_findings(self, reader: RunReader) -> None:
        changed = [one for one in reader.findings() if self._findings.get(one.key) is not one]
        for start in range(0, len(changed), FINDINGS):
            some = changed[start : start + FINDINGS]
            self._put("findings", f"[{','.join(one.model_dump_json() for one in some)}]")
            self._findings.update({one.key: one for one in some})

    def _send_failures(self, reader: RunReader) -> None:
        changed = [one for one in reader.failures() if one not in self._failures]
        for start in range(0, len(changed), FINDINGS):
            some = changed[start : start + FINDINGS]
            self._put("failures", f"[{','.join(one.model_dump_json() for one in some)}]")
            self._failures.update(some)

    def _send_heartbeat(self, beat: Heartbeat) -> None:
        """Send the state, and how old it is by this machine's clock."""
        stored = beat if beat.state in _ENDED else beat.model_copy(update={"state": RunState.RUNNING})
        age = min(max(0.0, time.time() - beat.time), 1e9)  # clocks are set back, and far ahead
        self._put("heartbeat", f'{{"heartbeat":{stored.model_dump_json(exclude={"words"})},"age":{age:.3f}}}')

    def _put(self, what: str, text: str) -> None:
        self.client.send("PUT", f"/runs/{self.name}/{what}", text.encode())
