"""The forward kernel's logic, run on the CPU by the simulation."""

import math
from itertools import product

import pytest
import torch

from stabmon.kernels.bench import accuracy
from stabmon.kernels.hopper.forward_launch import TABLE, ForwardConfig, forward
from stabmon.kernels.hopper.launch import programs
from stabmon.kernels.problem import Problem
from stabmon.kernels.sigmoid_forms import BY_HEAD, MIXED, TANH

pytestmark = pytest.mark.usefixtures("poisoned")
LENGTHS = [(1, 1), (63, 63), (100, 100), (257, 257), (1, 300), (100, 257), (257, 100), (130, 1000), (600, 600)]


def tensors(dtype, heads=2, key_heads=1, n_q=100, n_k=100, dim=64, size=1.0):
    query = (torch.randn(1, heads, n_q, dim) * size).to(dtype)
    return query, *(torch.randn(1, key_heads, n_k, dim).to(dtype) for _ in range(2))


@pytest.fixture
def attend(simulated, kernels):
    """Return the launcher with a simulated device under it; output and sums come poisoned first."""

    def run(call, form=MIXED, processors=2, config=None, sums=True, module=kernels):
        per_head = call.bias if isinstance(call.bias, torch.Tensor) else None
        number = 0.0 if per_head is not None else call.bias
        problem = Problem(*call[:3], per_head, number, None, call.scale, call.is_causal)
        simulated({"forward": module}, processors)
        output = torch.empty_like(call.query)
        measure = (lambda _: lambda parts: parts.sum(-1)) if sums else None
        return output, forward(problem, output, measure, form, config)

    return run


def case(query, key, value, bias=None, is_causal=False):
    bias = -math.log(key.size(2)) if bias is None else bias
    return accuracy.Case(query, key, value, bias, torch.zeros_like(query), is_causal)


def check(call, output, allowed=1.1):
    exact, floor = accuracy.exact(call)["output"], accuracy.floor(call)["output"]
    unavoidable = (floor - exact).norm()
    assert (output.double() - exact).norm() <= allowed * unavoidable + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS, ids=[f"{q}x{k}" for q, k in LENGTHS])
