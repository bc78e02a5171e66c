"""The backward kernels' logic, run on the CPU by the simulation."""

import math
from itertools import product

import pytest
import torch

from stabmon.kernels.bench import accuracy
from stabmon.kernels.hopper import backward_launch, workspace
from stabmon.kernels.hopper.backward_launch import BackwardConfig
from stabmon.kernels.problem import Problem
from stabmon.kernels.sigmoid_forms import BY_HEAD, EX2, TANH

from .conftest import FOLDER

pytestmark = pytest.mark.usefixtures("poisoned")
LENGTHS = [(1, 1), (63, 63), (100, 100), (257, 257), (1, 300), (100, 257), (257, 100)]
SHAPES = [(n_q, n_k, 64) for n_q, n_k in LENGTHS] + [(100, 257, 128), (257, 100, 128)]


@pytest.fixture(scope="session")
def backwards(simulation):
    return {name: simulation.load(FOLDER, name) for name in ("backward", "backward_dq")}


def _round(tensors, factor):
    summed, grad = tensors
    grad.copy_(factor * summed.view(grad.shape))


@pytest.fixture
def differentiate(simulated, backwards, monkeypatch):
    """Return the launcher with a simulated device under it; gradients come poisoned first."""
    monkeypatch.setattr(workspace, "rounding", lambda _: _round)

    def run(call, deterministic=False, processors=2, form=None, dkdv=None, dq=None, **modules):
        per_head = call.bias if isinstance(call.bias, torch.Tensor) else None
        number = 0.0 if per_head is not None else call.bias
        problem = Problem(*call[:3], per_head, number, None, call.scale, call.is_causal, deterministic=deterministic)
        simulated(backwards | modules, processors)
        grads = tuple(torch.empty_like(x) for x in call[:3])
        bias = backward_launch.backward(problem, call.grad, grads, per_head is not None, form, dkdv, dq)
        return dict(zip(accuracy.NAMES[1:], (*grads, bias) if per_head is not None else grads, strict=False))

    return run


def case(dtype=torch.bfloat16, n_q=100, n_k=100, dim=64, heads=2, key_heads=1, bias=None, is_causal=False, size=1.0):
    query, grad = (torch.randn(1, heads, n_q, dim) for _ in range(2))
    key, value = (torch.randn(1, key_heads, n_k, dim).to(dtype) for _ in range(2))
    bias = -math.log(n_k) if bias is None else bias
    return accuracy.Case((query * size).to(dtype), key, value, bias, grad.to(dtype), is_causal)


def check(call, found, allowed=1.1):
    exact, floor = accuracy.exact(call), accuracy.floor(call)
    for name, tensor in found.items():
        unavoidable = (floor[name] - exact[name]).norm()
        if name == "bias":
            unavoidable = max(unavoidable, accuracy.expected_bias_error(call, exact) * exact[name].norm())
        error = (tensor.double() - exact[name]).norm()
        assert error <= allowed * unavoidable + 1e-7 * exact[name].norm() + 1e-9, name


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(("n_q", "n_k", "dim"), SHAPES, ids=[f"{q}x{k}-D{d}" for q, k, d in SHAPES])
def test_every_length_is_as_exact_as_rounding_allows(differentiate, n_q, n_k, dim, is_causal, deterministic):
    call = case(n_q=n_q, n_k=n_k, dim=dim, is_causal=is_causal)
    check(call, differentiate(call, deterministic, form=EX2))


@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("form", [EX2, TANH, BY_HEAD], ids=["exact", "tanh", "by-head"])
def test_every_form_serves_both_types_and_a_bias_for_each_head(differentiate, dtype, form, deterministic):
    bias = torch.tensor([-5.0, -4.0, 0.0, 1.0])
    call = case(dtype, n_q=150, heads=4, key_heads=2, dim=80, bias=bias, is_causal=True)
    check(call, differentiate(call, deterministic, form=form))


@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_logits_of_a_hundred_neither_overflow_nor_vanish(differentiate, dtype, deterministic):
    call = case(dtype, bias=0.0, is_causal=True, size=40.0)
    check(call, differentiate(call, deterministic, form=EX2), 1.3)


