"""The forward kernel's logic, run on the CPU by the simulation."""

import math
from itertools import product

import pytest
import torch

from stabmon.kernels import accuracy
from stabmon.kernels.hopper import launch
from stabmon.kernels.problem import Problem

LENGTHS = [(1, 1), (63, 63), (100, 100), (257, 257), (1, 300), (100, 257), (257, 100), (130, 1000)]


def tensors(dtype, heads=2, key_heads=1, n_q=100, n_k=100, dim=64, size=1.0):
    query = (torch.randn(1, heads, n_q, dim) * size).to(dtype)
    return query, *(torch.randn(1, key_heads, n_k, dim).to(dtype) for _ in range(2))


def attend(simulation, kernels, case, form=launch.MIXED, programs=2, plan=None, sums=True):
    """Launch as ``launch.forward`` does; return output and sums, both poisoned first."""
    per_head = case.bias if isinstance(case.bias, torch.Tensor) else None
    number = 0.0 if per_head is not None else case.bias
    problem = Problem(case.query, case.key, case.value, per_head, number, None, case.scale, case.is_causal)
    batch, heads, n_q, dim = case.query.shape
    d_pad = launch.padded(dim)
    plan = plan or launch.TABLE[d_pad, case.is_causal]
    lead = launch.lead(problem)
    query_tiles = -(-(n_q + lead) // plan.rows)
    output = torch.full_like(case.query, torch.nan)
    squares = torch.full((batch, heads, query_tiles * plan.consumers), torch.nan)
    factor = 0.5 if form == launch.TANH else -math.log2(math.e)
    operands = [
        simulation.Descriptor(x, [1, 1, rows, d_pad])
        for x, rows in ((case.query, 64), (case.key, plan.block_k), (case.value, plan.block_k), (output, 64))
    ]
    simulation.launch(
        kernels.forward_kernel, launch.programs(batch * heads, query_tiles, case.is_causal, programs), *operands,
        simulation.Pointer(squares if per_head is None else per_head), simulation.Pointer(squares),
        heads, heads // case.key.size(1), n_q, case.key.size(2), batch * heads, query_tiles, lead,
        factor * case.scale, factor * number, factor,
        BLOCK_K=plan.block_k, CONSUMERS=plan.consumers, STAGES=plan.stages, REGISTERS=plan.registers,
        CAUSAL=case.is_causal, HAS_BIAS=per_head is not None, SUMS=sums, FORM=form,
    )  # fmt: skip
    return output, squares.sum(-1)


def case(query, key, value, bias=None, is_causal=False):
    bias = -math.log(key.size(2)) if bias is None else bias
    return accuracy.Case(query, key, value, bias, torch.zeros_like(query), is_causal)


def check(call, output, allowed=1.1):
    exact, floor = accuracy.exact(call)["output"], accuracy.floor(call)["output"]
    unavoidable = (floor - exact).norm()
    assert (output.double() - exact).norm() <= allowed * unavoidable + 1e-9


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS, ids=[f"{q}x{k}" for q, k in LENGTHS])
@pytest.mark.parametrize("dim", [64, 128], ids=["D64", "D128"])
def test_every_length_is_as_exact_as_rounding_allows(simulation, kernels, n_q, n_k, dim, is_causal):
    call = case(*tensors(torch.bfloat16, n_q=n_q, n_k=n_k, dim=dim), is_causal=is_causal)
    output, sums = attend(simulation, kernels, call)
    check(call, output)
    torch.testing.assert_close(sums, output.float().square().sum((-1, -2)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("form", [launch.MIXED, launch.TANH], ids=["mixed", "tanh"])
def test_both_forms_serve_both_types_and_a_bias_for_each_head(simulation, kernels, dtype, form):
    call = case(*tensors(dtype, heads=4, key_heads=2, dim=80), torch.tensor([-5.0, -4.0, 0.0, 1.0]), is_causal=True)
    check(call, attend(simulation, kernels, call, form)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_logits_of_a_hundred_neither_overflow_nor_vanish(simulation, kernels, dtype):
    call = case(*tensors(dtype, size=40.0), 0.0, is_causal=True)
    check(call, attend(simulation, kernels, call)[0])


def test_small_weights_survive_in_float16(simulation, kernels):
    call = case(*tensors(torch.float16, n_k=300), -12.0)
    check(call, attend(simulation, kernels, call)[0])


@pytest.mark.parametrize("form", [launch.MIXED, launch.TANH], ids=["mixed", "tanh"])
def test_a_negative_scale_masks_the_same_keys(simulation, kernels, form):
    query, key, value = tensors(torch.bfloat16)
    call = case(query, key, value, is_causal=True)
    output, _ = attend(simulation, kernels, call, form)

    class Mirrored(accuracy.Case):
        scale = -call.scale

    mirrored = Mirrored(-query, key, value, call.bias, call.grad, True)
    assert torch.equal(attend(simulation, kernels, mirrored, form)[0], output)


def test_strided_views_are_read_and_written_in_place(simulation, kernels):
    query, key, value = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors(torch.bfloat16, key_heads=2))
    dense = case(*(x.contiguous() for x in (query, key, value)))
    assert torch.equal(attend(simulation, kernels, case(query, key, value))[0], attend(simulation, kernels, dense)[0])


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_grid_and_rings_do_not_change_a_bit(simulation, kernels, is_causal):
    call = case(*tensors(torch.bfloat16, heads=3, n_q=333, n_k=300), is_causal=is_causal)
    expected, _ = attend(simulation, kernels, call)
    for programs, stages, consumers in ((1, 2, 3), (5, 4, 2), (132, 2, 2)):
        plan = launch.Launch(consumers, 128, stages, 160)
        output, _ = attend(simulation, kernels, call, programs=programs, plan=plan, sums=False)
        assert torch.equal(output, expected)


def test_a_nan_stays_in_its_row(simulation, kernels):
    query, key, value = tensors(torch.bfloat16)
    query[0, 0, 70] = torch.nan
    output, _ = attend(simulation, kernels, case(query, key, value))
    assert output[0, 0, 70].isnan().all()
    output[0, 0, 70] = 0
    assert output.isfinite().all()


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_every_tile_is_computed_once(simulation, kernels, is_causal):
    for pairs, query_tiles, processors in product((1, 2, 7), (1, 2, 5, 8), (1, 3, 16)):
        programs = launch.programs(pairs, query_tiles, is_causal, processors)
        places = []
        for index in range(programs):
            simulation.at(index, programs)
            turns = kernels._turns(pairs, query_tiles, is_causal)
            assert turns > 0
            places += [kernels._place(turn, pairs, query_tiles, is_causal) for turn in range(turns)]
        assert sorted(places) == list(product(range(pairs), range(query_tiles)))


WAIT = "acc = warpgroup_mma_wait(0, deps=(acc_token,))"
RELEASE = "mbarrier.arrive(v_empty.index(before), count=1)"
BREAKS = {
    "a value tile released before its product": (
        f"        {WAIT}\n        {RELEASE}",
        f"        {RELEASE}\n        {WAIT}",
    ),
    "a product used before it is there": (
        "warpgroup_mma_wait(1, deps=(s_token,))",
        "warpgroup_mma_wait(2, deps=(s_token,))",
    ),
    "an output overwritten while it is stored": ("        tma.store_wait(0)\n        o_tile", "        o_tile"),
    "a phase that is not flipped": (
        "mbarrier.wait(q_full.index(SLAB_INDEX), turn & 1)",
        "mbarrier.wait(q_full.index(SLAB_INDEX), 0)",
    ),
}


@pytest.mark.parametrize(("old", "new"), BREAKS.values(), ids=BREAKS)
def test_the_simulation_sees(simulation, altered, old, new, monkeypatch):
    monkeypatch.setattr(simulation.machine, "PATIENCE", 0.5)
    call = case(*tensors(torch.bfloat16, n_q=600, n_k=1000))
    plan, broken = launch.Launch(2, 128, 2, 240), altered(old, new)
    with pytest.raises((AssertionError, TimeoutError)):
        check(call, attend(simulation, broken, call, programs=1, plan=plan)[0])
