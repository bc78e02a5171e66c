"""Masks in the fused backends against the float64 specification: output, every gradient, statistics."""

from functools import partial

import pytest
import torch

from stabmon.kernels import AuxRequest, device, sigmoid_attention
from stabmon.kernels.bench import accuracy

GPU = torch.cuda.is_available()
DEVICE, HALF = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float16)
ALLOWED = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 1.5e-2}
pytestmark = pytest.mark.skipif(not (GPU or device.interpreted()), reason="needs a CUDA device or Triton's interpreter")

B, H, H_K, N_Q, N_K = 2, 2, 1, 34, 40
SHAPES = {
    "keys": (B, 1, 1, N_K),
    "keys-of-all": (N_K,),
    "keys-by-head": (B, H, 1, N_K),
    "pairs": (N_Q, N_K),
    "pairs-by-sequence": (B, 1, N_Q, N_K),
    "pairs-by-head": (1, H, N_Q, N_K),
    "queries": (N_Q, 1),
}
OTHERS = {
    "full": {},
    "causal-window": {"is_causal": True, "window": 12},
    "lengths": {"key_lengths": torch.tensor([N_K, 19])},
    "causal-alibi": {"is_causal": True, "alibi_slopes": torch.tensor([0.5, 0.1])},
}


def draw(dtype, dim=16, n_q=N_Q, n_k=N_K):
    shapes = ((B, H, n_q, dim), (B, H_K, n_k, dim), (B, H_K, n_k, dim))
    return [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes]


def mask_of(shape, kind, dtype=torch.float32):
    scores = torch.randn(shape, device=DEVICE)
    if shape[-1] > 1:
        scores[..., :3] = 2.0  # padding on the left
    if kind == "boolean":
        return scores < 0.7
    hidden = {"infinite": -torch.inf, "lowest": torch.finfo(dtype).min}[kind]
    return scores.masked_fill(scores > 0.7, hidden).to(dtype)


