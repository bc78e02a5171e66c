"""A folder of runs as stabmon.watch leaves it: a naive one that goes wrong at step 0, and the same with the fix."""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stabmon.findings import Finding, Reading
from stabmon.fixes.change import Effect, Safety
from stabmon.fixes.record import Fix
from stabmon.records import Attention, Evidence, Heartbeat, ModelMap, RunInfo, RunState, Severity
from stabmon.series import MISSING, Floats, Layout
from stabmon.server.app import create_app
from stabmon.store import RunWriter

with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore", message="Using `httpx` with `starlette.testclient`"
    )  # starlette 1.10 wants httpx2
    from fastapi.testclient import TestClient

LAYERS, HEADS, STEPS, CONTEXT = 4, 4, 300, 256
NAMES = tuple(f"layers.{index}" for index in range(LAYERS))
PER_HEAD = ("attention_norm", "row_mass", "logit_max", "logit_std", "saturated_fraction")
PER_LAYER = ("branch_ratio", "gradient_norm")
PER_RUN = ("loss", "total_gradient_norm")
NAN_STEP, NAN_LAYER, NAN_HEAD = 120, "layers.2", 1
MISSING_STEPS = range(200, 206)


def layout() -> Layout:
    wanted = [(metric, name, HEADS) for metric in PER_HEAD for name in NAMES]
    wanted += [(metric, name, 1) for metric in PER_LAYER for name in NAMES]
    return Layout.of([*wanted, *((metric, None, 1) for metric in PER_RUN)])


def info(name: str, created: datetime, bias: float) -> RunInfo:
    attentions = tuple(
        Attention(
            layer=layer,
            module=f"{layer}.attention",
            block=layer,
            branch=f"{layer}.attention_scale",
            kind="sigmoid",
            heads=HEADS,
            head_dim=16,
            max_length=CONTEXT,
            is_causal=True,
            bias=bias,
        )
        for layer in NAMES
    )
    config = {"name": name, "model": {"layers": LAYERS, "heads": HEADS, "bias": bias}, "training": {"steps": STEPS}}
    versions = {"stabmon": "0.1.0", "torch": "2.13.0", "device": "cpu"}
    model = ModelMap(attentions=attentions, parameters=412_160)
    return RunInfo(name=name, created=created, model=model, config=config, versions=versions)


def row(step: int, *, naive: bool) -> Floats:
    """One row of ``layout()``: smooth in the step, different for every layer and head."""
    depth = np.repeat(np.arange(LAYERS), HEADS)
    wobble = 1 + 0.08 * np.sin(0.21 * step + np.arange(LAYERS * HEADS))
    warm = np.exp(-step / 60)
    mass = (128 * (0.4 + 0.6 * warm) if naive else 0.9 + 0.25 * warm) * wobble
    norm = mass * (1.4 + 0.5 * depth)
    spread = (1.1 + 2.2 * step / STEPS * (depth == LAYERS - 1)) * wobble
    heads = [norm, mass, 3.4 * spread, spread, np.clip(0.5 * warm * wobble, 0, 1) if naive else 0.0 * wobble]
    branch = (9 if naive else 0.8) * (1 + 0.2 * np.arange(LAYERS)) * (0.5 + 0.5 * warm)
    gradient = 0.3 * (1 + 2 * warm) * (1.0 + 0.1 * np.arange(LAYERS)) * (1 + (step % 97 == 50) * 6)
    loss = (2.6 if naive else 2.25) + 2.9 * np.exp(-step / 45) + 0.03 * np.sin(1.7 * step)
    run = [loss, np.sqrt((gradient**2).sum())]
    values = np.concatenate([*heads, branch, gradient, run]).astype(np.float32)
    if naive:
        start = next(column.start for column in layout().of_metric("attention_norm") if column.layer == NAN_LAYER)
        values[start + NAN_HEAD] = np.nan if step == NAN_STEP else values[start + NAN_HEAD]
        if step in MISSING_STEPS:
            values[: LAYERS * HEADS * len(PER_HEAD)] = MISSING
    return values


