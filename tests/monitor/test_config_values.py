"""Whatever a user keeps in a configuration is stored with the run."""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stabmon import watch
from stabmon.monitor.config_values import DEEPEST, LONGEST, stored
from stabmon.store import open_run


@dataclasses.dataclass
class Options:
    width: int = 3
    path: Path = Path("a/b")


class Broken:
    def __repr__(self):
        raise ValueError("odd")


class BrokenMapping(dict):
    def items(self):
        raise ValueError("odd")


cyclic: dict[str, object] = {"a": 1}
cyclic["itself"] = cyclic


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), "True"),
        (torch.bfloat16, "torch.bfloat16"),
        (torch.device("cpu"), "cpu"),
        (argparse.Namespace(lr=1e-3, tags={"b", "a"}), {"lr": 1e-3, "tags": ["a", "b"]}),
        (Options(), {"width": 3, "path": "a/b"}),
        (Options, "test_config_values.Options"),
        (max, "builtins.max"),
        (np.arange(3), "[0 1 2]"),
        (b"\xff", "b'\\xff'"),
        ("\ud800", "\\ud800"),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (Broken(), "(Broken that cannot be printed)"),
        (cyclic, {"a": 1, "itself": "(contains itself)"}),
        (2**70, 2**70),
        ("x" * 5000, "x" * 5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_odd_values_are_kept_as_text_and_plain_ones_as_they_are(value, kept):
    found = stored({"x": value})["x"]
    assert json.loads(json.dumps(found)) == found
    assert found == kept if not isinstance(kept, str) else found.endswith(kept)


@pytest.mark.parametrize("config", [None, {}, 3, "text", Broken(), BrokenMapping(a=1), [1, 2], argparse.Namespace(a=1)])
def test_what_is_no_mapping_is_kept_too(config):
    assert isinstance(json.loads(json.dumps(stored(config))), dict)


def test_an_object_that_raises_whatever_it_is_asked_is_kept_as_text():
    class Worse(Broken):
        def __getattribute__(self, name):
            raise RuntimeError("odd")

    assert stored({"x": Worse()}) == {"x": "(Worse that cannot be printed)"}


def test_what_is_deep_or_long_is_cut():
    deep: object = 1
    for _ in range(10_000):
        deep = [deep]
    kept, levels = stored({"x": deep})["x"], 0
    while isinstance(kept, list):
        (kept,), levels = kept, levels + 1
    assert levels < DEEPEST
    assert len(stored({"x": range(10**9)})["x"]) == LONGEST


def test_a_run_with_an_odd_configuration_is_stored(tiny, tmp_path):
    config = argparse.Namespace(dtype=torch.float16, odd=Broken(), rate=np.float32(0.5))
    watch(tiny(), dir=tmp_path, name="one", console=False, config=config).close()
    with open_run(tmp_path / "one") as run:
        assert run.info.config == {"dtype": "torch.float16", "odd": "(Broken that cannot be printed)", "rate": 0.5}
