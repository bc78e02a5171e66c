import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from stabmon.kernels import AuxRequest, choice, device, releases, sigmoid_attention, sigmoid_attention_varlen
from stabmon.kernels.hopper import requirements as hopper
from stabmon.kernels.problem import Traits
from stabmon.kernels.triton import requirements as triton


def tensor(*shape, dtype=torch.float32):
    return torch.zeros(shape or (2, 4, 8, 16), dtype=dtype)


GOOD = {"query": tensor(), "key": tensor(), "value": tensor()}
REFUSED = [
    ({"query": [1.0]}, TypeError, r"query must be a Tensor \[B, H, N, D\], got list"),
    ({"value": tensor().long()}, TypeError, r"value must be of a floating type, got torch\.int64"),
    ({"key": tensor().half()}, TypeError, r"key must have dtype torch\.float32 to match query, got torch\.float16"),
    ({"key": torch.zeros(2, 4, 8, 16, device="meta")}, ValueError, r"key must be on cpu to match query, got meta"),
    ({"query": tensor(4, 8, 16)}, ValueError, r"query must have 4 dimensions \[B, H, N, D\], got shape \[4, 8, 16\]"),
    ({"key": tensor(2, 4, 0, 16)}, ValueError, r"key must not be empty, got shape \[2, 4, 0, 16\]"),
    ({"key": tensor(2, 4, 8, 32)}, ValueError, r"key must have shape \[2, 4, N_k, 16\] .* got \[2, 4, 8, 32\]"),
    ({"key": tensor(1, 4, 8, 16)}, ValueError, r"key must have shape \[2, 4, N_k, 16\] .* got \[1, 4, 8, 16\]"),
    ({"value": tensor(2, 4, 7, 16)}, ValueError, r"value must have shape \[2, 4, 8, 16\] .* got \[2, 4, 7, 16\]"),
    (
        {"key": tensor(2, 2, 8, 16), "value": tensor(2, 2, 8, 16)},
        ValueError,
        r"pass enable_gqa=True for fewer key heads",
    ),
    (
        {"key": tensor(2, 3, 8, 16), "value": tensor(2, 3, 8, 16), "enable_gqa": True},
        ValueError,
        r"query heads must be a multiple of key heads, got 4 and 3",
    ),
    (
        {"query": tensor(2, 4, 16, 8).mT},
        ValueError,
        r"query must be contiguous .* strides \[512, 128, 1, 8\]; call query",
    ),
    ({"bias": tensor(3)}, ValueError, r"bias must have shape \[4\], one a query head, got \[3\]"),
    ({"bias": tensor(4).long()}, TypeError, r"bias must be of a floating type"),
    ({"bias": torch.zeros(4, device="meta")}, ValueError, r"bias must be on cpu to match query, got meta"),
    ({"bias": "length"}, TypeError, r"bias must be None, a number or a Tensor \[H\], got str"),
    ({"alibi_slopes": 0.5}, TypeError, r"alibi_slopes must be None or a Tensor \[H\], got float"),
    ({"alibi_slopes": tensor(4, 1)}, ValueError, r"alibi_slopes must have shape \[4\], .* got \[4, 1\]"),
    ({"is_causal": 2}, TypeError, r"is_causal must be True or False, got 2"),
    ({"is_causal": "yes"}, TypeError, r"is_causal must be True or False, got 'yes'"),
    ({"window": 2.5}, TypeError, r"window must be a whole number, got float"),
    ({"window": True}, TypeError, r"window must be a whole number, got bool"),
    ({"window": (1, 2, 3)}, ValueError, r"window must be a number or a pair \(left, right\), got \(1, 2, 3\)"),
    ({"window": (1, -2)}, ValueError, r"window's right must be at least -1, got -2"),
    ({"window": 0}, ValueError, r"window must be at least 1, got 0"),
    ({"scale": tensor()[0, 0, 0, 0]}, TypeError, r"scale must be None or a number, got a Tensor"),
    ({"key_lengths": [8, 8]}, TypeError, r"key_lengths must be a Tensor of int32 or int64, got list"),
    ({"key_lengths": tensor(2)}, TypeError, r"key_lengths must be of int32 or int64, got torch\.float32"),
    ({"key_lengths": tensor(4).int()}, ValueError, r"key_lengths must have shape \[2\], one a sequence, got \[4\]"),
    ({"attn_mask": [True]}, TypeError, r"attn_mask must be None or a Tensor, got list"),
    ({"attn_mask": tensor(8, 8).long()}, TypeError, r"attn_mask must be of bool or a floating type, got torch\.int64"),
    (
        {"attn_mask": tensor(2, 8, 8)},
        ValueError,
        r"must broadcast to \[B, H, N_q, N_k\] = \[2, 4, 8, 8\], .* \[2, 8, 8\]",
    ),
    ({"attn_mask": tensor(1, 2, 4, 8, 8)}, ValueError, r"attn_mask must broadcast to .* got shape \[1, 2, 4, 8, 8\]"),
    ({"attn_mask": torch.zeros(8, device="meta")}, ValueError, r"attn_mask must be on cpu to match query, got meta"),
    ({"form": "ex2"}, ValueError, r"unknown form 'ex2'; expected one of 'auto', 'tanh', 'accurate'"),
    ({"return_aux": True}, TypeError, r"return_aux must be an AuxRequest or None, got bool"),
    ({"return_aux": AuxRequest(rows=-1)}, ValueError, r"AuxRequest\.rows must be 0 or more, got -1"),
    ({"return_aux": AuxRequest(offset=1.0)}, ValueError, r"AuxRequest\.offset must lie in \[0, 1\), got 1\.0"),
    ({"return_aux": AuxRequest(sequences=0)}, ValueError, r"AuxRequest\.sequences must be None or at least 1, got 0"),
    ({"backend": "trition"}, ValueError, r"unknown backend 'trition'; expected one of 'auto', 'eager', 'triton'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED, ids=[pattern[:40] for *_, pattern in REFUSED])
def test_a_wrong_call_raises_an_error_with_the_expected_and_the_given_value(change, kind, message):
    with pytest.raises(kind, match=message):
        sigmoid_attention(**(GOOD | change))


@pytest.mark.parametrize("backend", ["eager", "auto"])
def test_numbers_of_numpy_are_numbers(backend):
    tensors = [torch.randn(1, 2, 8, 16) for _ in range(3)]
    plain = {"bias": -2.0, "scale": 0.5, "window": 3}
    given = {"bias": np.float32(-2.0), "scale": np.float64(0.5), "window": np.int64(3)}
    found, expected = (sigmoid_attention(*tensors, **options, backend=backend) for options in (given, plain))
    assert torch.equal(found, expected)
    packed, starts = [tensor[0].transpose(0, 1).contiguous() for tensor in tensors], torch.tensor([0, 8])
    found = sigmoid_attention_varlen(*packed, starts, starts, np.int32(8), np.int64(8), **given)
    torch.testing.assert_close(found, expected[0].transpose(0, 1))


def test_a_dtensor_is_refused_with_what_to_pass():
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        query = DTensor.from_local(tensor(), mesh, [Shard(0)])
        with pytest.raises(TypeError, match=r"query must be a local tensor, got a DTensor; .* query\.to_local\(\)"):
            sigmoid_attention(query, query, query)
    finally:
        dist.destroy_process_group()


def nested(layout):
    return torch.nested.nested_tensor([torch.zeros(4, 8, 16), torch.zeros(4, 8, 16)], layout=layout)


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning", "ignore:.*Sparse:UserWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": lambda: nested(torch.strided)}, "query must be a dense tensor, got a nested one; pass padded"),
        ({"value": lambda: nested(torch.jagged)}, "value must be a dense tensor, got a nested one; pass padded"),
        (
            {"key": lambda: tensor().to_sparse()},
            r"key must be a dense tensor, .* torch\.sparse_coo; call key\.to_dense",
        ),
        ({"key": lambda: tensor(8, 16).to_sparse_csr()}, r"key must be a dense tensor, .* torch\.sparse_csr"),
        ({"bias": lambda: tensor(4).to_sparse()}, r"bias must be a dense tensor, .* torch\.sparse_coo"),
        (
            {"query": lambda: tensor(dtype=torch.float8_e4m3fn)},
            r"query must be of float16, .* got torch\.float8_e4m3fn",
        ),
    ],
    ids=["strided nested", "jagged nested", "sparse", "compressed sparse", "sparse bias", "float8"],
)
def test_a_tensor_of_another_kind_is_refused_each_time(change, message):
    ((name, make),) = change.items()
    changed = {name: make()}
    if "float8" in message:
        changed = dict.fromkeys(GOOD, changed[name])
    for _ in range(2):
        with pytest.raises(TypeError, match=message):
            sigmoid_attention(**(GOOD | changed))


