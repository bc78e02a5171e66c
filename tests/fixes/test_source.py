"""A fix as a diff of the user's own file, which then builds the fixed model."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stabmon import preflight
from stabmon.errors import FixError
from stabmon.fixes import (
    bias_fix,
    clip_fix,
    hybrid_norm_fix,
    layer_scale_fix,
    learnable_bias_fix,
    position_fix,
    qk_norm_fix,
    source_diff,
    together,
    warmup_fix,
)
from stabmon.fixes.record import Fix
from stabmon.records import Attention

OURS = """\
from torch import nn
from stabmon.nn import Block, SigmoidAttention


class Größe(nn.Module):  # not ASCII, so bytes and characters differ
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList("ä" and self._block() for _ in range(2))

    def _block(self):
        return Block(
            16,
            SigmoidAttention(16, 2, bias=0.0, max_length=64),
        )

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
"""
FUNCTIONAL = """\
from torch import nn
from stabmon.kernels import sigmoid_attention


class Mixer(nn.Module):
    num_heads = 2

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).transpose(1, 3).unbind(2)
        return x + sigmoid_attention(q, k, v).transpose(1, 2).flatten(2)
"""


def load(folder: Path, text: str) -> ModuleType:
    file = folder / "model.py"
    file.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("model_of_a_user", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def patched(folder: Path, diff: str) -> ModuleType:
    subprocess.run(["patch", "-p1", "--quiet"], input=diff, text=True, cwd=folder, check=True)
    return load(folder, (folder / "model.py").read_text(encoding="utf-8"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def first(model: torch.nn.Module) -> Attention:
    return preflight(model, torch.randn(1, 64, 16)).map.attentions[0]


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda one: bias_fix(one, -4.16, "why"), {"bias": pytest.approx(-4.16)}),
        (lambda one: learnable_bias_fix(one, "why", -4.0), {"bias": "learnable"}),
        (lambda one: qk_norm_fix(one, "why"), {"qk_norm": True}),
        (lambda one: position_fix(one, "alibi", "why"), {"position": "alibi"}),
        (lambda one: layer_scale_fix(one, 1e-4, "why"), {"layer_scale": True}),
        (lambda one: hybrid_norm_fix(one, "why"), {"hybrid_norm": True}),
    ],
    ids=["bias", "learnable-bias", "qk-norm", "position", "layer-scale", "hybrid-norm"],
)
def test_the_file_with_the_diff_builds_the_fixed_model(make, expected: dict[str, object], here: Path) -> None:
    model = load(here, OURS).Größe()
    diff = source_diff(make(first(model)), model)
    assert diff.startswith("--- a/model.py\n+++ b/model.py\n@@ -")
    fixed = first(patched(here, diff).Größe())
    for name, value in expected.items():
        assert getattr(fixed, name) == value


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
def test_the_parts_of_a_fix_are_one_diff(here: Path) -> None:
    model = load(here, OURS).Größe()
    one = first(model)
    parts = (bias_fix(one, -4.16, "why"), qk_norm_fix(one, "why"), layer_scale_fix(one, 1, "x"))
    diff = source_diff(together(*parts, warmup_fix(9, "why")), model)
    assert (diff.count("+++ "), diff.count("-            SigmoidAttention(")) == (1, 1)
    assert "LambdaLR" in diff  # where the training is written is not known, so that comment follows it
    fixed = first(patched(here, diff).Größe())
    assert (fixed.bias, fixed.qk_norm, fixed.layer_scale) == (pytest.approx(-4.16), True, True)


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
def test_a_call_of_the_function_gets_its_bias(here: Path) -> None:
    model = load(here, FUNCTIONAL).Mixer()
    fix = bias_fix(first(model), -4.16, "why")
    diff = source_diff(fix, model)
    assert "+        return x + sigmoid_attention(q, k, v, bias=-4.16).transpose(1, 2).flatten(2)\n" in diff
    assert preflight(patched(here, diff).Mixer(), torch.randn(1, 64, 16)).rows[0].bias == pytest.approx(-4.16)


def test_where_the_source_line_is_ambiguous_the_general_diff_is_given(here: Path) -> None:
    twice = OURS.replace(
        "    def forward", "    other = staticmethod(lambda: SigmoidAttention(1, 1, max_length=2))\n\n    def forward"
    )
    model = load(here, twice).Größe()
    fix = bias_fix(first(model), -4.16, "why")
    assert source_diff(fix, model) == fix.diff
    assert source_diff(clip_fix(1.0, "why"), model) == clip_fix(1.0, "why").diff
    bare = torch.nn.Sequential(model.layers[0])
    assert source_diff(fix.model_copy(update={"module": "0.attention"}), bare) == fix.diff


def test_a_fix_for_foreign_attention_comes_with_a_diff_of_its_file(here: Path) -> None:
    model = load(here, FUNCTIONAL).Mixer()
    fix: Fix = bias_fix(first(model), -4.16, "why")
    with pytest.raises(FixError, match=r"stabmon cannot change it in place[\s\S]*\+\+\+ b/model\.py"):
        fix.apply(model)
