"""Output and every gradient against float64, within 1.5 times the rounding that no fused kernel can avoid."""

import math
from functools import partial

import pytest
import torch

from stabmon.kernels import device, sigmoid_attention
from stabmon.kernels.bench import accuracy
from stabmon.kernels.launching import descriptors

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
NAMES = {FP32: "fp32", FP16: "fp16", BF16: "bf16"}
LENGTHS = [(1, 1), (63, 63), (64, 64), (100, 100), (257, 257), (1000, 1000), (1, 257), (37, 100), (100, 37)]


def make(n_q, n_k, dim, dtype, *, causal=False, heads=2, key_heads=2, bias="tensor", alibi=False, device="cpu",
         window=None, lengths=None):  # fmt: skip
    def tensor(h, n):
        return torch.randn(1 if lengths is None else len(lengths), h, n, dim, device=device).to(dtype)

    level = -math.log(max(n_k, 4))
    return accuracy.Case(
        tensor(heads, n_q),
        tensor(key_heads, n_k),
        tensor(key_heads, n_k),
        torch.linspace(level - 0.5, level + 0.5, heads, device=device) if bias == "tensor" else level,
        tensor(heads, n_q),
        causal,
        torch.tensor([0.25, 0.0625] * (heads // 2), device=device) if alibi else None,
        window,
        None if lengths is None else torch.tensor(lengths, device=device),
    )


def check(case):
    results = accuracy.run(partial(sigmoid_attention, backend="triton"), case)
    for name, tensor in results.items():
        assert torch.isfinite(tensor).all(), name
    ratios = accuracy.ratios(case, results)
    assert max(ratios.values()) <= accuracy.ALLOWED, ratios


INTERPRETED = [
    pytest.param({"n_q": 1, "n_k": 1, "dim": 16, "dtype": FP32}, id="N1-D16-fp32"),
    pytest.param({"n_q": 63, "n_k": 63, "dim": 24, "dtype": FP32, "causal": True}, id="N63-D24-fp32-causal"),
    pytest.param({"n_q": 64, "n_k": 64, "dim": 64, "dtype": FP16, "causal": True}, id="N64-D64-fp16-causal"),
    pytest.param({"n_q": 100, "n_k": 37, "dim": 80, "dtype": FP16, "causal": True}, id="N100x37-D80-fp16-causal"),
    pytest.param(
        {"n_q": 37, "n_k": 100, "dim": 16, "dtype": FP32, "causal": True, "alibi": True},
        id="N37x100-D16-fp32-causal-alibi",
    ),
    pytest.param(
        {"n_q": 100, "n_k": 257, "dim": 32, "dtype": FP16, "heads": 4, "key_heads": 2, "bias": "number"},
        id="N257-fp16-gqa",
    ),
    pytest.param(
        {"n_q": 65, "n_k": 70, "dim": 32, "dtype": FP32, "heads": 4, "key_heads": 1, "causal": True},
        id="N70-fp32-mqa-causal",
    ),
    pytest.param(
        {"n_q": 70, "n_k": 100, "dim": 16, "dtype": FP16, "causal": True, "window": 40}, id="N70x100-fp16-causal-window"
    ),
    pytest.param({"n_q": 100, "n_k": 70, "dim": 16, "dtype": FP32, "window": 9}, id="N100x70-fp32-window"),
    pytest.param({"n_q": 40, "n_k": 70, "dim": 16, "dtype": FP32, "lengths": [70, 33, 0]}, id="N40x70-fp32-lengths"),
    pytest.param(
        {"n_q": 70, "n_k": 70, "dim": 16, "dtype": FP16, "lengths": [1, 64], "causal": True, "window": 30},
        id="N70-fp16-lengths-causal-window",
    ),
]


@pytest.mark.skipif(not device.interpreted(), reason="the interpreter is for machines without a CUDA device")
@pytest.mark.parametrize("descriptors_fit", [False, True], ids=["pointers", "descriptors"])
@pytest.mark.parametrize("shape", INTERPRETED)
def test_interpreted_kernels_are_as_exact_as_their_types_allow(shape, descriptors_fit, monkeypatch, poisoned):
    monkeypatch.setattr(descriptors, "fit", lambda *_: descriptors_fit)
    check(make(**shape))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NAMES, ids=NAMES.values())
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dim", [64, 128])
def test_kernels_are_as_exact_as_their_types_allow(dim, causal, dtype, poisoned):
    for n_q, n_k in LENGTHS:
        check(make(n_q, n_k, dim, dtype, causal=causal, device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [BF16, FP16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("dim", [16, 24, 80, 96, 256])
def test_every_head_dim_is_exact(dim, dtype, poisoned):
    check(make(257, 300, dim, dtype, causal=True, device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [BF16, FP16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("length", [128, 512, 1024, 2048, 4096, 8192])
def test_a_fixed_bias_is_exact_in_whichever_form_the_sigmoid_takes(length, dtype, poisoned):
    check(make(length, length, 64, dtype, heads=2, bias="number", device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NAMES, ids=NAMES.values())
def test_grouped_heads_and_alibi_are_exact(dtype, poisoned):
    check(make(257, 300, 64, dtype, causal=True, heads=8, key_heads=2, alibi=True, device="cuda"))


RULES = [
    pytest.param({"window": 100, "causal": True}, id="causal-window"),
    pytest.param({"window": 100}, id="window"),
    pytest.param({"window": 1, "causal": True}, id="one-key"),
    pytest.param({"lengths": [300, 129, 1, 0]}, id="lengths"),
    pytest.param({"lengths": [300, 129, 1, 0], "causal": True, "window": 65}, id="lengths-causal-window"),
]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NAMES, ids=NAMES.values())
@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("rules", RULES)
def test_windows_and_lengths_are_exact(rules, dim, dtype, poisoned):
    check(make(257, 300, dim, dtype, heads=4, key_heads=2, device="cuda", **rules))


def in_sequence_first(tensor):
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def out_of_a_wider_tensor(tensor):
    return torch.cat([tensor, tensor], dim=-1)[..., tensor.size(-1) :]


def unaligned(tensor):
    room = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
    return room.copy_(tensor)


def with_odd_strides(tensor):
    return torch.nn.functional.pad(tensor, (0, 3))[..., : tensor.size(-1)]


VIEWS = [in_sequence_first, out_of_a_wider_tensor, unaligned, with_odd_strides]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [BF16, FP32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("view", VIEWS)
def test_strided_views_are_exact(view, dtype, poisoned):
    check(viewed(make(257, 300, 64, dtype, causal=True, device="cuda"), view))


@pytest.mark.skipif(not device.interpreted(), reason="the interpreter is for machines without a CUDA device")
@pytest.mark.parametrize("view", VIEWS)
def test_strided_views_are_exact_in_the_interpreter(view, poisoned):
    check(viewed(make(33, 40, 16, FP32, causal=True), view))


def viewed(case, view):
    return case._replace(query=view(case.query), key=view(case.key), value=view(case.value), grad=view(case.grad))


@pytest.mark.gpu
def test_repeated_runs_give_the_same_bits():
    case = make(1000, 1000, 64, BF16, causal=True, heads=4, key_heads=2, device="cuda")
    first, second = (accuracy.run(partial(sigmoid_attention, backend="triton"), case) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=["fp16", "bf16"])
def test_the_rounding_floor_is_the_error_of_the_eager_backend(dtype):
    case = make(65, 80, 16, dtype, causal=True, heads=4, key_heads=2)
    ratios = accuracy.ratios(case, accuracy.run(sigmoid_attention, case))
    assert max(ratios.values()) <= 1.05, ratios


def test_a_coarser_computation_is_caught():
    case = make(65, 80, 16, FP16)
    coarse = {name: tensor.bfloat16() for name, tensor in accuracy.exact(case).items()}
    assert min(ratio for name, ratio in accuracy.ratios(case, coarse).items() if name != "bias") > accuracy.ALLOWED
