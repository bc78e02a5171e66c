"""Properties of every workload, with sigmoid and with softmax attention, and of every shipped configuration."""

import math
from itertools import islice
from pathlib import Path

import pytest
import torch

from stabmon import config as configuration
from stabmon import preflight
from stabmon.config import ModelConfig, RunConfig, TrainingConfig
from stabmon.store import open_run
from stabmon.workloads import training

WORKLOADS = ("language", "vision", "speech")
ATTENTIONS = ("sigmoid", "softmax")


def config(workload: str, model: dict | None = None, **options: object) -> RunConfig:
    return RunConfig(
        name="tiny",
        workload=workload,
        model=ModelConfig(**{"layers": 2, "width": 16, "heads": 2, "context": 64, **(model or {})}),
        training=TrainingConfig(**{"steps": 4, "batch": 2, "learning_rate": 1e-2, **options}),
    )


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_watching_changes_no_bit_and_records_every_layer(workload: str, attention: str, tmp_path: Path) -> None:
    one = config(workload, {"attention": attention})
    watched = training.train(one, directory=tmp_path)
    assert watched.losses == training.train(one, watch=False).losses
    assert (watched.diverged, watched.validation_loss) == (False, None)
    assert watched.unit.startswith("nats a")
    with open_run(watched.path) as run:
        assert [found.kind for found in run.info.model.attentions] == [attention] * 2
        norms = run.read("attention_norm").values
    assert norms.shape == (4, 4)
    assert (norms > 0).all()


@pytest.mark.parametrize("workload", WORKLOADS)
def test_sigmoid_and_softmax_models_get_the_same_data_and_first_weights(workload: str) -> None:
    sigmoid, softmax = (config(workload, {"attention": attention}) for attention in ATTENTIONS)
    for ours, theirs in zip(*(islice(training.batches(each), 2) for each in (sigmoid, softmax)), strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(ours.inputs + ours.targets, theirs.inputs + theirs.targets, strict=True)
        )
    weights = dict(training.build(sigmoid).named_parameters())
    assert all(torch.equal(weights[name], theirs) for name, theirs in training.build(softmax).named_parameters())


@pytest.mark.parametrize("workload", WORKLOADS)
def test_preflight_flags_a_bias_of_zero_and_passes_minus_log_n(workload: str) -> None:
    reports = []
    for bias in (0.0, "length"):
        one = config(workload, {"width": 32, "context": 256, "bias": bias})
        reports.append(preflight(training.build(one), next(training.batches(one)).inputs))
    naive, fixed = reports
    assert {finding.layer for finding in naive.findings if finding.code == "ATT001"} == {"layers.0", "layers.1"}
    assert fixed.healthy


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_options_reach_every_block(workload: str) -> None:
    options = {"bias": "learnable", "bias_start": -2.0, "qk_norm": True, "layer_scale": 0.1, "hybrid_norm": True}
    net = training.build(config(workload, {**options, "norm": "post"}))
    names = dict(net.named_parameters())
    for layer in range(2):
        for part in ("query_norm.weight", "bias"):
            assert f"layers.{layer}.attention.{part}" in names
        for part in ("attention_scale.gain", "attention_post_norm.weight"):
            assert f"layers.{layer}.{part}" in names
        assert net.layers[layer].norm == "post"
        assert net.layers[layer].attention.bias.tolist() == [-2.0, -2.0]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_one_bad_batch_is_noise_and_all_others_are_as_they_were(workload: str) -> None:
    good, bad = (list(islice(training.batches(config(workload, bad_batch=step)), 3)) for step in (None, 1))
    for step in (0, 2):
        assert all(torch.equal(a, b) for a, b in zip(good[step].inputs, bad[step].inputs, strict=True))
    assert not torch.equal(good[1].inputs[0], bad[1].inputs[0])
    assert not torch.equal(good[1].targets[0], bad[1].targets[0])
    assert good[1].inputs[0].shape == bad[1].inputs[0].shape
    result = training.train(config(workload, bad_batch=1), watch=False)
    assert result.losses[0] == training.train(config(workload), watch=False).losses[0]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_validation_can_be_longer_than_training(workload: str) -> None:
    one = config(workload, evaluate_length=144)
    result = training.train(one, watch=False)
    assert result.validation_loss is not None
    assert math.isfinite(result.validation_loss)
    assert result.losses == training.train(config(workload), watch=False).losses


@pytest.mark.parametrize("workload", WORKLOADS)
def test_fp16_trains_with_fp32_weights_and_steps_that_its_scaler_may_skip(workload: str, tmp_path: Path) -> None:
    one = config(workload, precision="fp16")
    model = training.build(one)
    result = training.train(one, model=model, directory=tmp_path)
    exact = training.train(config(workload), watch=False)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert result.losses[0] == pytest.approx(exact.losses[0], rel=0.01)
    assert result.losses != exact.losses


def test_a_forward_pass_that_overflows_in_fp16_is_recorded_and_flagged(tmp_path: Path) -> None:
    one = config("language", precision="fp16")
    model = training.build(one)
    with torch.no_grad():
        model.layers[0].attention.qkv.weight.mul_(1e6)
    result = training.train(one, model=model, directory=tmp_path)
    assert result.diverged
    with open_run(result.path) as run:
        assert run.read("loss").steps.tolist() == [0, 1, 2, 3]
    assert "NUM001" in {finding.code for finding in result.findings}


def test_a_run_that_ends_above_its_start_has_diverged() -> None:
    assert training.train(config("language", learning_rate=3.0, clip=None), watch=False).diverged


@pytest.mark.slow
@pytest.mark.parametrize("name", configuration.documented())
def test_every_configuration_that_ships_trains(name: str) -> None:
    small = {"training.steps": 2, "training.batch": 1, "model.layers": 2, "model.context": 64}
    loaded = configuration.override(configuration.load(name), small)
    if loaded.training.evaluate_length is not None:
        loaded = configuration.override(loaded, {"training.evaluate_length": 100})
    result = training.train(loaded)
    assert all(map(math.isfinite, result.losses))


@pytest.mark.parametrize(
    ("workload", "changes", "message"),
    [
        ("vision", {"model.context": 60}, "model.context must be a square number of patches, got 60"),
        (
            "vision",
            {"training.evaluate_length": 65},
            "training.evaluate_length must be a square number of patches, got 65",
        ),
        (
            "speech",
            {"model.position": "learned", "training.evaluate_length": 65},
            "learned positions end at model.context 64, got training.evaluate_length 65",
        ),
        ("language", {"model.bias_start": -3.0}, "bias_start is where bias 'learnable' starts, got bias 'length'"),
    ],
)
def test_lengths_and_options_that_do_not_fit_are_refused(workload: str, changes: dict, message: str) -> None:
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.override(config(workload), changes)
