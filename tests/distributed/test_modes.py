"""Recorded numbers of several processes are those of the same training in one, in each form of parallelism."""

import json

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from stabmon.series import is_missing
from stabmon.store import open_run
from tests.distributed.model import HEADS, STEPS, Decoder, gradient_norms, tokens, train
from tests.distributed.processes import every_kind

KINDS = ("ddp", "fsdp2", "fsdp1", "fsdp1-original", "fsdp1-joined", "tp")
MERGED = ("attention_norm", "output_rms", "row_mass", "logit_max", "logit_mean", "logit_std", "saturated_fraction")
MERGED += ("dead_fraction", "query_norm", "key_norm", "bias", "keys", "residual_in", "residual_out", "branch_ratio")
MERGED += ("block_growth", "loss", "learning_rate")

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")


def spawn(folder, world, kinds, device="cpu"):
    multiprocessing.spawn(every_kind, (world, kinds, folder, device), nprocs=world)
    found = {
        kind: [json.loads((folder / f"{kind}-{rank}.json").read_text()) for rank in range(world)] for kind in kinds
    }
    errors = [one["error"] for ranks in found.values() for one in ranks if "error" in one]
    assert not errors, "\n".join(errors)
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder / "runs", spawn(folder, 2, KINDS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(Decoder().double(), [tokens(step) for step in range(STEPS)], dir=folder, name="one")
    return folder / "one"


def check(runs, kind, ranks, alone):
    first, *others = ranks
    assert all(one["same bits"] for one in ranks)
    assert [one["path"] for one in ranks] == [str(runs / kind), *[None] * len(others)]
    assert all(one["heads"] == [HEADS, HEADS] for one in ranks)
    assert all(one["findings"] == first["findings"] for one in others)
    with open_run(runs / kind) as run, open_run(alone) as expected:
        total = run.read("total_gradient_norm").values[:, 0]
        np.testing.assert_allclose(total, np.array(gradient_norms())[:, 2], rtol=1e-5)
        for metric in MERGED:
            ours, reference = run.read(metric), expected.read(metric)
            assert ours.spots == reference.spots, metric
            assert not is_missing(ours.values).any(), metric
            np.testing.assert_allclose(ours.values, reference.values, rtol=2e-4, atol=2e-5, err_msg=metric)
        assert (run.read("reduction_seconds").values > 0).all()
        assert (run.read("reduction_bytes").values > 0).all()
        assert (run.read("non_finite_ranks").values == 0).all()
        assert is_missing(run.read("non_finite_rank").values).all()
        norms = run.read_layers("gradient_norm").values
    if kind == "fsdp1-joined":
        assert is_missing(norms).all()
        assert all("FSDP joins parameters of 2 layers with others" in text for text in first["failures"])
    else:
        assert not first["failures"]
        np.testing.assert_allclose(norms, np.array(gradient_norms())[:, :2], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_record_what_one_would_and_train_the_same_bits(two, alone, kind):
    runs, found = two
    check(runs, kind, found[kind], alone)


@pytest.mark.slow
def test_so_do_four_processes_also_with_two_forms_at_once(tmp_path, alone):
    for kind, ranks in spawn(tmp_path, 4, (*KINDS, "fsdp2-tp")).items():
        check(tmp_path / "runs", kind, ranks, alone)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_so_do_two_gpus_with_nccl(tmp_path, alone):
    for kind, ranks in spawn(tmp_path, 2, KINDS, "cuda").items():
        check(tmp_path / "runs", kind, ranks, alone)
