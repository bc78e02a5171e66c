"""The Trainer's callback, with a tiny model."""

import logging

import pytest
import torch

from stabmon.integrations.transformers import StabmonCallback
from stabmon.records import RunState
from stabmon.store import open_run
from tests.integrations.language_model import LanguageModel, dataset, read

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

STEPS = 6


class Model(transformers.PreTrainedModel):
    config_class = transformers.PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = LanguageModel()
        self.post_init()

    def forward(self, input_ids, labels, **_):
        return {"loss": self.model(input_ids)}


@pytest.fixture
def trainer(tmp_path):
    def make(*callbacks, **arguments):
        torch.manual_seed(0)
        options = {"max_steps": STEPS, "logging_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no"}
        options |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "learning_rate": 0.01} | arguments
        return transformers.Trainer(
            model=Model(transformers.PretrainedConfig()),
            args=transformers.TrainingArguments(str(tmp_path / "out"), **options),
            train_dataset=[{"input_ids": row, "labels": row} for row in dataset()],
            callbacks=list(callbacks),
        )

    return make


@pytest.fixture
def callback(tmp_path):
    return lambda **options: StabmonCallback(**{"dir": tmp_path / "runs", "name": "run", "console": False} | options)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"gradient_accumulation_steps": 3, "logging_steps": 4},
        {"torch_compile": True, "torch_compile_backend": "eager"},
    ],
    ids=["plain", "accumulated", "compiled"],
)
def test_every_step_is_recorded_and_the_trained_bits_are_the_same(arguments, trainer, callback, tmp_path):
    alone = trainer(**arguments)
    alone.train()
    torch._dynamo.reset()  # a second model of one class would run the first one's graph, which has no hooks
    watched = trainer(callback(), **arguments)
    watched.train()
    assert all(torch.equal(value, weights(watched)[name]) for name, value in weights(alone).items())
    norms = read(tmp_path, "attention_norm")
    assert list(norms) == list(range(STEPS))
    assert all(len(row) == 2 and min(row) > 0 for row in norms.values())
    every = arguments.get("logging_steps", 2)
    logged = {entry["step"] - 1: entry["loss"] for entry in watched.state.log_history if "loss" in entry}
    assert list(logged) == list(range(every - 1, STEPS, every))
    assert {step: row[0] for step, row in read(tmp_path, "loss").items()} == pytest.approx(logged)
    with open_run(tmp_path / "runs" / "run") as run:
        assert run.heartbeat().state is RunState.FINISHED


def test_a_training_resumed_from_a_checkpoint_goes_on_in_the_same_run(trainer, callback, tmp_path):
    whole = trainer(callback(name="whole"))
    whole.train()
    saving = {"save_strategy": "steps", "save_steps": 2}
    first = trainer(callback(), **saving)
    first.train()
    again = trainer(callback(name=None), **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["run", "whole"]
    assert read(tmp_path, "attention_norm") == read(tmp_path, "attention_norm", "whole")


def test_a_name_that_is_taken_gets_a_number(trainer, callback, tmp_path, caplog):
    for _ in range(2):
        trainer(callback()).train()
    assert list(read(tmp_path, "attention_norm", "run-2")) == list(range(STEPS))
    assert "The run is recorded as run-2" in caplog.text


def test_a_training_that_cannot_be_watched_goes_on_and_the_log_says_why(trainer, callback, tmp_path, caplog):
    (tmp_path / "runs").write_text("a file")
    trained = trainer(callback())
    trained.train()
    assert trained.state.global_step == STEPS
    (said,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "runs" in said.message
    assert "The training goes on" in said.message


def test_a_training_that_fails_is_a_failed_run_when_the_next_begins(trainer, callback, tmp_path):
    class Failing(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise RuntimeError("out of memory")

    watched = callback()
    failing = trainer(watched, Failing())
    with pytest.raises(RuntimeError, match="out of memory"):
        failing.train()
    failing.pop_callback(Failing)
    failing.train()
    with open_run(tmp_path / "runs" / "run") as run:
        assert run.heartbeat().state is RunState.FAILED
    assert list(read(tmp_path, "attention_norm", "run-2")) == list(range(STEPS))


def test_options_that_watch_does_not_have_are_refused_at_once():
    with pytest.raises(TypeError, match="schedul cannot be given here; the options are"):
        StabmonCallback(schedul=1)
    with pytest.raises(TypeError, match="first_step"):
        StabmonCallback(first_step=1)
