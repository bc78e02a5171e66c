"""The end of a server that many clients hold open: readers of streams, clients that never read, and half requests."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

START = "import sys; from stabmon.server.serve import serve; serve(sys.argv[1], port=0)"
HALF = b"GET /api/v1/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Never-"
"""Beginning of a request whose end never comes."""


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Start a server over ``folder``; yield its process, host and port."""
    command = [sys.executable, "-u", "-W", "ignore", "-c", START, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().split()[-1].removeprefix("http://").rstrip("/").partition(":")
        try:
            yield process, host, int(port)
        finally:
            process.kill()


def connect(host: str, port: int, request: bytes) -> socket.socket:
    """Return a connection over which ``request`` was sent; one that is not read takes little of the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, port))
    connection.sendall(request)
    return connection


def stream_of(run: str, series: str) -> bytes:
    """Return the request for the stream of ``run``."""
    return f"GET /api/v1/runs/{run}/live?series={series} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class ServerEnd(NamedTuple):
    """The end of a server after SIGTERM."""

    seconds: float
    busy: float
    """Seconds of processor time in that, which a busy machine does not stretch."""
    said: str
    """Lines that the server printed after its address."""


def end(folder: Path, run: str, series: str, *, streams: int, idle: int) -> ServerEnd:
    """Send SIGTERM to a server that many clients hold open.

    streams: clients that follow ``run`` and have got its first events.
    idle: as many clients that never read their stream, and as many half requests.
    """
    with server(folder) as (process, host, port), ExitStack() as clients:
        for request in [HALF] * idle + [stream_of(run, series)] * idle:
            clients.enter_context(connect(host, port, request))
        reading = [clients.enter_context(connect(host, port, stream_of(run, series))) for _ in range(streams)]
        for one in reading:
            while b"event: points" not in one.recv(65536):
                pass
        start, before = time.perf_counter(), _processor_seconds(process.pid)
        earlier = resource.getrusage(resource.RUSAGE_CHILDREN)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = used.ru_utime + used.ru_stime - earlier.ru_utime - earlier.ru_stime - before
        return ServerEnd(seconds, busy, said)


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
