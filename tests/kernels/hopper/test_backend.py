"""The hopper backend as callers of ``sigmoid_attention`` see it, where there is no such device."""

import pytest
import torch

from stabmon.kernels import choice, device, releases, sigmoid_attention
from stabmon.kernels.hopper import requirements
from stabmon.kernels.problem import Traits


def test_hopper_by_name_refuses_an_unsupported_call_with_the_reason():
    tensor = torch.zeros(1, 1, 4, 64, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"no CUDA device for backend='hopper'.*pass backend='eager' or 'auto'"):
        sigmoid_attention(tensor, tensor, tensor, backend="hopper")


@pytest.mark.parametrize(
    ("in_auto", "used", "dtype", "is_hopper"),
    [
        (True, {"is_causal"}, torch.bfloat16, True),
        (True, {"alibi_slopes"}, torch.bfloat16, False),
        (True, {"is_causal"}, torch.float32, False),
        (False, {"is_causal"}, torch.bfloat16, False),
    ],
    ids=["taken", "alibi", "fp32", "switched-off"],
)
def test_auto_chooses_hopper_for_supported_calls(in_auto, used, dtype, is_hopper, monkeypatch):
    monkeypatch.setattr(requirements, "IN_AUTO", in_auto)
    monkeypatch.setattr(releases, "INSTALLED", (3, 6))
    monkeypatch.setattr(device, "capability", lambda _: (9, 0))
    traits = Traits(torch.device("cuda", 0), dtype, 64, 0.1, frozenset(used))
    assert choice.choose("auto", traits) == "auto"  # a fused backend; the operator decides which by `preferred`
    assert requirements.preferred(traits) == is_hopper
