from datetime import UTC, datetime

import numpy as np
import pytest

from stabmon.findings import Finding
from stabmon.records import Evidence, ModelMap, RunInfo, Severity
from stabmon.series import MISSING, Layout
from stabmon.store import RunWriter


@pytest.fixture(scope="session")
def layout():
    """Two layers, in another order than that of their names, heads apart, and a metric of the run in between."""
    wanted = [
        ("row_mass", "layers.10", 3),
        ("loss", None, 1),
        ("row_mass", "layers.2", 3),
        ("logit_max", "layers.2", 2),
    ]
    return Layout.of([*wanted, ("branch_ratio", "layers.10", 1), ("branch_ratio", "layers.2", 1)])


@pytest.fixture(scope="session")
def info():
    return RunInfo(name="lm", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=7))


@pytest.fixture
def write(tmp_path, info, layout):
    """Write rows [steps, width] into ``tmp_path``/lm, steps counted from ``first``; return the open writer."""
    writers = []

    def rows_of(rows, first=0, writer=None):
        if writer is None:
            writer = RunWriter.create(tmp_path / "lm", info, layout)
            writers.append(writer)
        for step, row in enumerate(rows, first):
            writer.sample(step, 1000.0 + step, row)
        return writer

    return rows_of


@pytest.fixture
def odd_rows(layout):
    """Make rows of noise with NaN of several payloads, infinities, negative zero, denormals and gaps among them."""

    def make(steps, seed=0):
        noise = np.random.default_rng(seed)
        rows = noise.standard_normal((steps, layout.width)).astype(np.float32)
        signalling = np.array([0x7F812345, 0xFFC00001], dtype=np.uint32).view(np.float32)
        odd = [np.nan, np.inf, -np.inf, -0.0, 1e-45, MISSING, *signalling]
        where = noise.random(rows.shape) < 0.2
        rows[where] = noise.choice(np.array(odd, dtype=np.float32), where.sum())
        return rows

    return make


@pytest.fixture(scope="session")
def make_finding():
    def make(**changes):
        whole = {
            "code": "NUM001",
            "name": "non-finite",
            "severity": Severity.ERROR,
            "evidence": Evidence.MEASURED,
            "layer": None,
            "head": None,
            "metric": "loss",
            "value": float("nan"),
            "limit": float("inf"),
            "message": "the loss is NaN",
            "cause": "",
            "opened": 3,
            "peak": 3,
            "last": 3,
        }
        return Finding(**whole | changes)

    return make
