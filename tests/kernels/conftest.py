"""Kernel tests start with empty caches and the same seed; those of a GPU are skipped where there is none."""

import pytest
import torch

from stabmon.kernels import cache


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "tests/kernels/" in item.nodeid and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def poisoned(monkeypatch):
    """Fill every new tensor with NaN, so that an element nobody writes is seen."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(tensor):
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poison(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poison(empty_like(*args, **kwargs)))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def forgotten():
    """Let no test see what was cached while another had changed the device or the kernels."""
    cache.clear()
    yield
    cache.clear()
