"""Servers over each kind of store, runs on this machine that are sent to them, and what is compared."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from stabmon.records import Heartbeat, ModelMap, RunInfo, RunState
from stabmon.remote.client import Client
from stabmon.remote.copy import Copy
from stabmon.series import MISSING, Layout, Logged
from stabmon.store import RunReader, RunWriter, open_run
from stabmon.store.interface import Store
from stabmon.store.postgres import PostgresStore
from stabmon.store.run_folder import RunFolder
from stabmon.store.tokens import Scope
from tests.postgres import Postgres, running

LAYOUT = Layout.of([("row_mass", "layers.0", 3), ("loss", None, 1)])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture(params=["folder", "postgres"])
def place(request, tmp_path) -> Path | str:
    """An empty folder or database for a store; a process of a test's own opens it by ``opened``."""
    if request.param == "folder":
        (tmp_path / "served").mkdir()
        return tmp_path / "served"
    return request.getfixturevalue("postgres").database()


def opened(place: Path | str) -> Store:
    return RunFolder(place) if isinstance(place, Path) else PostgresStore(place)


@pytest.fixture
def store(place) -> Iterator[Store]:
    made = opened(place)
    yield made
    made.close()


SERVE = """
import sys
from pathlib import Path
from stabmon.server.serve import serve
from stabmon.store.postgres import PostgresStore
serve(PostgresStore(sys.argv[1]) if "://" in sys.argv[1] else Path(sys.argv[1]), port=int(sys.argv[2]))
"""


class Server:
    """``stabmon serve`` in a process of its own, which can be killed and started again at the same port."""

    def __init__(self, place: Path | str) -> None:
        self.place, self.port = place, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-u", "-W", "ignore", "-c", SERVE, str(self.place), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.address = line.split()[-1].rstrip("/")
        assert self.address.startswith("http"), line + self.process.stdout.read()
        self.port = int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start_server(place) -> Iterator:
    started: list[Server] = []

    def start() -> Server:
        started.append(Server(place))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def server(start_server) -> Server:
    return start_server()


@pytest.fixture
def token(store) -> str:
    return store.tokens.create("trainings", Scope.WRITE)


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Make clients that are closed after the test."""
    made: list[Client] = []

    def one(address: str, secret: str | None) -> Client:
        made.append(Client(address, secret))
        return made[-1]

    yield one
    for client in made:
        client.close()


@pytest.fixture
def client(server, token, connect) -> Client:
    return connect(server.address, token)


@pytest.fixture
def copy_of() -> Iterator[Callable[[Path, Client], Copy]]:
    """Make copies that are closed after the test."""
    made: list[Copy] = []

    def one(folder: Path, client: Client) -> Copy:
        made.append(Copy(folder, client))
        return made[-1]

    yield one
    for copy in made:
        copy.close()


def info(name: str) -> RunInfo:
    return RunInfo(name=name, created=datetime.now(UTC), model=ModelMap(attentions=(), parameters=1))


class LocalRun:
    """A run as a training writes it, in a folder of its own, with odd numbers among its values."""

    def __init__(self, folder: Path, name: str = "lm", resume: bool = False) -> None:
        self.folder = folder / name
        self.closed = False
        self.writer = RunWriter.create(self.folder, info(name), LAYOUT, resume=resume)

    def train(self, steps: range) -> None:
        for step in steps:
            noise = np.random.default_rng(step).standard_normal(4).astype(np.float32)
            noise[step % 4] = (np.nan, np.inf, MISSING, -0.0)[step // 4 % 4]
            logged = [Logged(step, float(step), "loss", 0.5 * step)] if step % 10 == 3 else []
            self.writer.sample(step + 1, 1000.0 + step, noise, logged)
        self.beat(steps[-1] + 1)

    def beat(self, step: int) -> None:
        self.writer.heartbeat(Heartbeat(state=RunState.RUNNING, step=step, time=1000.0 + step, overhead=0.004))

    def close(self, state: RunState = RunState.FINISHED) -> None:
        self.closed = True
        self.writer.close(state)


@pytest.fixture
def start_run() -> Iterator[Callable[..., LocalRun]]:
    """Start runs on this machine that are closed after the test, if it has not done so."""
    made: list[LocalRun] = []

    def start(folder: Path, resume: bool = False) -> LocalRun:
        made.append(LocalRun(folder, resume=resume))
        return made[-1]

    yield start
    for run in made:
        if not run.closed:
            run.close()


@pytest.fixture
def local(tmp_path, start_run) -> LocalRun:
    return start_run(tmp_path / "local")


def facts(run: RunReader) -> dict[str, object]:
    """Everything of a run that must be the same in a copy, bit for bit."""
    new = run.after(0)
    return {
        "info": run.info,
        "layout": run.layout,
        "steps": new.steps.tolist(),
        "times": new.times.tolist(),
        "rows": new.rows.tobytes(),
        "logged": [one for place in new.logged for one in place.values],
        "loss": run.read("loss").values.tobytes(),
        "findings": [one.model_dump_json() for one in run.findings()],
        "failures": [one.model_dump_json() for one in run.failures()],
        "attempts": run.sizes.attempts,
    }


def assert_same(store: Store, name: str, folder: Path) -> None:
    with open_run(folder) as local, store.open(name) as remote:
        assert facts(remote) == facts(local)
