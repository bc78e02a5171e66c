"""``stabmon selftest``: its checks pass here, and fail where something is wrong."""

import io
import json
import logging
import random
import signal
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import stabmon
from stabmon.cli import app
from stabmon.selftest import check, kernels, process_state, run_all, store, training
from stabmon.selftest.check import FailedError, SkippedError, Status
from stabmon.store import FILE, RunReader
from stabmon.store.run_file import ReadFile


@pytest.mark.parametrize(
    "passing",
    [
        *(kernels.eager, store.written, store.killed, store.damaged),
        *(training.same_bits, training.process_unchanged, training.preflight_flags_only_the_bad_start),
    ],
    ids=lambda one: one.__name__,
)
def test_a_check_passes_on_a_machine_that_works(passing) -> None:
    (result,) = run_all([("it", passing)])
    assert result.status is Status.PASSED, result.detail


class Forgetful(RunReader):
    """A reader that misses the last samples."""

    def __init__(self, folder):
        super().__init__(ReadFile(folder / FILE))

    def after(self, cursor, *, limit=None):
        return super().after(cursor, limit=100)


def wrong_formula(query, key, value, **options):
    return kernels_formula(query, key, value, **options) * 1.0001


kernels_formula = kernels._formula


@pytest.mark.parametrize(
    ("part", "name", "broken", "failing"),
    [
        (kernels, "_formula", wrong_formula, kernels.eager),
        (store.RunWriter, "sample", lambda *_: None, store.written),
        (store, "open_run", lambda path: Forgetful(path), store.killed),
        (store, "open_run", lambda path: np.zeros(1), store.damaged),
        (
            training,
            "preflight",
            lambda *_, **__: type("Report", (), {"findings": ()}),
            training.preflight_flags_only_the_bad_start,
        ),
    ],
    ids=["kernels", "store", "killed", "damaged", "preflight"],
)
def test_a_check_fails_where_something_is_wrong(part, name, broken, failing, monkeypatch) -> None:
    monkeypatch.setattr(part, name, broken)
    (result,) = run_all([("it", failing)])
    assert result.status is Status.FAILED


def draw_from_torch() -> None:
    torch.rand(1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("python's random", random.random),
        ("numpy's generator", np.random.rand),
        ("torch's generator", draw_from_torch),
        ("signal handlers", lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN)),
        ("warning filters", lambda: warnings.simplefilter("ignore")),
        ("logging handlers", lambda: logging.getLogger().addHandler(logging.NullHandler())),
        ("excepthook", lambda: setattr(sys, "excepthook", print)),
        ("standard output", lambda: setattr(sys, "stdout", io.StringIO())),
        ("standard error", lambda: setattr(sys, "stderr", io.StringIO())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_watch_changes_of_its_process_is_named(name, change, monkeypatch) -> None:
    watch, handler = stabmon.watch, signal.getsignal(signal.SIGUSR2)
    for stream in ("excepthook", "stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))  # puts them back afterwards

    def changing(*arguments, **options):
        change()
        return watch(*arguments, **options)

    assert process_state.changed() == []
    monkeypatch.setattr(stabmon, "watch", changing)
    handlers = list(logging.getLogger().handlers)
    try:
        with warnings.catch_warnings():
            assert process_state.changed() == [name]
    finally:
        signal.signal(signal.SIGUSR2, handler)
        logging.getLogger().handlers = handlers


def test_the_check_of_the_process_fails_with_what_was_changed(tmp_path, monkeypatch) -> None:
    (tmp_path / "odd_process.py").write_text("print('[\"excepthook\"]')")
    monkeypatch.chdir(tmp_path)  # where python -m looks
    monkeypatch.setattr(training, "process_state", SimpleNamespace(__name__="odd_process"))
    (result,) = run_all([("it", training.process_unchanged)])
    assert (result.status, result.detail) == (Status.FAILED, "watching changed excepthook")


def ends(error: Exception | None = None) -> check.Check:
    def one() -> str:
        if error is not None:
            raise error
        return "fine"

    return one


def test_what_a_check_raises_is_its_own_failure_and_the_others_go_on() -> None:
    errors = (None, SkippedError("no GPU"), FailedError("wrong"), KeyError("x"), None)
    results = list(run_all([(str(error), ends(error)) for error in errors]))
    assert [result.status for result in results] == ["passed", "skipped", "failed", "failed", "passed"]
    assert [result.detail for result in results[:3]] == ["fine", "no GPU", "wrong"]
    assert "KeyError: 'x'" in results[3].detail


@pytest.mark.parametrize(("error", "code"), [(None, 0), (SkippedError("no GPU"), 0), (FailedError("wrong"), 1)])
def test_the_exit_code_is_1_where_a_check_fails(error, code, monkeypatch) -> None:
    for part in (kernels, store, training):
        for name in ("eager", "triton", "hopper", "written", "killed", "damaged", "same_bits", "process_unchanged"):
            if hasattr(part, name):
                monkeypatch.setattr(part, name, ends())
    monkeypatch.setattr(training, "preflight_flags_only_the_bad_start", ends(error))
    done = CliRunner().invoke(app, ["selftest", "--json"])
    assert done.exit_code == code
    results = json.loads(done.stdout)
    assert len(results) == 9
    assert results[-1]["status"] == {None: "passed"}.get(error, type(error).__name__.removesuffix("Error").lower())
    assert CliRunner().invoke(app, ["selftest"]).exit_code == code
