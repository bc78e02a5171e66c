"""Two finished runs: 'naive' goes wrong at step 0, 'fixed' is the same with another bias."""

from datetime import timedelta

import pytest

from stabmon.store import open_run
from tests.server.conftest import Store


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("reports"))
    store.finished("naive", naive=True, age=timedelta(minutes=20))
    store.finished("fixed", age=timedelta(minutes=10))
    return store.directory


@pytest.fixture
def store(tmp_path):
    """An empty folder to write runs into."""
    return Store(tmp_path)


@pytest.fixture
def naive(folder):
    with open_run(folder / "naive") as run:
        yield run


@pytest.fixture
def fixed(folder):
    with open_run(folder / "fixed") as run:
        yield run
