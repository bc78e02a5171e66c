import math

import pytest
import torch

from stabmon.kernels import device, releases
from stabmon.kernels.hopper import backward_launch, launch, requirements
from stabmon.kernels.hopper.sigmoid import backward_form, forward_form
from stabmon.kernels.problem import Problem, Traits
from stabmon.kernels.sigmoid_forms import BY_HEAD, EX2, MIXED, TANH


def problem(dtype=torch.bfloat16, bias=None, level=-8.0, n_q=8, n_k=8, is_causal=False):
    query, key = (torch.zeros(1, 2, n, 64, dtype=dtype) for n in (n_q, n_k))
    return Problem(query, key, key, bias, level, None, 0.125, is_causal)


@pytest.mark.parametrize(
    ("call", "form"),
    [
        (problem(level=-math.log(16384)), TANH),
        (problem(level=-math.log(32768)), MIXED),
        (problem(torch.float16, level=-math.log(1024)), TANH),
        (problem(torch.float16, level=-math.log(2048)), MIXED),
        (problem(bias=torch.zeros(2)), BY_HEAD),
    ],
    ids=["bf16-16384", "bf16-32768", "fp16-1024", "fp16-2048", "tensor"],
)
def test_the_fast_sigmoid_is_used_only_where_it_is_known_to_be_exact_enough(call, form):
    assert forward_form(call) == form


@pytest.mark.parametrize(("n_q", "n_k"), [(100, 100), (63, 100), (100, 63), (1, 1000), (257, 100)])
def test_causal_slabs_meet_the_diagonal_in_one_key_tile(n_q, n_k):
    lead = launch.lead(problem(n_q=n_q, n_k=n_k, is_causal=True))
    assert 0 <= lead < 64
    assert (n_k - n_q + lead) % 64 == 0
    assert launch.lead(problem(n_q=n_q, n_k=n_k)) == 0


DEVICE = torch.device("cuda", 0)


@pytest.fixture
def an_h100(monkeypatch):
    monkeypatch.setattr(device, "capability", lambda device: (9, 0))
    monkeypatch.setattr(releases, "INSTALLED", (3, 6))
    monkeypatch.setattr(requirements, "IN_AUTO", True)


@pytest.mark.usefixtures("an_h100")
@pytest.mark.parametrize("dim", [40, 64, 80, 96, 128])
@pytest.mark.parametrize("dtype", requirements.DTYPES, ids=["fp16", "bf16"])
def test_the_backend_accepts_supported_calls(dtype, dim):
    assert requirements.refusal(Traits(DEVICE, dtype, dim, 0.1)) is None
    assert requirements.preferred(Traits(DEVICE, dtype, dim, 0.1))


@pytest.mark.usefixtures("an_h100")
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ((torch.device("cpu"), torch.bfloat16, 64, 0.1), "no CUDA device"),
        ((DEVICE, torch.float32, 64, 0.1), "float16 and bfloat16"),
        ((DEVICE, torch.bfloat16, 256, 0.1), "head dims 40 to 128"),
        ((DEVICE, torch.bfloat16, 32, 0.1), "head dims 40 to 128"),
        ((DEVICE, torch.bfloat16, 68, 0.1), "multiples of 8"),
        ((DEVICE, torch.bfloat16, 64, 0.1, frozenset({"alibi_slopes"})), "alibi_slopes"),
        ((DEVICE, torch.bfloat16, 64, 0.0), "scale"),
    ],
    ids=["cpu", "fp32", "D256", "D32", "D68", "alibi", "no-scale"],
)
def test_an_unsupported_call_is_refused_with_the_reason(call, reason):
    assert reason in requirements.refusal(Traits(*call)).text
    assert not requirements.preferred(Traits(*call))


@pytest.mark.usefixtures("an_h100")
def test_an_unsupported_device_is_refused_with_the_one_required(monkeypatch):
    monkeypatch.setattr(device, "capability", lambda device: (8, 0))
    refusal = requirements.refusal(Traits(DEVICE, torch.bfloat16, 64, 0.1))
    assert refusal.of_machine
    assert "cuda:0 has 8.0" in refusal.text


@pytest.mark.usefixtures("an_h100")
@pytest.mark.parametrize("release", [None, (3, 5), (3, 10), (4, 0)], ids=str)
def test_auto_passes_over_an_unknown_triton_release_and_says_so_once(release, monkeypatch, caplog):
    monkeypatch.setattr(releases, "INSTALLED", release)
    assert "knows triton 3.6 to 3.9" in requirements.refusal(Traits(DEVICE, torch.bfloat16, 64, 0.1)).text
    assert not requirements.preferred(Traits(DEVICE, torch.bfloat16, 64, 0.1))
    assert not requirements.preferred(Traits(DEVICE, torch.bfloat16, 64, 0.1))
    assert caplog.text.count("backend='auto' uses 'triton'") == 1


def test_small_problems_get_small_grids():
    assert launch.programs(4 * 5, 132) == 20
    assert launch.programs(64 * 64, 132) == 132


@pytest.mark.parametrize("dim", [64, 128], ids=["D64", "D128"])
def test_a_backward_launch_fits_the_multiprocessor(dim):
    dkdv, dq = backward_launch.DKDV[dim], backward_launch.DQ[dim]
    assert dkdv.block * dim == 2 * 64 * 64, "each of two consumers adds a part [64, 64] to dQ in a step"
    held, outputs, slopes, part = 4 * 64 * dim, 2 * 64 * dim, 2 * 128 * dkdv.block, 2 * 2 * 64 * 64
    assert 2 * (2 * dkdv.stages * dkdv.block * dim + held + outputs + slopes + part) + 2048 <= 227 * 1024
    assert 2 * (2 * dq.stages * dq.block * dim + held + outputs) + 2048 <= 227 * 1024
    for config in (dkdv, dq):
        assert 128 * (2 * config.registers + 24) <= 65536
        assert config.stages & (config.stages - 1) == 0


@pytest.mark.parametrize(
    ("call", "form"),
    [
        (problem(level=-math.log(16384)), TANH),
        (problem(level=-math.log(32768)), EX2),
        (problem(level=math.log(32768)), EX2),
        (problem(torch.float16, level=-math.log(2048)), EX2),
        (problem(bias=torch.zeros(2)), BY_HEAD),
        (problem(bias=torch.zeros(2))._replace(form="accurate"), EX2),
        (problem(level=-20.0)._replace(form="tanh"), TANH),
    ],
    ids=["bf16-16384", "bf16-32768", "ones", "fp16-2048", "tensor", "forced-accurate", "forced-tanh"],
)
def test_the_backward_takes_the_fast_sigmoid_where_neither_end_is_lost(call, form):
    assert backward_form(call) == form
