"""The tracker of Accelerate, with a tiny model on the CPU."""

import pytest
import torch
from torch.utils.data import DataLoader

from stabmon.errors import ArgumentError
from stabmon.records import RunState
from stabmon.store import open_run
from tests.integrations.language_model import LanguageModel, dataset, read

accelerate = pytest.importorskip("accelerate")

from stabmon.integrations.accelerate import tracker_of, watch  # noqa: E402 imports accelerate

STEPS = 5


@pytest.fixture
def train(tmp_path):
    """Train ``batches`` and return the accelerator, the weights and the losses; from ``state``, where it is given."""

    def trained(batches=STEPS, *, watched=True, accumulate=1, project="run", state=None, end=True, **options):
        torch.manual_seed(0)
        accelerator = accelerate.Accelerator(
            cpu=True, log_with="stabmon", gradient_accumulation_steps=accumulate, **options
        )
        model = LanguageModel()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(dataset(), batch_size=4))
        every, losses = list(loader), []  # a DataLoader takes a random number when it begins
        if watched:
            accelerator.init_trackers(project, config={"lr": 0.01})
            accelerator.register_for_checkpointing(tracker_of(accelerator))
            if state is not None:
                accelerator.load_state(state)
            watch(accelerator, model, optimizer, dir=tmp_path / "runs", console=False)
        done = 0 if state is None else 2
        for tokens in every[done : batches * accumulate]:
            with accelerator.accumulate(model):
                loss = model(tokens)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            accelerator.log({"loss": loss, "text": "not a number"}, step=100)
            losses.append(loss.item())
        if end:
            accelerator.end_training()
        return accelerator, {name: value.clone() for name, value in model.state_dict().items()}, losses

    return trained


def test_every_step_is_recorded_and_the_trained_bits_are_the_same(train, tmp_path):
    _, alone, _ = train(watched=False)
    _, watched, losses = train()
    assert all(torch.equal(value, watched[name]) for name, value in alone.items())
    assert {step: row[0] for step, row in read(tmp_path, "loss").items()} == pytest.approx(dict(enumerate(losses)))
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))
    with open_run(tmp_path / "runs" / "run") as run:
        assert run.info.config == {"lr": 0.01}
        assert run.heartbeat().state is RunState.FINISHED


def test_accumulated_batches_are_one_step(train, tmp_path):
    train(accumulate=3)
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))


def test_a_compiled_model_is_recorded(train, tmp_path):
    torch._dynamo.reset()
    train(dynamo_backend="eager")
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))


def test_a_training_goes_on_in_the_run_of_its_checkpoint(train, tmp_path):
    accelerator, _, _ = train(2, end=False)
    accelerator.save_state(tmp_path / "state")
    accelerator.end_training()
    train(state=tmp_path / "state", project="other")
    train(project="whole")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["run", "whole"]
    assert read(tmp_path, "attention_norm") == read(tmp_path, "attention_norm", "whole")


def test_a_project_that_is_trained_again_gets_a_run_with_a_number(train, tmp_path):
    for _ in range(2):
        train(2, project="a/b c")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a_b_c", "a_b_c-2"]


def test_an_accelerator_without_the_tracker_is_refused():
    with pytest.raises(ArgumentError, match='pass log_with="stabmon", and call init_trackers before watch'):
        watch(accelerate.Accelerator(cpu=True), LanguageModel())
