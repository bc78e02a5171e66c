import sys
from itertools import islice

import pytest
import torch

from stabmon.config import ModelConfig, RunConfig, TrainingConfig
from stabmon.errors import ConfigError
from stabmon.workloads import speech, spoken_vowels


def config(**options: object) -> RunConfig:
    return RunConfig(
        name="tiny",
        workload="speech",
        model=ModelConfig(**{"layers": 2, "width": 16, "heads": 2, "context": 64, **options}),
        training=TrainingConfig(steps=2, batch=4, learning_rate=1e-2),
    )


def model(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return speech.build(config(**options).model)


def test_the_recordings_are_the_collections_own_parts() -> None:
    train, valid = spoken_vowels.vowels()
    assert (len(train.frames), len(valid.frames)) == (270, 370)
    assert train.speakers.bincount().tolist() == [0, *[30] * 9]
    assert {len(frames) for frames in train.frames} <= set(range(7, 30))
    together = torch.cat(train.frames)
    torch.testing.assert_close(together.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(together.std(0), torch.ones(12), atol=1e-5, rtol=0)


def test_a_sequence_is_recordings_one_after_another_and_who_spoke() -> None:
    train = spoken_vowels.vowels().train
    generator = torch.Generator().manual_seed(0)
    drawn = [spoken_vowels.sequence(train, 200, generator) for _ in range(50)]
    lengths = [len(each.frames) for each in drawn]
    assert 70 < min(lengths) < 120 < 170 < max(lengths) <= 200
    assert all((each.transcript.diff() != 0).all() for each in drawn)
    first, speaker = drawn[0].frames, drawn[0].transcript[0]
    start = [index for index, frames in enumerate(train.frames) if torch.equal(first[: len(frames)], frames)]
    assert train.speakers[start[0]] == speaker


def test_batches_are_padded_on_the_right_to_the_context() -> None:
    for (frames, lengths), (speakers, number) in islice(speech.batches(config()), 3):
        assert frames.shape == (4, 64, 12)
        for index, length in enumerate(lengths.tolist()):
            assert not frames[index, length:].any()
            assert frames[index, length - 1].any()
        assert (speakers.count_nonzero(1) == number).all()


@pytest.mark.parametrize("attention", ["sigmoid", "softmax"])
@pytest.mark.parametrize("position", ["learned", "rope", "alibi", "none"])
def test_the_loss_does_not_depend_on_what_the_padding_holds(position: str, attention: str) -> None:
    net, batch = model(position=position, attention=attention), next(speech.batches(config()))
    frames, lengths = batch.inputs
    noisy = torch.where(torch.arange(64)[:, None] < lengths[:, None, None], frames, 7.0)
    torch.testing.assert_close(speech.loss(net, batch), speech.loss(net, batch._replace(inputs=(noisy, lengths))))


def test_the_loss_of_a_certain_right_answer_is_nothing() -> None:
    batch = next(speech.batches(config()))
    certain = torch.full((4, 64, 10), -100.0)
    certain[..., 0] = 100.0
    for index, (who, number) in enumerate(zip(*batch.targets, strict=True)):
        certain[index, torch.arange(number), 0] = -100.0
        certain[index, torch.arange(number), who[:number]] = 100.0

    class Certain(torch.nn.Module):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            return certain

    assert speech.loss(Certain(), batch).item() == pytest.approx(0.0, abs=1e-5)


def test_learned_positions_refuse_a_longer_recording() -> None:
    net = model(position="learned")
    with pytest.raises(ValueError, match="end at 64, got 65 frames"):
        net(torch.zeros(1, 65, 12), torch.tensor([65]))


def test_validation_is_the_same_every_time_and_of_the_length_asked_for() -> None:
    once, again = (list(speech.validation(config(), 96)) for _ in range(2))
    assert sum(len(part.inputs[1]) for part in once) == 32
    assert all(torch.equal(a.inputs[0], b.inputs[0]) for a, b in zip(once, again, strict=True))
    assert max(int(part.inputs[1].max()) for part in once) > 80


def test_a_context_without_room_for_a_turn_is_refused() -> None:
    with pytest.raises(ConfigError, match="room for a turn of up to 29 frames, got 6; raise"):
        next(speech.batches(config(context=6)))


def test_without_sktime_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sktime.datasets", None)
    spoken_vowels.vowels.cache_clear()
    with pytest.raises(ConfigError, match=r"cannot be imported .*; pip install 'stabmon\[workloads\]'"):
        next(speech.batches(config()))
