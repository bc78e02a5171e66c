import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from stabmon.config import ModelConfig, MonitorConfig, RunConfig, TrainingConfig
from stabmon.errors import ConfigError
from stabmon.store import open_run
from stabmon.workloads import training
from stabmon.workloads.rate import rate


def config(**options: object) -> RunConfig:
    return RunConfig(
        name="tiny",
        model=ModelConfig(layers=2, width=16, heads=2, context=16),
        training=TrainingConfig(**{"steps": 6, "batch": 2, "learning_rate": 1e-2, "warmup": 2, **options}),
    )


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    first, state = training.build(config()), torch.get_rng_state()
    again = training.build(config())
    other = training.build(config(seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_the_data_follows_the_seed_and_not_the_model() -> None:
    wider = config().model_copy(update={"model": ModelConfig(layers=1, width=32, heads=2, context=16, bias=0.0)})
    taken = [[batch.inputs[0] for batch in islice(training.batches(c), 3)] for c in (config(), wider, config(seed=1))]
    assert all(torch.equal(a, b) for a, b in zip(taken[0], taken[1], strict=True))
    assert not torch.equal(taken[0][0], taken[2][0])
    assert not torch.equal(taken[0][0], taken[0][1])


def test_training_twice_gives_the_same_bits() -> None:
    models = [training.build(config()) for _ in range(2)]
    results = [training.train(config(), model=model, watch=False) for model in models]
    assert results[0].losses == results[1].losses
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_training_lowers_the_loss() -> None:
    result = training.train(config(steps=40), watch=False)
    assert len(result.losses) == 40
    assert result.final_loss == pytest.approx(sum(result.losses[-20:]) / 20)
    assert result.final_loss < result.losses[0] - 1.0
    assert (result.findings, result.overhead, result.path) == ([], None, None)


def test_progress_gets_every_step_and_its_loss() -> None:
    seen: list[tuple[int, float]] = []
    result = training.train(config(), watch=False, progress=lambda step, loss: seen.append((step, loss)))
    assert seen == list(zip(range(1, 7), result.losses, strict=True))


def test_rate_warms_up_and_ends_at_a_tenth() -> None:
    rates = [rate(step, config(steps=12, warmup=4).training) for step in range(12)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)


def test_the_optimizer_steps_with_the_scheduled_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: (seen.append(self.param_groups[0]["lr"]), original(self))[1]
    )
    training.train(config(), watch=False)
    assert seen == pytest.approx([1e-2 * rate(step, config().training) for step in range(6)])


def test_only_matrices_decay() -> None:
    matrices, others = training.optimizer(training.build(config()), config(weight_decay=0.2)).param_groups
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.2, 0.0)
    assert all(weight.dim() >= 2 for weight in matrices["params"])
    assert sum(len(group["params"]) for group in (matrices, others)) == len(list(training.build(config()).parameters()))


def test_clipping_limits_what_the_optimizer_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def step(self: torch.optim.Optimizer) -> None:
        gradients = [weight.grad for group in self.param_groups for weight in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    monkeypatch.setattr(training, "AdamW", lambda groups, lr, betas: torch.optim.SGD(groups, lr))
    training.train(config(clip=1e-3), watch=False)
    training.train(config(clip=None), watch=False)
    assert norms[:6] == pytest.approx([1e-3] * 6, rel=1e-2)
    assert min(norms[6:]) > 0.05


def test_bf16_trains_with_fp32_weights() -> None:
    model = training.build(config(precision="bf16"))
    result = training.train(config(precision="bf16"), model=model, watch=False)
    exact = training.train(config(), watch=False)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert result.losses == pytest.approx(exact.losses, abs=0.1)
    assert result.losses != exact.losses


def test_watching_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    models = [training.build(config()) for _ in range(2)]
    bare = training.train(config(), model=models[0], watch=False)
    watched = training.train(config(), model=models[1], directory=tmp_path, name="one")
    assert watched.losses == bare.losses
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_a_watched_training_leaves_a_run_with_its_configuration_and_losses(tmp_path: Path) -> None:
    result = training.train(config(), directory=tmp_path, name="one")
    assert result.path == tmp_path / "one"
    assert result.overhead is not None
    with open_run(result.path) as run:
        assert RunConfig.model_validate_json(json.dumps(run.info.config)) == config()
        read = run.read("loss")
    assert read.steps.tolist() == list(range(6))
    assert read.values[:, 0].tolist() == pytest.approx(result.losses)


def test_the_configuration_decides_which_steps_are_recorded(tmp_path: Path) -> None:
    sparse = config(steps=9).model_copy(update={"monitor": MonitorConfig(dense=2, every=4)})
    result = training.train(sparse, directory=tmp_path, name="one")
    assert result.path is not None
    with open_run(result.path) as run:
        assert run.read("row_mass").steps.tolist() == [0, 1, 4, 8]
        assert run.read("loss").steps.tolist() == list(range(9))  # every number that is logged is kept


def test_a_training_without_a_folder_still_reports_findings() -> None:
    naive = config().model_copy(update={"model": ModelConfig(layers=2, width=32, heads=2, context=256, bias=0.0)})
    result = training.train(naive)
    assert result.path is None
    assert {"layers.0", "layers.1"} <= {finding.layer for finding in result.findings}


def test_a_result_travels_as_one_json_object_without_every_loss(tmp_path: Path) -> None:
    result = training.train(config(), directory=tmp_path, name="one")
    result_as_json = json.loads(training.as_json(result.model_copy(update={"final_loss": float("nan")})))
    assert result_as_json["path"] == str(tmp_path / "one")
    assert result_as_json["final_loss"] == "NaN"
    assert "losses" not in result_as_json


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training.pick_device() == "cpu"
    for name in ("warp", "cuda:99"):
        with pytest.raises(ConfigError, match=f"device '{name}' cannot be used here: .*; try cpu"):
            training.pick_device(name)