def compute(tensors, bias, mask, backend, dtype=None, **options):
    """Return output and gradients of query, key, value, bias and, where it is floating, mask, and the statistics."""
    leaves = [x if dtype is None else x.to(dtype) for x in (*tensors, bias)]
    mask = mask if dtype is None or mask.dtype == torch.bool else mask.to(dtype)
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    mask = mask.detach().requires_grad_(mask.is_floating_point())
    options = {name: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    request = AuxRequest(9, 0.3)
    output, aux = sigmoid_attention(
        *leaves[:3], bias=leaves[3], attn_mask=mask, enable_gqa=True, return_aux=request, backend=backend, **options
    )
    wanted = [*leaves, mask] if mask.requires_grad else leaves
    weights = torch.linspace(-1, 1, output.numel(), device=DEVICE, dtype=torch.float64).view(output.shape).cos()
    return [output.detach(), *torch.autograd.grad(output, wanted, weights.to(output.dtype))], aux.statistics


def check(tensors, bias, mask, backend, **options):
    found, statistics = compute(tensors, bias, mask, backend, **options)
    exact, expected = compute(tensors, bias, mask, "eager", torch.float64, **options)
    for index, (mine, true) in enumerate(zip(found, exact, strict=True)):
        assert mine.shape == true.shape
        error = (mine.double() - true).norm() / true.norm()
        assert error < ALLOWED[tensors[0].dtype], index
    loose = 1e-4 if tensors[0].dtype == torch.float32 else 5e-3
    torch.testing.assert_close(statistics, expected, rtol=loose, atol=1e-3 if loose == 1e-4 else 0.5)


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize(
    ("shape", "kind"), [("keys", "infinite"), ("keys", "boolean"), ("pairs-by-sequence", "infinite")]
)
def test_a_mask_is_that_of_float64_with_every_other_rule(shape, kind, others, poisoned):
    bias = torch.linspace(-3, -1, H, device=DEVICE)
    check(draw(torch.float32), bias, mask_of(SHAPES[shape], kind), "triton", **OTHERS[others])


@pytest.mark.parametrize(
    ("shape", "kind"),
    [("keys-of-all", "lowest"), ("keys-by-head", "lowest"), ("pairs", "lowest"), ("pairs-by-head", "lowest"),
     ("queries", "lowest"), ("queries", "boolean"), ("pairs-by-head", "boolean")],
)  # fmt: skip
def test_a_mask_of_any_shape_is_that_of_float64(shape, kind, poisoned):
    bias = torch.linspace(-3, -1, H, device=DEVICE)
    check(draw(torch.float32), bias, mask_of(SHAPES[shape], kind), "triton", is_causal=True)


@pytest.mark.parametrize("kind", ["boolean", "infinite"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_q", [1, N_Q])
def test_a_mask_with_split_keys_is_that_of_float64(n_q, shape, kind, poisoned):
    tensors = draw(torch.float32, n_q=n_q)
    size = (
        SHAPES[shape]
        if len(SHAPES[shape]) < 2
        else (*SHAPES[shape][:-2], min(SHAPES[shape][-2], n_q), SHAPES[shape][-1])
    )
    options = {"attn_mask": mask_of(size, kind), "bias": -2.0, "is_causal": True, "enable_gqa": True}
    found = sigmoid_attention(*tensors, backend="split_keys", **options)
    true = sigmoid_attention(*(x.double() for x in tensors), backend="eager", **options)
    assert (found.double() - true).norm() < ALLOWED[torch.float32] * true.norm().clamp(min=1e-3)


@pytest.mark.parametrize("shape", ["keys", "pairs"])
@pytest.mark.parametrize("mask_dtype", [HALF, torch.float32], ids=str)
def test_a_mask_of_half_precision_tensors(mask_dtype, shape, poisoned):
    bias = torch.linspace(-3, -1, H, device=DEVICE)
    check(draw(HALF, dim=64), bias, mask_of(SHAPES[shape], "lowest", mask_dtype), "triton", is_causal=True)


@pytest.mark.parametrize("backend", ["triton", "split_keys"])
def test_no_bias_follows_the_keys_that_a_mask_leaves(backend):
    query, key, value = draw(torch.float32)
    for kind in ("boolean", "infinite"):
        mask = mask_of(SHAPES["keys"], kind)
        found, expected = (
            sigmoid_attention(query, key, value, attn_mask=mask, enable_gqa=True, backend=each)
            for each in (backend, "eager")
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["triton", "split_keys"])
def test_a_row_of_which_a_mask_hides_everything_gives_zero(backend, poisoned):
    query, key, value = draw(torch.float32)
    mask = torch.ones(N_Q, N_K, dtype=torch.bool, device=DEVICE)
    mask[5] = False
    for given in (mask, torch.zeros(N_Q, N_K, device=DEVICE).masked_fill(~mask, -torch.inf)):
        output = sigmoid_attention(query, key, value, attn_mask=given, enable_gqa=True, backend=backend)
        assert output[:, :, 5].eq(0).all()
        assert output[:, :, 6].ne(0).all()


def test_an_expanded_mask_of_keys_is_read_as_one(monkeypatch):
    seen = []
    query, key, value = draw(torch.float32)
    monkeypatch.setattr("stabmon.kernels.dispatch._attend", lambda problem, *_: seen.append(problem) or (None,) * 3)
    mask = mask_of(SHAPES["keys"], "boolean")
    sigmoid_attention(query, key, value, attn_mask=mask.expand(B, 1, N_Q, N_K), enable_gqa=True, bias=0.0)
    assert seen[0].attn_mask.shape == (B, 1, 1, N_K)
    floating = mask_of(SHAPES["keys"], "infinite").expand(B, 1, N_Q, N_K).detach().requires_grad_()
    sigmoid_attention(query, key, value, attn_mask=floating, enable_gqa=True, bias=0.0)
    assert seen[1].attn_mask.shape == floating.shape


def test_a_nan_in_a_mask_is_not_hidden():
    query, key, value = draw(torch.float32)
    mask = torch.zeros(N_K, device=DEVICE)
    mask[3] = torch.nan
    for backend in ("eager", "triton"):
        output = sigmoid_attention(query, key, value, attn_mask=mask, bias=0.0, enable_gqa=True, backend=backend)
        assert output.isnan().all()


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("shape", ["keys", "pairs"])
@pytest.mark.parametrize("kind", ["boolean", "infinite"])
@pytest.mark.parametrize("n", [300, 2048])
def test_the_error_of_a_mask_is_within_the_bound_on_the_device(n, kind, shape, dim):
    for backend in ("triton", "split_keys"):
        query, key, value, grad = (torch.randn(2, 4, n, dim, device="cuda", dtype=HALF) for _ in range(4))
        size = {"keys": (2, 1, 1, n), "pairs": (n, n)}[shape]
        case = accuracy.Case(query, key, value, -5.0, grad, True, attn_mask=mask_of(size, kind))
        found = accuracy.ratios(case, accuracy.run(partial(sigmoid_attention, backend=backend), case))
        assert max(found.values()) <= accuracy.ALLOWED, (backend, found)
