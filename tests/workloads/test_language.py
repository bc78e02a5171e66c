import math

import pytest
import torch

from stabmon.config import ModelConfig
from stabmon.workloads.language import ByteLanguageModel, next_byte_loss, windows


def model(**options: object) -> ByteLanguageModel:
    torch.manual_seed(0)
    return ByteLanguageModel(ModelConfig(**{"layers": 2, "width": 16, "heads": 2, "context": 12, **options}))


def tokens(length: int = 12) -> torch.Tensor:
    return torch.randint(256, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
def test_a_prediction_does_not_see_the_byte_it_predicts(position: str) -> None:
    net, seen = model(position=position), tokens()
    other = seen.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 256
    torch.testing.assert_close(net(seen)[:, :6], net(other)[:, :6])
    assert not torch.allclose(net(seen)[:, 6:], net(other)[:, 6:])


@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
def test_predictions_depend_on_the_order_of_what_came_before(position: str) -> None:
    net, seen = model(position=position).double(), tokens()
    swapped = seen[:, [1, 0, *range(2, 12)]]
    assert (net(seen)[:, -1] - net(swapped)[:, -1]).abs().max() > 1e-6


def test_the_options_reach_every_block() -> None:
    net = model(bias="learnable", qk_norm=True, layer_scale=0.1, hybrid_norm=True)
    names = dict(net.named_parameters())
    for layer in range(2):
        for part in (
            "attention.bias",
            "attention.query_norm.weight",
            "attention_scale.gain",
            "attention_post_norm.weight",
        ):
            assert f"layers.{layer}.{part}" in names
    assert net.layers[1].attention.max_length == 12


def test_an_untrained_model_starts_near_the_loss_of_guessing() -> None:
    loss = next_byte_loss(model()(tokens()), tokens())
    assert loss.item() == pytest.approx(math.log(256), abs=0.5)


def test_learned_positions_refuse_a_longer_text() -> None:
    with pytest.raises(ValueError, match="end at 12, got 13 tokens"):
        model(position="learned")(tokens(13))
    assert model(position="rope")(tokens(13)).shape == (2, 13, 256)


def test_windows_are_shifted_by_one_byte_and_reach_both_ends() -> None:
    text = torch.arange(9, dtype=torch.uint8)
    inputs, targets = windows(text, 500, 7, torch.Generator().manual_seed(0))
    assert (targets - inputs == 1).all()
    assert set(inputs[:, 0].tolist()) == {0, 1}
    assert targets.max() == 8


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs 9 bytes of text, got 8; make model\.context smaller"):
        windows(torch.zeros(8, dtype=torch.uint8), 1, 8, torch.Generator())
