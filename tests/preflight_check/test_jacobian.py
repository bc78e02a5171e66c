"""The bound against the Jacobian itself, by autograd, in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stabmon import preflight
from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention
from stabmon.nn.self_attention import SelfAttention
from stabmon.preflight_check.jacobian import jacobian_bound

WIDTH, HEADS, LENGTH = 8, 2, 12
OPTIONS = {
    "full": {},
    "causal": {"is_causal": True},
    "rope": {"position": "rope"},
    "alibi-causal": {"position": "alibi", "is_causal": True},
    "qk-norm": {"qk_norm": True},
    "qk-norm-rope-causal": {"qk_norm": True, "position": "rope", "is_causal": True},
}


def norm_of_jacobian(module: SelfAttention, x: Tensor) -> float:
    """Return ‖∂out/∂x‖₂ before the output projection."""

    def heads(given: Tensor) -> Tensor:
        return module.mix(*module.project(given[None]), None)[0].transpose(0, 1).flatten()

    rows = torch.autograd.functional.jacobian(heads, x).flatten(1)
    return float(torch.linalg.matrix_norm(rows, 2))


def sigmoid_and_softmax(
    bias: float, gain: float, seed: int, **options: object
) -> tuple[SigmoidAttention, SoftmaxAttention]:
    torch.manual_seed(seed)
    ours = SigmoidAttention(WIDTH, HEADS, bias=bias, max_length=LENGTH, **options).double()
    with torch.no_grad():
        ours.qkv.weight.mul_(gain)
        for norm in (ours.query_norm, ours.key_norm):
            for weight in norm.parameters():
                weight.uniform_(0.5, 1.5)
    soft = SoftmaxAttention(WIDTH, HEADS, **options).double()
    soft.load_state_dict({name: value for name, value in ours.state_dict().items() if name != "bias"})
    return ours, soft


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("bias", "gain"), [(0.0, 1.0), (-2.5, 1.0), (-2.5, 4.0), (1.0, 0.3)])
def test_neither_jacobian_is_above_its_bound(bias: float, gain: float, options: dict[str, object]) -> None:
    for seed in range(3):
        ours, soft = sigmoid_and_softmax(bias, gain, seed, **options)
        x = torch.randn(LENGTH, WIDTH, dtype=torch.float64) * torch.rand(LENGTH, 1) * 2
        bound = jacobian_bound("layer", ours, x[None])
        assert norm_of_jacobian(ours, x) <= bound.sigmoid
        assert norm_of_jacobian(soft, x) <= bound.softmax
        assert jacobian_bound("layer", soft, x[None]).softmax == pytest.approx(bound.softmax, rel=1e-5)


def test_the_bound_is_reached_where_every_token_is_the_same() -> None:
    ours, _ = sigmoid_and_softmax(0.0, 1.0, 0)
    with torch.no_grad():
        ours.qkv.weight[: 2 * WIDTH] = 0
    x = torch.randn(1, WIDTH, dtype=torch.float64).expand(LENGTH, WIDTH)
    bound = jacobian_bound("layer", ours, x[None])
    assert bound.sigma == LENGTH / 2
    assert norm_of_jacobian(ours, x) > 0.7 * bound.sigmoid  # √2 is lost where heads are stacked


def test_the_factors_are_those_of_the_formula() -> None:
    ours, _ = sigmoid_and_softmax(-2.0, 1.0, 0)
    x = torch.randn(1, LENGTH, WIDTH, dtype=torch.float64)
    bound = jacobian_bound("layer", ours, x)
    query, key, value = ours.qkv.weight.detach().unflatten(0, (3, HEADS, -1))
    product = torch.linalg.matrix_norm(query.mT @ key, 2).max() / math.sqrt(WIDTH / HEADS)
    assert bound.value_norm == pytest.approx(float(torch.linalg.matrix_norm(value, 2).max()), rel=1e-6)
    mean = float(x.square().sum(-1).mean())
    assert bound.input_mean_square == pytest.approx(mean, rel=1e-12)
    assert bound.coupling == pytest.approx(float(product) * mean, rel=1e-6)
    projected = ours.qkv(x).detach().unflatten(-1, (3, HEADS, -1))
    z = torch.einsum("bnhd,bmhd->bhnm", *projected.unbind(2)[:2]) / 2
    assert bound.sigma == pytest.approx(LENGTH * float(torch.sigmoid(z - 2).max()), rel=1e-5)
    assert bound.softmax_weight == pytest.approx(LENGTH * float(z.softmax(-1).max()), rel=1e-5)


def test_preflight_bounds_every_layer_when_asked(count_hooks: Callable[[torch.nn.Module], int]) -> None:
    model = torch.nn.Sequential(*[Block(16, SigmoidAttention(16, 2, max_length=32)) for _ in range(2)])
    batch = torch.randn(2, 32, 16)
    assert preflight(model, batch).jacobian == ()
    report = preflight(model, batch, jacobian=True)
    assert [bound.layer for bound in report.jacobian] == ["0", "1"]
    assert all(0 < bound.sigmoid < math.inf for bound in report.jacobian)
    assert "remembered from the paper" in " ".join(str(report).split())
    assert count_hooks(model) == 0
