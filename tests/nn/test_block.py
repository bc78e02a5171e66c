import pytest
import torch
from torch import nn

from stabmon.nn import Block, LayerScale, SigmoidAttention

WIDTH = 8


def block(**options: object) -> Block:
    torch.manual_seed(0)
    return Block(WIDTH, SigmoidAttention(WIDTH, 2, max_length=8), **options).double()


def tokens() -> torch.Tensor:
    return torch.randn(2, 5, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()


@pytest.mark.parametrize("gain", [None, 0.1], ids=["plain", "layer-scale"])
@pytest.mark.parametrize("hybrid", [False, True], ids=["pre-norm", "hybrid-norm"])
def test_both_branches_are_normed_and_scaled_as_asked(gain: float | None, hybrid: bool) -> None:
    module, x = block(layer_scale=gain, hybrid_norm=hybrid), tokens()
    expected = x
    for branch in (module.attention, module.feed_forward):
        out = branch(unit(expected))
        expected = expected + (gain or 1.0) * (unit(out) if hybrid else out)
    torch.testing.assert_close(module(x), expected, rtol=1e-6, atol=1e-7)


def test_absent_options_are_identities() -> None:
    module = block()
    places = (
        module.attention_scale,
        module.attention_post_norm,
        module.feed_forward_scale,
        module.feed_forward_post_norm,
    )
    assert all(isinstance(place, nn.Identity) for place in places)


def test_layer_scale_multiplies_each_channel_and_learns() -> None:
    scale = LayerScale(3, 0.5)
    with torch.no_grad():
        scale.gain[1] = 2.0
    scale(torch.tensor([[2.0, 3.0, 4.0]])).sum().backward()
    assert scale(torch.tensor([[2.0, 3.0, 4.0]])).tolist() == [[1.0, 6.0, 2.0]]
    assert scale.gain.grad.tolist() == [2.0, 3.0, 4.0]


def test_post_norm_norms_the_stream_itself() -> None:
    module, x = block(norm="post", layer_scale=0.1), tokens()
    expected = x
    for branch in (module.attention, module.feed_forward):
        expected = unit(expected + 0.1 * branch(expected))
    torch.testing.assert_close(module(x), expected, rtol=1e-6, atol=1e-7)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm must be 'pre' or 'post', got 'both'"):
        block(norm="both")
