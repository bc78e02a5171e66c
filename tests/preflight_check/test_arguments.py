"""Wrong arguments of ``preflight``, of ``watch`` and of a fix are refused at the door, by name."""

import pytest
import torch

from stabmon import preflight, watch
from stabmon.errors import ArgumentError, ConfigError, ModelError
from stabmon.kernels import sigmoid_attention
from stabmon.nn import Block, SigmoidAttention
from stabmon.rules import Limits
from stabmon.rules.limits import resolve

X = torch.linspace(-1, 1, 256).reshape(2, 8, 16)


def model(**options) -> torch.nn.Module:
    return torch.nn.Sequential(Block(16, SigmoidAttention(16, 2, max_length=8, is_causal=True, **options)))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, X), {}, ArgumentError, "model must be a torch.nn.Module, got NoneType"),
        (("naive", X), {}, ArgumentError, "model must be a torch.nn.Module, got str"),
        ((model(), X), {"limits": 3}, ConfigError, "limits must be Limits, names and numbers, or a YAML file, got int"),
        ((model(), X), {"limits": {"att.row_mass_max": True}}, ConfigError, "att.row_mass_max must be a positive"),
        ((model().to("meta"), X), {}, ArgumentError, "parameters on the meta device, which hold no numbers"),
        (
            (model(), X.to(torch.float8_e4m3fn)),
            {},
            ModelError,
            "does not take this batch: .*float8_e4m3fn",
        ),
        ((model(), None), {}, ModelError, r"does not take this batch: it was called with \(NoneType\)"),
    ],
    ids=["None", "text", "limits", "truth value", "meta", "float8", "no batch"],
)
def test_preflight_refuses_wrong_arguments_with_the_reason(arguments, options, error, message) -> None:
    with pytest.raises(error, match=message):
        preflight(*arguments, **options)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
def test_a_nested_batch_that_the_model_does_not_take_is_named() -> None:
    with pytest.raises(ModelError, match=r"it was called with \(nested float32 on cpu\)"):
        preflight(model(), torch.nested.nested_tensor([X[0], X[1]]))


def test_limits_may_be_left_out_given_empty_as_names_or_as_they_are() -> None:
    assert resolve(None) == resolve({}) == resolve(Limits()) == Limits()
    assert resolve({"att.row_mass_max": 6}).att.row_mass_max == 6
    one = model(bias=3.0)
    assert preflight(one, X, limits={}).findings == preflight(one, X).findings != ()


def test_a_model_without_numbers_is_not_watched(tmp_path) -> None:
    with pytest.raises(ArgumentError, match="parameters on the meta device"):
        watch(model().to("meta"), dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [None, "model", 3])
def test_a_fix_is_applied_to_a_model_alone(given) -> None:
    fix = preflight(model(bias=3.0), torch.randn(2, 8, 16), limits={"att.row_mass_max": 0.5}).fixes[0]
    with pytest.raises(ArgumentError, match="a fix is applied to the model that it was found in, got"):
        fix.apply(given)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_a_kernel_takes_no_type_of_eight_bits(dtype) -> None:
    tensors = [torch.zeros(1, 2, 8, 16).to(dtype) for _ in range(3)]
    with pytest.raises(TypeError, match=r"query must be of float16, bfloat16, float32 or float64, got torch.float8"):
        sigmoid_attention(*tensors)