def test_tensors_of_a_meta_device_give_shapes():
    query = torch.empty(2, 4, 8, 16, dtype=torch.bfloat16, device="meta", requires_grad=True)
    key, lengths = torch.empty(2, 2, 6, 16, dtype=torch.bfloat16, device="meta"), torch.empty(2, device="meta").int()
    bias = torch.empty(4, device="meta", requires_grad=True)
    options = {"bias": bias, "enable_gqa": True, "key_lengths": lengths}
    output, aux = sigmoid_attention(query, key, key, **options, return_aux=AuxRequest(4))
    assert (output.device.type, output.shape, output.dtype) == ("meta", query.shape, query.dtype)
    assert aux.statistics.shape == (2, 4, 9)
    output.sum().backward()
    assert (query.grad.shape, bias.grad.shape) == (query.shape, bias.shape)


WITHOUT_TRITON = [
    (
        tensor(),
        RuntimeError,
        r"no CUDA device for backend='triton', tensors are on cpu; pass backend='eager' or 'auto'",
    ),
    (tensor(dtype=torch.float64), ValueError, r"takes float16, bfloat16 and float32, got torch\.float64; pass backend"),
    (tensor(2, 4, 8, 20), ValueError, r"takes head dims 16 to 256 in multiples of 8, got 20"),
    (tensor(1, 1, 2, 264), ValueError, r"takes head dims 16 to 256 in multiples of 8, got 264"),
]


