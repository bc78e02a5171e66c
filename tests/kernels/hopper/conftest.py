"""The kernels as they run in the simulation."""

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from stabmon.kernels import cache, device, hopper
from stabmon.kernels.hopper import launch

FOLDER = Path(hopper.__file__).parent


def _simulation():
    folder = Path(__file__).with_name("simulation")
    places = [str(folder)]
    spec = importlib.util.spec_from_file_location(
        "hopper_simulation", folder / "__init__.py", submodule_search_locations=places
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def simulation():
    return _simulation()


@pytest.fixture(scope="session")
def kernels(simulation):
    """Return the module of the forward kernel, runnable here."""
    return simulation.load(FOLDER, "forward")


@pytest.fixture
def simulated(simulation, monkeypatch):
    """Return a function that puts modules of kernels, by name, under the launchers, and as many multiprocessors."""

    def put(modules, processors):
        cache.clear()
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, f"stabmon.kernels.hopper.{name}", simulation.Launchable(module))
        monkeypatch.setattr(device, "processors", lambda _: processors)

    monkeypatch.setattr(launch, "descriptor", simulation.descriptor)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return put


@pytest.fixture
def altered(simulation, tmp_path):
    """Return the module ``name`` with one passage of its source replaced."""

    def load(old, new, name="forward"):
        for source in FOLDER.glob("*.py"):
            text = source.read_text()
            if source.stem == name:
                assert text.count(old) == 1
                text = text.replace(old, new)
            (tmp_path / source.name).write_text(text)
        return simulation.load(tmp_path, name)

    return load
