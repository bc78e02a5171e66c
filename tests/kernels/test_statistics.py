import math

import pytest
import torch

from stabmon.kernels import STATISTICS, AuxRequest, launch, sigmoid_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and not launch.interpreted(), reason="needs a CUDA device or Triton's interpreter"
)
SHAPES = [
    pytest.param({"n_q": 37, "n_k": 100, "dim": 16, "rows": 7}, id="N37x100"),
    pytest.param({"n_q": 100, "n_k": 37, "dim": 24, "rows": 64, "causal": True}, id="N100x37-causal"),
    pytest.param(
        {"n_q": 70, "n_k": 600, "dim": 16, "rows": 40, "causal": True, "alibi": True},
        id="N600-causal-alibi-three-splits",
    ),
    pytest.param({"n_q": 1, "n_k": 1, "dim": 16, "rows": 1, "causal": True}, id="N1"),
    pytest.param({"n_q": 5, "n_k": 9, "dim": 16, "rows": 64, "heads": 4}, id="fewer-queries-than-rows-gqa"),
    pytest.param({"n_q": 70, "n_k": 600, "dim": 16, "rows": 9, "causal": True, "window": 100}, id="N600-causal-window"),
    pytest.param({"n_q": 70, "n_k": 60, "dim": 16, "rows": 9, "window": 5}, id="N70x60-window"),
    pytest.param({"n_q": 20, "n_k": 100, "dim": 16, "rows": 9, "lengths": (33, 0)}, id="N100-lengths"),
    pytest.param({"n_q": 20, "n_k": 100, "dim": 16, "rows": 9, "sequences": 1}, id="N100-one-sequence-of-two"),
]


def call(shape, backend, dtype, level=0.0):
    torch.manual_seed(1)
    n_q, n_k, dim, heads = shape["n_q"], shape["n_k"], shape["dim"], shape.get("heads", 2)
    query = torch.randn(2, heads, n_q, dim, device=DEVICE).to(dtype)
    key = torch.randn(2, 2, n_k, dim, device=DEVICE).to(dtype)
    slopes = torch.linspace(0.1, 0.5, heads, device=DEVICE) if shape.get("alibi") else None
    bias = torch.linspace(-2.0, 0.0, heads, device=DEVICE) + level
    lengths = shape.get("lengths")
    return sigmoid_attention(
        query,
        key,
        key,
        bias=bias,
        is_causal=shape.get("causal", False),
        alibi_slopes=slopes,
        enable_gqa=True,
        window=shape.get("window"),
        key_lengths=None if lengths is None else torch.tensor(lengths, device=DEVICE),
        return_aux=AuxRequest(shape["rows"], 0.4, shape.get("sequences")),
        backend=backend,
    )[1].statistics


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_measures_what_the_specification_says(shape, dtype, poisoned):
    found, expected = call(shape, "triton", dtype), call(shape, "eager", dtype)
    torch.testing.assert_close(found, expected, rtol=2e-3 if dtype == torch.float16 else 1e-4, atol=1e-3)


@pytest.mark.parametrize("level", [-12.0, 12.0], ids=["dead", "saturated"])
def test_counts_of_dead_and_saturated_weights_are_exact(level):
    shape = {"n_q": 37, "n_k": 100, "dim": 16, "rows": 7}
    column = STATISTICS.index("dead" if level < 0 else "saturated")
    found, expected = (call(shape, backend, torch.float32, level)[..., column] for backend in ("triton", "eager"))
    assert torch.equal(found, expected)
    assert found.min() > 0


@pytest.mark.parametrize(("batch", "sequences"), [(2, 1), (5, 2), (5, 3), (7, 7), (3, 9)])
@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_as_many_sequences_are_sampled_as_asked_for(batch, sequences, offset):
    query, key = torch.randn(batch, 1, 4, 16, device=DEVICE), torch.randn(batch, 1, 6, 16, device=DEVICE)
    request = AuxRequest(2, offset, sequences)
    found, expected = (
        sigmoid_attention(query, key, key, return_aux=request, backend=backend)[1].statistics
        for backend in ("triton", "eager")
    )
    torch.testing.assert_close(found, expected)
    assert found[:, 0, STATISTICS.index("rows")].count_nonzero() == min(batch, sequences)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [64, 80, 128, 256])
def test_bfloat16_statistics_at_length(dim):
    shape = {"n_q": 1000, "n_k": 3000, "dim": dim, "rows": 64, "causal": True}
    found, expected = call(shape, "triton", torch.bfloat16), call(shape, "eager", torch.bfloat16)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=2.0)


def test_a_nan_is_seen_where_it_is_and_nowhere_else():
    query, key = torch.randn(1, 2, 8, 16, device=DEVICE), torch.randn(1, 2, 8, 16, device=DEVICE)
    query[0, 1, 4] = torch.nan
    output, aux = sigmoid_attention(query, key, key, return_aux=AuxRequest(8), backend="triton")
    assert torch.isnan(output).sum() == torch.isnan(output[0, 1, 4]).sum() == 16
    healthy, ill = (dict(zip(STATISTICS, head.tolist(), strict=True)) for head in aux.statistics[0])
    assert all(math.isfinite(value) for value in healthy.values())
    assert all(math.isnan(ill[name]) for name in ("output_square_sum", "row_mass_sum", "logit_sum", "logit_max"))