@pytest.mark.parametrize(("given", "kind", "message"), WITHOUT_TRITON, ids=["cpu", "fp64", "D20", "D264"])
def test_triton_by_name_refuses_an_unsupported_call_with_the_reason(given, kind, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(kind, match=message):
        sigmoid_attention(given, given, given, backend="triton")


@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "triton is not installed"), ((3, 5), r"needs triton 3\.6 or newer, found 3\.5")],
    ids=["none", "3.5"],
)
def test_a_missing_or_old_triton_is_reported_and_eager_is_used(found, message, monkeypatch):
    monkeypatch.setattr(releases, "INSTALLED", found)
    monkeypatch.setattr(device, "capability", lambda device: (8, 0))
    with pytest.raises(RuntimeError, match=message):
        sigmoid_attention(tensor(), tensor(), tensor(), backend="triton")
    assert choice.choose("auto", Traits(torch.device("cuda", 0), torch.float16, 64)) == "eager"


def test_the_package_asks_for_the_oldest_releases_that_the_kernels_support():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = {found[1]: found[2] for text in project["dependencies"] if (found := re.match(r"(\w+)>=([\d.]+)", text))}
    assert asked["triton"] == releases.name(releases.SUPPORTED[0])
    assert asked["torch"] == releases.name(releases.OLDEST_TORCH)


def test_auto_on_a_gpu_logs_once_why_it_uses_eager(monkeypatch, caplog):
    monkeypatch.setattr(device, "capability", lambda device: (7, 5))
    for dim in (64, 64, 20):
        assert choice.choose("auto", Traits(torch.device("cuda", 0), torch.float16, dim)) == "eager"
    messages = [record.message for record in caplog.records]
    assert len(messages) == len(set(messages)) == 2
    assert "backend='auto' uses 'eager'" in messages[0]
    assert messages[0].endswith("needs CUDA capability 8.0 or newer, cuda:0 has 7.5")
    assert messages[1].endswith("takes head dims 16 to 256 in multiples of 8, got 20")


def test_a_newer_triton_is_tried(monkeypatch):
    monkeypatch.setattr(releases, "INSTALLED", (9, 0))
    monkeypatch.setattr(device, "capability", lambda device: (8, 0))
    traits = Traits(torch.device("cuda", 0), torch.float16, 64)
    assert choice.choose("auto", traits) == "auto"
    assert not hopper.preferred(traits)


@pytest.mark.parametrize("name", ["window", "key_lengths", "query_starts", "alibi_slopes"])
def test_auto_uses_triton_for_calls_that_hopper_does_not_support(name, monkeypatch):
    monkeypatch.setattr(device, "capability", lambda device: (9, 0))
    traits = Traits(torch.device("cuda", 0), torch.float16, 64, scale=0.125, used=frozenset({name}))
    reason = hopper.refusal(traits)
    assert reason.text == f"backend='hopper' does not take {name.replace('query_starts', 'packed sequences')}"
    assert not reason.of_machine
    assert choice.choose("auto", traits) == "auto"
    assert not hopper.preferred(traits)


def test_a_backend_refuses_an_option_that_it_does_not_list(monkeypatch):
    monkeypatch.setattr(device, "capability", lambda device: (9, 0))
    traits = Traits(torch.device("cuda", 0), torch.float16, 64, scale=0.125, used=frozenset({"is_causal", "softcap"}))
    for backend in ("triton", "split_keys", "hopper"):
        with pytest.raises(ValueError, match=f"backend='{backend}' does not take softcap; pass backend='eager'"):
            choice.check(backend, traits)
    assert choice.choose("auto", traits) == "eager"


def test_bfloat16_is_refused_in_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    given = tensor(dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="interpreter cannot multiply bfloat16"):
        sigmoid_attention(given, given, given, backend="triton")


def test_auto_uses_eager_for_calls_that_triton_does_not_support():
    assert choice.choose("auto", Traits(torch.device("cpu"), torch.float32, 64)) == "eager"
    given = tensor(2, 4, 8, 20)
    assert sigmoid_attention(given, given, given).shape == (2, 4, 8, 20)


def test_an_old_device_is_named_with_its_capability(monkeypatch):
    monkeypatch.setattr(device, "capability", lambda device: (7, 5))
    refusal = triton.refusal(Traits(torch.device("cuda", 0), torch.float16, 64))
    assert refusal == ("backend='triton' needs CUDA capability 8.0 or newer, cuda:0 has 7.5", True)
    assert choice.choose("auto", Traits(torch.device("cuda", 0), torch.float16, 64)) == "eager"
    monkeypatch.setattr(device, "capability", lambda device: (8, 0))
    traits = Traits(torch.device("cuda", 0), torch.float16, 64)
    assert choice.choose("auto", traits) == "auto"
    assert not hopper.preferred(traits)
    assert choice.choose("auto", Traits(torch.device("cuda", 0), torch.float64, 64)) == "eager"
