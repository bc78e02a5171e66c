"""The callback for Lightning, with a tiny model."""

import pytest
import torch
from torch.utils.data import DataLoader

from stabmon.records import RunState
from stabmon.store import open_run
from tests.integrations.language_model import LanguageModel, dataset, read

lightning = pytest.importorskip("lightning.pytorch")

from stabmon.integrations.lightning import StabmonCallback  # noqa: E402 imports lightning

pytestmark = pytest.mark.filterwarnings(r"ignore:::(lightning|pytorch_lightning)\..*")
STEPS = 5


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.losses = LanguageModel(), []

    def training_step(self, tokens):
        loss = self.model(tokens)
        self.losses.append(loss.item())
        return {"loss": loss, "double": 2 * loss.detach()}

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Alternating(Module):
    """Two optimizers, of which each batch takes a step."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, tokens):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.model(tokens))
            optimizer.step()

    def configure_optimizers(self):
        parameters = list(self.parameters())
        return [torch.optim.SGD(part, lr=0.01) for part in (parameters[:4], parameters[4:])]


@pytest.fixture
def fit(tmp_path):
    def trained(*callbacks, package=lightning, module=None, steps=STEPS, checkpoint=None, **options):
        torch.manual_seed(0)
        module = module or Module()
        options |= {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = package.Trainer(
            max_steps=steps,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            default_root_dir=tmp_path,
            **options,
        )
        trainer.fit(module, DataLoader(dataset(), batch_size=4), ckpt_path=checkpoint, weights_only=False)
        return trainer

    return trained


@pytest.fixture
def callback(tmp_path):
    return lambda **options: StabmonCallback(**{"dir": tmp_path / "runs", "name": "run", "console": False} | options)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_step_is_recorded_and_the_trained_bits_are_the_same(accumulate, fit, callback, tmp_path):
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}
    alone = fit(**options).model
    watched = fit(callback(log=("loss", "double")), **options).model
    assert all(torch.equal(value, watched.state_dict()[name]) for name, value in alone.state_dict().items())
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))
    losses = {step: row[0] for step, row in read(tmp_path, "loss").items()}
    assert losses == pytest.approx(dict(enumerate(watched.losses[accumulate - 1 :: accumulate])))
    assert read(tmp_path, "double")[2][0] == pytest.approx(2 * losses[2])
    with open_run(tmp_path / "runs" / "run") as run:
        assert run.heartbeat().state is RunState.FINISHED


def test_a_training_goes_on_in_the_run_of_its_checkpoint(fit, callback, tmp_path):
    fit(callback(), steps=2).save_checkpoint(tmp_path / "state.ckpt")
    fit(callback(name=None), checkpoint=tmp_path / "state.ckpt")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run"]
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))


def test_a_batch_with_steps_of_several_optimizers_is_one_step(fit, callback, tmp_path):
    fit(callback(), module=Alternating(), steps=2 * STEPS)
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))


def test_a_training_that_raises_is_a_failed_run(fit, callback, tmp_path):
    module = Module()
    module.on_train_batch_end = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(callback(), module=module)
    with open_run(tmp_path / "runs" / "run") as run:
        assert run.heartbeat().state is RunState.FAILED


def test_the_trainer_of_the_other_package_takes_the_callback(fit, callback, tmp_path):
    other = pytest.importorskip("pytorch_lightning")

    class OtherModule(other.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = LanguageModel()

        def training_step(self, tokens):
            return self.model(tokens)

        configure_optimizers = Module.configure_optimizers

    fit(callback(), package=other, module=OtherModule())
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))
