import math
from typing import get_args

import pytest
import torch

from stabmon.kernels import device
from stabmon.kernels.launching import descriptors
from stabmon.kernels.problem import Problem
from stabmon.kernels.sigmoid_forms import EX2, PLAIN, TANH
from stabmon.kernels.triton import launch, tables
from stabmon.kernels.triton.requirements import DTYPES

KERNELS = get_args(tables.Kernel)
SHARED = {"sm80": 163, "sm90": 227, "small": 99}


def problem(dtype=torch.bfloat16, bias=None, level=-8.0, slopes=None):
    tensor = torch.zeros(1, 2, 8, 64, dtype=dtype)
    return Problem(tensor, tensor, tensor, bias, level, slopes, 0.125, False)


@pytest.mark.parametrize(
    ("capability", "family"),
    [((8, 0), "sm80"), ((8, 6), "small"), ((8, 9), "small"), ((9, 0), "sm90"), ((10, 0), "sm90"), ((12, 0), "small")],
)
def test_a_device_is_served_by_the_table_of_its_shared_memory(capability, family):
    assert tables.family(capability) == family


@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
@pytest.mark.parametrize("dtype", DTYPES, ids=["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (9, 0)], ids=["sm80", "sm86", "sm90"])
def test_every_head_dim_has_a_launch_whose_tiles_fit(capability, dtype, tma):
    for kernel in KERNELS:
        for dim in range(16, 257, 8):
            d_pad = tables.padded(dim)
            assert dim <= d_pad < 2 * dim
            q, k, warps, stages = tables.tiles(kernel, capability, dtype, d_pad, tma)
            assert min(q, k) >= 16
            assert warps in (1, 4, 8)
            streamed, held = (q, k) if kernel == "dkdv" else (k, q)
            loads, kept = {"forward": (2, 1), "dq": (2, 2), "dkdv": (2, 2)}.get(kernel, (1, 1))
            size = dtype.itemsize * d_pad * (streamed * loads * max(1, stages - 1) + held * kept) // 1024
            assert size <= SHARED[tables.family(capability)], (kernel, dim, size)


@pytest.mark.parametrize(
    ("kernel", "call", "form"),
    [
        ("forward", problem(level=-math.log(8192)), TANH),
        ("forward", problem(level=-math.log(16384)), EX2),
        ("forward", problem(torch.float16, level=-math.log(1024)), TANH),
        ("forward", problem(torch.float16, level=-math.log(2048)), EX2),
        ("forward", problem(torch.float32, level=0.0), PLAIN),
        ("forward", problem(bias=torch.zeros(2)), EX2),
        ("forward", problem(level=0.0, slopes=torch.ones(2)), EX2),
        ("dq", problem(level=0.0), EX2),
        ("dkdv", problem(level=0.0), EX2),
    ],
    ids=["bf16-8192", "bf16-16384", "fp16-1024", "fp16-2048", "fp32", "tensor", "alibi", "backward-dq", "backward-dkv"],
)
def test_the_fast_sigmoid_is_used_only_where_it_is_known_to_be_exact_enough(kernel, call, form, monkeypatch):
    monkeypatch.setattr(device, "on_device", lambda device: True)
    assert launch.sigmoid_form(call, kernel) == form


def test_the_interpreter_gets_the_plain_form():
    assert launch.sigmoid_form(problem(level=0.0), "forward") == PLAIN


def test_causal_heads_are_interleaved_as_far_as_the_cache_reaches():
    key = torch.zeros(1, 1, 8192, 128, dtype=torch.bfloat16)
    assert launch.heads_together(key, False) == 1
    assert launch.heads_together(key, True) == 6
    assert launch.heads_together(key.expand(1, 1, 8192, 128).repeat(1, 1, 16, 1), True) == 1


FIT = [
    (torch.zeros(2, 4, 100, 64, dtype=torch.bfloat16), True),
    (torch.zeros(2, 100, 4, 64, dtype=torch.bfloat16).transpose(1, 2), True),
    (torch.zeros(2, 4, 100, 80, dtype=torch.float16), True),
    (torch.zeros(1, 1, 1, 64, dtype=torch.float16).as_strided((1, 1, 1, 64), (3, 5, 7, 1)), True),
    (torch.zeros(2, 4, 100, 64), False),
    (torch.zeros(2, 4, 100, 67, dtype=torch.bfloat16)[..., :64], False),
    (torch.zeros(2 * 4 * 100 * 64 + 1, dtype=torch.bfloat16)[1:].view(2, 4, 100, 64), False),
    (torch.zeros(2, 1, 100, 64, dtype=torch.bfloat16).expand(2, 4, 100, 64), False),
]
FIT_NAMES = ["dense", "BNHD", "D80", "size-1", "fp32", "odd-row", "unaligned", "broadcast"]


@pytest.mark.parametrize(("tensor", "fits"), FIT, ids=FIT_NAMES)
def test_tma_is_used_for_aligned_tensors(tensor, fits):
    assert descriptors.fit((9, 0), (tensor,)) is fits
    assert descriptors.fit((8, 0), (tensor,)) is False


@pytest.mark.parametrize(
    ("tensor", "copied"),
    [(tensor, name in ("odd-row", "unaligned")) for (tensor, _), name in zip(FIT, FIT_NAMES, strict=True)],
    ids=FIT_NAMES,
)
def test_only_rows_that_are_not_aligned_are_copied(tensor, copied):
    given = descriptors.aligned(tensor)
    assert (given is not tensor) is copied
    assert torch.equal(given, tensor)
    assert given.data_ptr() % 16 == 0
