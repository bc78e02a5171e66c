"""A training with the monitor: the same bits, the process as before, a bad start flagged, a good one passed."""

import json
import subprocess
import sys
import tempfile

from stabmon import config as configuration
from stabmon.config import RunConfig
from stabmon.preflight_check import preflight
from stabmon.selftest import process_state
from stabmon.selftest.check import require
from stabmon.workloads import training

TINY = {"model.layers": 2, "model.width": 32, "model.heads": 2, "model.context": 64, "training.batch": 2}
STEPS = 6


def tiny() -> RunConfig:
    """Return a documented run made small."""
    return configuration.override(configuration.load("fixed"), TINY | {"training.steps": STEPS, "training.warmup": 2})


def same_bits() -> str:
    """Train with and without the monitor."""
    with tempfile.TemporaryDirectory() as folder:
        watched = training.train(tiny(), directory=folder, name="run").losses
    alone = training.train(tiny(), watch=False).losses
    require(watched == alone, f"losses with the monitor are {watched}, without it {alone}")
    return f"{STEPS} steps have the same bits with and without the monitor"


def process_unchanged() -> str:
    """Compare the state of a fresh process before and after it watches a training."""
    done = subprocess.run([sys.executable, "-m", process_state.__name__], capture_output=True, text=True)
    require(done.returncode == 0, f"the process that watches failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    changed = json.loads(done.stdout.splitlines()[-1])
    require(not changed, f"watching changed {', '.join(changed)}")
    return "generators, signal handlers, warning filters, logging, hooks and streams are as before"


def preflight_flags_only_the_bad_start() -> str:
    """Check a run that starts badly, and the same run with its fix, before training."""
    found = {}
    for name in ("naive", "fixed"):
        config = configuration.load(name)
        inputs, _ = next(iter(training.batches(config)))
        report = preflight(training.build(config), inputs, config=config.model_dump(mode="json"))
        found[name] = {finding.code for finding in report.findings}
    require("ATT001" in found["naive"], f"the run with b = 0 must have ATT001, it has {sorted(found['naive'])}")
    require(not found["fixed"], f"the run with its fix must have no finding, it has {sorted(found['fixed'])}")
    return "b = 0 is found at step 0, and nothing where it is fixed"
