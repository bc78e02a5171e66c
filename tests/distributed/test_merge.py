"""Buffers of several processes, written by hand, put together."""

import numpy as np
import pytest

from stabmon.distributed import Merge, Own, process
from stabmon.records import Attention
from stabmon.series import is_missing
from stabmon.stats import Plan, finalise


def attention(layer, heads=2):
    given = {"module": f"{layer}.a", "block": layer, "branch": f"{layer}.a", "kind": "sigmoid", "head_dim": 4}
    return Attention(layer=layer, heads=heads, **given)


def row(owns, fill):
    """Return the merged row as metrics' values: ``fill(rank, plan, buffer)`` writes each rank's numbers."""
    merge, buffers = Merge(owns), []
    for rank, own in enumerate(owns):
        plan = Plan(own.attentions, own.logged)
        buffers.append(plan.initial.copy())
        fill(rank, plan, buffers[-1])
    values = finalise(merge(buffers), merge.plan)
    return merge, {name: values[at] for name, at in merge.plan.columns.items()}


def own(*layers, heads=(0, 1), others="same", **more):
    attentions = tuple(attention(layer) for layer in layers)
    return Own(attentions=attentions, heads=(heads,) * len(layers), logged=("loss",), others=others, **more)


def test_pipeline_stages_have_their_own_layers_and_their_norms_add():
    def fill(rank, plan, buffer):
        buffer[plan.slots[0]["gradient_norm"]] = 3 + rank
        buffer[plan.of_run("other_gradient_norm")] = 12 * rank
        if rank == 1:
            buffer[plan.logged["loss"]] = 2.5

    merge, found = row([own("0", others="embedding"), own("1", others="head")], fill)
    assert [one.layer for one in merge.map.attentions] == ["0", "1"]
    assert found["gradient_norm"].tolist() == [3, 4]
    assert found["total_gradient_norm"] == 13
    assert found["loss"] == 2.5


def test_heads_of_tensor_parallelism_are_placed_and_shared_counts_count_once():
    def fill(rank, plan, buffer):
        statistics = buffer[plan.slots[0]["statistics"]].reshape(2, -1)
        statistics[:, 0] = 4 * np.array([1, 2]) + 16 * rank  # squares of the output
        buffer[plan.slots[0]["statistics"]] = statistics.ravel()
        buffer[plan.slots[0]["counts"]][0] = 4  # sequences that both ranks see

    _, found = row([own("0", heads=(0, 2)), own("0", heads=(1, 2))], fill)
    np.testing.assert_allclose(found["attention_norm"], np.sqrt([1, 2, 5, 6]))


def test_the_rank_of_the_largest_logit_is_kept_and_a_nan_is_the_largest():
    def fill(rank, plan, buffer):
        buffer[plan.slots[0]["logit_max"]] = [rank, 3 - rank]
        buffer[plan.slots[1]["logit_max"]] = np.nan if rank == 1 else 9

    _, found = row([own("0", "1")] * 3, fill)
    assert found["logit_max_rank"].tolist() == [0, 1]
    assert (found["non_finite_rank"], found["non_finite_ranks"]) == (1, 1)


def test_a_sharded_norm_is_missing_where_a_shard_is_and_a_replicated_one_is_not():
    def fill(rank, plan, buffer):
        if rank == 0:
            buffer[plan.slots[0]["gradient_norm"]] = 2

    merge, found = row([own("0", sharded=True)] * 2, fill)
    assert is_missing(found["gradient_norm"]).all()
    assert "rank 1 measured no gradient norm" in merge.fault
    _, found = row([own("0")] * 2, fill)
    assert found["gradient_norm"] == 2


def test_replicated_gradients_that_differ_are_said_to():
    def fill(rank, plan, buffer):
        buffer[plan.slots[0]["gradient_norm"]] = 1 + rank

    merge, found = row([own("0")] * 2, fill)
    np.testing.assert_allclose(found["gradient_norm"], np.sqrt(2.5))
    assert "gradients differ between ranks" in merge.fault


@pytest.mark.parametrize(("size", "expected"), [("4", 3), ("1", 0), ("", 0)])
@pytest.mark.parametrize("launcher", process.LAUNCHERS)
def test_the_rank_is_the_launchers_before_there_is_a_process_group(launcher, size, expected, monkeypatch):
    for name in (name for pair in process.LAUNCHERS for name in pair):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(launcher[0], "3")
    monkeypatch.setenv(launcher[1], size)
    assert process.rank() == expected
