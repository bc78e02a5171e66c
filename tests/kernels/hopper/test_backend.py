"""The hopper backend as callers of ``sigmoid_attention`` see it, where there is no such device."""

import pytest
import torch

from stabmon.kernels import launch as backends
from stabmon.kernels import sigmoid_attention
from stabmon.kernels.hopper import launch
from stabmon.kernels.problem import Traits


def test_asked_for_by_name_it_says_why_it_cannot():
    tensor = torch.zeros(1, 1, 4, 64, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"no CUDA device for backend='hopper'.*pass backend='eager' or 'auto'"):
        sigmoid_attention(tensor, tensor, tensor, backend="hopper")


@pytest.mark.parametrize(
    ("in_auto", "alibi", "dtype", "chosen"),
    [
        (True, False, torch.bfloat16, "hopper"),
        (True, True, torch.bfloat16, "triton"),
        (True, False, torch.float32, "triton"),
        (False, False, torch.bfloat16, "triton"),
    ],
    ids=["taken", "alibi", "fp32", "switched-off"],
)
def test_auto_gives_it_what_it_takes(in_auto, alibi, dtype, chosen, monkeypatch):
    monkeypatch.setattr(launch, "IN_AUTO", in_auto)
    monkeypatch.setattr(launch, "RELEASE", (3, 6))
    monkeypatch.setattr(backends, "capability", lambda device: (9, 0))
    assert backends.choose("auto", Traits(torch.device("cuda", 0), dtype, 64, alibi, 0.1)) == chosen
