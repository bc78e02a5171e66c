"""Nothing of the user's process is changed by a watched training: looked at in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FACTS = (
    "python's generator",
    "numpy's generator",
    "torch's generator",
    "signal handlers",
    "warnings filters",
    "logging handlers",
    "excepthooks",
    "standard streams",
    "environment",
    "numpy's and torch's settings",
)
SCRIPT = """
import json, logging, os, random, signal, sys, threading, warnings
import numpy, torch

def facts():
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    settings = numpy.geterr(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    streams = sys.stdout, sys.stderr, sys.stdin, sys.__stdout__, sys.__stderr__
    return {
        "python's generator": random.getstate(),
        "numpy's generator": repr(numpy.random.get_state()),
        "torch's generator": torch.get_rng_state().tolist(),
        "signal handlers": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "warnings filters": repr(warnings.filters),
        "logging handlers": sorted(f"{one.name} {one.level} {one.handlers}" for one in loggers if one.handlers),
        "excepthooks": repr((sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook)),
        "standard streams": repr([(id(stream), stream.fileno(), os.fstat(stream.fileno())) for stream in streams]),
        "environment": repr((dict(os.environ), os.getcwd(), sys.getswitchinterval(), sys.getrecursionlimit())),
        "numpy's and torch's settings": repr((settings, torch.are_deterministic_algorithms_enabled())),
    }

torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)  # torch's own import of its compiler changes two facts
import botocore  # TensorBoard imports it where it is installed, and its logger then has a handler that does nothing
random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
before = facts()
import stabmon
from stabmon.nn import Block, SigmoidAttention
model = torch.nn.Sequential(Block(16, SigmoidAttention(16, 2, bias=0.0, max_length=8)))
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
batch = torch.randn(2, 8, 16)
torch.set_rng_state(torch.tensor(before["torch's generator"], dtype=torch.uint8))
monitor = stabmon.watch(model, optimizer, dir=sys.argv[1], name="a", console=sys.argv[2] == "True")
for step in range(200):
    loss = (model(batch) - batch).square().mean()
    loss.backward(), optimizer.step(), optimizer.zero_grad(), monitor.log(loss=loss)
found = len(monitor.findings)
monitor.close()
after = facts()
print(json.dumps({"found": found, "changed": [name for name in before if before[name] != after[name]]}))
"""


@pytest.fixture(scope="module", params=[True, False], ids=["console", "no-console"])
def process(request, tmp_path_factory):
    """The report of a process with and without the console."""
    folder = str(tmp_path_factory.mktemp("runs"))
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, str(request.param)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 0, ended.stderr
    assert ("stabmon" in ended.stderr) == request.param
    return json.loads(ended.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("fact", FACTS)
def test_watching_leaves_the_process_as_it_was(fact, process):
    assert process["found"] > 0
    assert fact not in process["changed"]


@pytest.mark.slow
def test_no_fact_of_the_process_is_left_out(process):
    assert not process["changed"]