@pytest.mark.parametrize("dim", [64, 128], ids=["D64", "D128"])
def test_every_length_is_as_exact_as_rounding_allows(attend, n_q, n_k, dim, is_causal):
    call = case(*tensors(torch.bfloat16, n_q=n_q, n_k=n_k, dim=dim), is_causal=is_causal)
    output, sums = attend(call)
    check(call, output)
    torch.testing.assert_close(sums, output.float().square().sum((-1, -2)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("form", [MIXED, TANH, BY_HEAD], ids=["mixed", "tanh", "by-head"])
def test_every_form_serves_both_types_and_a_bias_for_each_head(attend, dtype, form):
    call = case(*tensors(dtype, heads=4, key_heads=2, dim=80), torch.tensor([-5.0, -4.0, 0.0, 1.0]), is_causal=True)
    check(call, attend(call, form)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_logits_of_a_hundred_neither_overflow_nor_vanish(attend, dtype):
    call = case(*tensors(dtype, size=40.0), 0.0, is_causal=True)
    check(call, attend(call)[0])


def test_small_weights_survive_in_float16(attend):
    call = case(*tensors(torch.float16, n_k=300), -12.0)
    check(call, attend(call)[0])


@pytest.mark.parametrize("form", [MIXED, TANH], ids=["mixed", "tanh"])
def test_a_negative_scale_masks_the_same_keys(attend, form):
    query, key, value = tensors(torch.bfloat16)
    call = case(query, key, value, is_causal=True)
    output, _ = attend(call, form)

    class Mirrored(accuracy.Case):
        scale = -call.scale

    mirrored = Mirrored(-query, key, value, call.bias, call.grad, True)
    assert torch.equal(attend(mirrored, form)[0], output)


def test_strided_views_are_read_and_written_in_place(attend):
    query, key, value = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors(torch.bfloat16, key_heads=2))
    dense = case(*(x.contiguous() for x in (query, key, value)))
    assert torch.equal(attend(case(query, key, value))[0], attend(dense)[0])


def test_what_tma_cannot_read_is_copied(attend):
    query, key, value = tensors(torch.bfloat16)
    unaligned = torch.cat([query.new_zeros(1), query.flatten()])[1:].view(query.shape)
    call = case(unaligned, key.expand(-1, 2, -1, -1), value.expand(-1, 2, -1, -1))
    dense = case(query, *(x.contiguous() for x in call[1:3]))
    assert torch.equal(attend(call)[0], attend(dense)[0])


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_grid_and_rings_do_not_change_a_bit(attend, is_causal):
    call = case(*tensors(torch.bfloat16, heads=3, n_q=333, n_k=300), is_causal=is_causal)
    expected, _ = attend(call, config=ForwardConfig(4, 128, 4, 112, False))
    tried = ((1, 2, 2, True), (5, 4, 2, False), (132, 2, 2, True), (2, 4, 4, False), (5, 8, 4, False))
    for processors, stages, consumers, overlapped in tried:
        config = ForwardConfig(consumers, 128, stages, 112, overlapped)
        output, _ = attend(call, processors=processors, config=config, sums=False)
        assert torch.equal(output, expected)


def test_a_nan_stays_in_its_row(attend):
    query, key, value = tensors(torch.bfloat16)
    query[0, 0, 70] = torch.nan
    output, _ = attend(case(query, key, value))
    assert output[0, 0, 70].isnan().all()
    output[0, 0, 70] = 0
    assert output.isfinite().all()


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_every_tile_is_computed_once(simulation, kernels, is_causal):
    for pairs, query_tiles, processors, late in product((1, 2, 7), (1, 2, 5, 8), (1, 3, 16), (0, 1, 2)):
        grid = programs(pairs * query_tiles, processors)
        items = []
        for index in range(grid):
            simulation.at(index, grid)
            count = kernels.schedule.work_items(pairs, query_tiles, is_causal, late)
            assert count > 0
            items += [kernels.schedule.work_item(item, pairs, query_tiles, is_causal, late) for item in range(count)]
        assert sorted(items) == list(product(range(pairs), range(query_tiles)))


@pytest.mark.parametrize(("pairs", "query_tiles"), [(256, 8), (64, 32), (32, 64), (128, 16), (16, 128)])
def test_causal_programs_end_together(simulation, kernels, pairs, query_tiles):
    """With 16384 tokens and width 2048; tile t costs about t + 1, as its keys do."""
    costs = []
    for index in range(132):
        simulation.at(index, 132)
        count = kernels.schedule.work_items(pairs, query_tiles, True, kernels.LATE)
        items = [kernels.schedule.work_item(item, pairs, query_tiles, True, kernels.LATE) for item in range(count)]
        costs.append(sum(tile + 1 for _, tile in items))
    assert max(costs) <= 1.015 * sum(costs) / len(costs)


WAIT = "acc = warpgroup_mma_wait(0, deps=(acc_token,))"
RELEASE = "mbarrier.arrive(guards.v_empty.index(before), count=1)"
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
    "a consumer that never lets the next one go on": (
        "        ping_pong_arrive(i, ME, config.consumers)\n        if not",
        "        if not",
    ),
    "a phase that is not flipped": (
        "mbarrier.wait(guards.q_full.index(at), (item & SLABS) // SLABS)",
        "mbarrier.wait(guards.q_full.index(at), 0)",
    ),
}


OF_A_CONFIG = {
    True: {
        "keys used at once": (
            "            await_full(guards.k_full, i, STAGES)\n        k_tile",
            "            pass\n        k_tile",
        ),
        "values used at once": (
            "            await_full(guards.v_full, i - 1, STAGES)\n        acc_token",
            "            pass\n        acc_token",
        ),
    },
    False: {
        "keys that are not waited for": (
            "            await_full(guards.k_full, gl.minimum(i + 1, stop - 1), STAGES)\n",
            "",
        ),
        "values that are not waited for": ("            await_full(guards.v_full, i, STAGES)\n        s", "        s"),
        "a wait for keys that never come": ("gl.minimum(i + 1, stop - 1)", "i + 1"),
    },
}
CONFIGS = {True: TABLE[128], False: TABLE[64]}
CHANGES = [
    pytest.param(CONFIGS[overlapped], *change, id=f"{'overlapped' if overlapped else 'early'}: {name}")
    for overlapped in CONFIGS
    for name, change in (BREAKS | OF_A_CONFIG[overlapped]).items()
]


@pytest.mark.parametrize(("config", "old", "new"), CHANGES)
def test_the_simulation_detects_seeded_faults(simulation, attend, altered, config, old, new, monkeypatch):
    monkeypatch.setattr(simulation.machine, "PATIENCE", 0.5)
    call = case(*tensors(torch.bfloat16, n_q=600, n_k=1000))
    broken = altered(old, new)
    with pytest.raises((AssertionError, TimeoutError)):
        check(call, attend(call, processors=1, config=config, module=broken)[0])