def findings() -> list[Finding]:
    """Four errors at step 0, a warning that clears, and a note."""
    found = []
    for index, layer in enumerate(NAMES):
        bias = Fix(
            kind="bias",
            module=f"{layer}.attention",
            value=-5.545,
            safety=Safety.ANY_TIME,
            why="With b = -log n a row of n = 256 keys sums to about one, as softmax does.",
            code=f"model.{layer}.attention.bias.fill_(-5.545)  # -log 256",
            diff=f"@@ where {layer}.attention is built @@\n-SigmoidAttention(256, 4, bias=0, ...)",
            effect=Effect(metric="row_mass", before=128.0, after=1.0),
        )
        value = 179.2 * (1 + 0.357 * index)
        found.append(
            Finding(
                code="ATT001",
                name="large-initial-attention-norm",
                severity=Severity.ERROR,
                evidence=Evidence.MEASURED,
                layer=layer,
                head=index % HEADS,
                metric="attention_norm",
                value=value,
                limit=10.0,
                message=f"The attention norm of {layer} is {value:.0f} at step 0; rows sum to 128 where softmax has 1.",
                cause="the bias is 0, so every one of 256 keys gets a weight near one half",
                opened=0,
                peak=2,
                last=STEPS - 1,
                cells=(
                    Reading(metric="attention_norm", layer=layer, head=index % HEADS, step=0, value=value),
                    Reading(metric="row_mass", layer=layer, head=index % HEADS, step=0, value=128.0),
                ),
                fixes=(bias,),
            )
        )
    common = {"evidence": Evidence.LITERATURE, "head": None, "cells": (), "fixes": ()}
    found.append(
        Finding(
            code="GRD001",
            follows=("ATT001", "layers.0", 0),
            name="gradient-spike",
            severity=Severity.WARNING,
            layer=None,
            metric="total_gradient_norm",
            value=5.1,
            limit=2.2,
            message="The gradient norm is 5.1 at step 147, 2.3 times its limit.",
            cause="a batch far from the others, or a step too long",
            opened=147,
            peak=147,
            last=148,
            cleared=151,
            **common,
        )
    )
    found.append(
        Finding(
            code="NUM001",
            name="non-finite",
            severity=Severity.ERROR,
            layer=NAN_LAYER,
            metric="attention_norm",
            value=float("nan"),
            limit=float("inf"),
            message=f"The attention norm of {NAN_LAYER} is NaN at step {NAN_STEP}.",
            cause="an overflow in the logits",
            opened=NAN_STEP,
            peak=NAN_STEP,
            last=NAN_STEP,
            cleared=NAN_STEP + 1,
            **common,
        )
    )
    return found


class Store:
    """Writes synthetic runs into one folder."""

    @staticmethod
    def row(step: int, *, naive: bool = False) -> Floats:
        """Return the row of a step, for a test that changes some of its values."""
        return row(step, naive=naive)

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, name: str, *, naive: bool = False, age: timedelta = timedelta()) -> RunWriter:
        bias = 0.0 if naive else -5.545
        return RunWriter.create(self.directory / name, info(name, datetime.now(UTC) - age, bias), layout())

    def write(self, writer: RunWriter, steps: range, *, naive: bool = False) -> None:
        for step in steps:
            writer.sample(step, time.time(), row(step, naive=naive))
        beat = Heartbeat(state=RunState.RUNNING, step=steps[-1], time=time.time(), overhead=0.0042, dropped=0)
        writer.heartbeat(beat)

    def finished(self, name: str, *, naive: bool = False, age: timedelta = timedelta()) -> None:
        writer = self.start(name, naive=naive, age=age)
        self.write(writer, range(STEPS), naive=naive)
        writer.findings(findings() if naive else [])
        writer.close(RunState.FINISHED)


@pytest.fixture
def runs(tmp_path: Path) -> Store:
    """An empty folder to write runs into."""
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


@pytest.fixture(scope="session")
def make_store() -> type[Store]:
    """Make a store in a folder; for fixtures that live longer than a test."""
    return Store


@pytest.fixture(scope="session")
def make_info() -> Callable[[str], RunInfo]:
    """Make the description of a run."""
    return lambda name: info(name, datetime.now(UTC), 0.0)


@pytest.fixture(scope="session")
def make_findings() -> Callable[[], list[Finding]]:
    """Make the findings of a naive run."""
    return findings


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The runs 'naive' and 'fixed', both finished; not to be written to."""
    store = Store(tmp_path_factory.mktemp("two"))
    store.finished("naive", naive=True, age=timedelta(minutes=20))
    store.finished("fixed", age=timedelta(minutes=10))
    return store


@pytest.fixture(scope="session")
def open_client() -> Callable[..., TestClient]:
    """Make a client over a folder; it connects to 127.0.0.1, as a browser on this machine does."""

    def make(directory: Path, token: str | None = None, host: str = "http://127.0.0.1") -> TestClient:
        return TestClient(create_app(directory, token=token), base_url=host)

    return make


@pytest.fixture
def client(two_runs: Store, open_client: Callable[..., TestClient]) -> TestClient:
    return open_client(two_runs.directory)


class Server:
    """``stabmon serve`` as a process of its own."""

    def __init__(self, directory: Path) -> None:
        code = "import sys; from stabmon.server.serve import serve; serve(sys.argv[1], port=0)"
        command = [sys.executable, "-u", "-W", "ignore", "-c", code, str(directory)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1].rstrip("/")

    def said(self) -> str:
        """Return what it printed after its address; waits for its end."""
        return self.process.communicate()[0]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start_server() -> Iterator[Callable[[Path], Server]]:
    """Start servers that are stopped after the test."""
    started: list[Server] = []

    def start(directory: Path) -> Server:
        started.append(Server(directory))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def make_server() -> type[Server]:
    """Start a server over a folder; for fixtures that live longer than a test. Its starter stops it."""
    return Server


@pytest.fixture(scope="session")
def list_runs(wait_until) -> Callable[[Any], dict[str, Any]]:
    """Return the list of runs once all of them have been read, which a busy machine does in a later request."""

    def listed(client: Any) -> dict[str, Any]:
        wait_until(lambda: not any(run["pending"] for run in client.get("/api/v1/runs").json()["runs"]))
        found: dict[str, Any] = client.get("/api/v1/runs").json()
        return found

    return listed
