"""``stabmon serve``: bind first, report clearly what is wrong, end at once on a signal."""

import asyncio
import errno
import logging
import signal
import socket
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from urllib.parse import quote, urlencode

import uvicorn
from fastapi import FastAPI

from stabmon.errors import StabmonError
from stabmon.server.app import create_app
from stabmon.server.auth import LOOPBACK
from stabmon.server.notifier import Notifier
from stabmon.server.webhooks import Webhook
from stabmon.store.interface import Store
from stabmon.store.run_folder import RunFolder

DEFAULT_PORT = 8420
GRACE = 1
"""Seconds that open requests get to end after SIGTERM or Ctrl-C; live streams end by themselves at once."""


class ServeError(StabmonError, RuntimeError):
    """A service that cannot start as asked."""


class Server(uvicorn.Server):
    """uvicorn that ends live streams when it stops, and reports its address once it answers."""

    def __init__(self, app: FastAPI, ready: Callable[[], None]) -> None:
        quiet = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE)
        super().__init__(quiet)
        self.stopping, self.ready = app.state.stopping, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, then report the address."""
        await super().startup(sockets)
        self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End on a signal, live streams first."""
        self.stopping.set()
        super().handle_exit(sig, frame)


def serve(
    directory: Path | str | Store,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    open_browser: bool = False,
    view: Mapping[str, str] | None = None,
    webhooks: Sequence[str] = (),
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the runs in ``directory`` until SIGINT or SIGTERM; ``announce`` gets the address, once it answers.

    directory: a folder, or another store.
    webhooks: addresses that findings and crashes are reported to, see ``stabmon.server.webhooks``.
    view: what a browser that is opened shows, as in the page's own address: ``{"run": "naive", "with": "fixed"}``.

    Raises:
        ServeError: no such folder, an open address without a token, or a port that cannot be bound.
        ConfigError: the token is empty or cannot be sent, or a webhook is no address.
    """
    store = _folder(Path(directory)) if isinstance(directory, Path | str) else directory
    if host not in LOOPBACK and token is None and not store.tokens.listed():
        raise ServeError(
            f"{host} can be reached from other machines, so it needs a token: put one into a file and add --token-file "
            "FILE, or set STABMON_TOKEN, or make one with `stabmon token create`, or listen on 127.0.0.1 and reach it "
            "through `ssh -L`"
        )
    app = create_app(store, token=token, is_local=host in LOOPBACK)
    count = app.state.numbers.notices
    hooks = [Webhook(one, lambda what, n: count.labels(what).inc(n), announce) for one in webhooks]
    listener = bind(host, port)

    def address(view: Mapping[str, str] | None = None) -> str:
        login = {} if token is None else {"login": app.state.logins.issue()}
        return url(host, listener.getsockname()[1], login | dict(view or {}))

    def ready() -> None:
        announce(f"stabmon serves {store.where} on {address()}")
        if token is not None:
            announce("The address lets one browser in; for another, write ?token= and the token in place of ?login=")
        if open_browser:
            webbrowser.open(address(view))

    server = Server(app, ready)
    logging.getLogger("uvicorn.error").addFilter(_matters)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises the signal again once it has ended
    try:
        with Notifier(app.state.fleet, hooks, announce):
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        announce("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
        listener.close()
        app.state.receiver.close()
        store.close()


def _folder(directory: Path) -> RunFolder:
    if not directory.is_dir():
        raise ServeError(
            f"{directory} is not a folder; give the folder that holds the runs, or make it with `stabmon demo`"
        )
    return RunFolder(directory)


def _matters(record: logging.LogRecord) -> bool:
    """Return whether a line of uvicorn's log is not about requests that the end of the server cuts off."""
    cut = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cut and "timeout graceful shutdown" not in record.getMessage()


def url(host: str, port: int, query: Mapping[str, str]) -> str:
    """Return the page's address with ``query``: a wildcard host is shown as this machine's own."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
    return f"http://{shown}:{port}/" + (f"?{urlencode(query, quote_via=quote, safe='')}" if query else "")


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket.

    Raises:
        ServeError: the port is in use or not allowed, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY by the protocol
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ServeError(refusal(host, port, error)) from error
    return listener


def refusal(host: str, port: int, error: OSError) -> str:
    """Return why ``host:port`` could not be bound, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port {port + 1}, or --port 0 for any free one"
    if error.errno == errno.EACCES:
        return f"port {port} may not be opened by this user; choose one above 1023 with --port, or --port 0"
    return f"cannot listen on {host}:{port} ({error.strerror or error}); choose an address of this machine with --host"