@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
def test_each_head_uses_the_form_of_the_sigmoid_that_its_bias_allows(differentiate, deterministic):
    call = case(heads=3, key_heads=3, bias=torch.tensor([-12.0, -9.0, 12.0]))
    found, fast, accurate = (differentiate(call, deterministic, form=form) for form in (BY_HEAD, TANH, EX2))
    for head, wanted in enumerate((accurate, fast, accurate)):
        for name in ("query", "key", "value"):
            torch.testing.assert_close(found[name][:, head], wanted[name][:, head], rtol=1e-2, atol=1e-9)
    assert not torch.equal(fast["key"][:, 0], accurate["key"][:, 0])


@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
def test_strided_views_are_read_and_written_in_place(differentiate, deterministic):
    call = case(key_heads=2)
    strided = call._replace(**{
        name: getattr(call, name).transpose(1, 2).contiguous().transpose(1, 2)
        for name in ("query", "key", "value", "grad")
    })  # fmt: skip
    expected = differentiate(call, deterministic)
    for name, found in differentiate(strided, deterministic).items():
        assert found.stride() == getattr(strided, name).stride()
        assert torch.equal(found, expected[name])


@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
def test_what_tma_cannot_read_is_copied(differentiate, deterministic):
    call = case()
    unaligned = torch.cat([call.key.new_zeros(1), call.key.flatten()])[1:].view(call.key.shape)
    copied = call._replace(key=unaligned, grad=call.grad[:, :1].expand(-1, 2, -1, -1))
    expected = differentiate(call._replace(grad=copied.grad.contiguous()), deterministic)
    for name, found in differentiate(copied, deterministic).items():
        assert torch.equal(found, expected[name])


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_grid_and_rings_do_not_change_a_bit_of_the_split_form(differentiate, is_causal):
    call = case(heads=3, key_heads=3, n_q=333, n_k=300, is_causal=is_causal)
    expected = differentiate(call, True)
    for processors, stages in ((1, 4), (5, 2), (132, 4)):
        configs = BackwardConfig(128, stages, 240), BackwardConfig(64, stages, 240)
        found = differentiate(call, True, processors, None, *configs)
        check(call, found)
        assert torch.equal(found["key"], expected["key"])
        assert torch.equal(found["value"], expected["value"])


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_every_query_that_sees_a_key_is_visited_and_no_masked_one_counts(simulation, backwards, is_causal):
    schedule = backwards["backward"].schedule
    for n_q, n_k, block in product((1, 63, 100, 700), (1, 64, 100, 700), (64, 128)):
        for column in range(0, n_k, 128):
            first, unmasked, stop = schedule.query_tiles(column, n_q, n_k, block, is_causal)
            assert 0 <= first < stop
            assert stop == -(-n_q // block)
            sees = [row for row in range(n_q) if not is_causal or column <= row + n_k - n_q]
            assert not sees or first <= sees[0] // block
            if is_causal:
                whole = [row for row in range(n_q) if column + 127 <= row + n_k - n_q]
                assert unmasked == stop or unmasked * block >= whole[0]


RELEASE = "            mbarrier.arrive(guards.empty.index(slot), count=1)\n"
LAST_DK = "            dk = warpgroup_mma_wait(1, deps=(dk_token,))\n"
LAST_DQ = (
    "            part = warpgroup_mma_wait(0, deps=(part,))\n"
    "            mbarrier.arrive(guards.ds_empty.index(last & 1), count=1)\n"
)
RELEASE_KEYS = "            mbarrier.arrive(guards.kv_empty.index(0), count=1)\n"
STORE_WAIT = "    tma.store_wait(0)\n"
BREAKS = {
    "queries released before their products": (LAST_DK + RELEASE, RELEASE + LAST_DK),
    "a phase that is not flipped": (
        "mbarrier.wait(guards.ds_empty.index(number & 1), ((number & 2) // 2) ^ 1)",
        "mbarrier.wait(guards.ds_empty.index(number & 1), (number & 2) // 2)",
    ),
    "a part of dQ overwritten while it is added": (STORE_WAIT + "    dq_tile", "    dq_tile"),
    "keys released before the last product": (LAST_DQ + RELEASE_KEYS, RELEASE_KEYS + LAST_DQ),
}


@pytest.mark.parametrize(("old", "new"), BREAKS.values(), ids=BREAKS)
def test_the_simulation_detects_seeded_faults(simulation, differentiate, altered, old, new, monkeypatch):
    monkeypatch.setattr(simulation.machine, "PATIENCE", 0.5)
    call, broken = case(n_q=600, n_k=600), altered(old, new, "backward")
    with pytest.raises((AssertionError, TimeoutError)):
        check(call, differentiate(call, processors=1, form=EX2, backward=broken))
