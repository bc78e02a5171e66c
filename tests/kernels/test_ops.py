from functools import partial

import pytest
import torch
from torch.autograd import forward_ad

from stabmon.kernels import AuxRequest, device, ops, sigmoid_attention
from stabmon.kernels.problem import Problem

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and not device.interpreted(), reason="needs a CUDA device or Triton's interpreter"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def draw(heads=2, key_heads=2, n_q=5, n_k=7, requires_grad=True):
    shapes = ((1, heads, n_q, 16), (1, key_heads, n_k, 16), (1, key_heads, n_k, 16))
    return [torch.randn(shape, device=DEVICE, requires_grad=requires_grad) for shape in shapes]


def per_head(heads=2, requires_grad=True):
    return torch.zeros(heads, device=DEVICE, requires_grad=requires_grad)


@pytest.mark.parametrize(
    ("bias", "slopes", "causal", "sample"),
    [
        (True, False, True, (4, 0.5, 1)),
        (True, False, True, (0, 0.5, 1)),
        (False, True, False, (-1, 0.0, 0)),
    ],
    ids=["bias-causal-rows", "bias-causal-sums", "alibi-full"],
)
def test_the_forward_operator_passes_opcheck(bias, slopes, causal, sample):
    per_query_head = per_head() if bias else None
    alibi_slopes = per_head(requires_grad=False) if slopes else None
    problem = Problem(*draw(), per_query_head, -1.5, alibi_slopes, 0.25, causal)
    torch.library.opcheck(ops.sigmoid_attention_op, (*problem, *sample, "triton"))


def test_the_other_operators_pass_opcheck():
    query, key, value = draw(requires_grad=False)
    problem = Problem(query, key, value, per_head(requires_grad=False), 0.0, None, 0.25, True)
    torch.library.opcheck(ops.backward_op, (query.clone(), *problem, True, False, "triton"))
    torch.library.opcheck(ops.row_statistics_op, (*problem, torch.zeros(1, 2, device=DEVICE), 4, 0.5, 1))


def test_the_schema_spells_the_fields_of_a_problem():
    arguments = ops.sigmoid_attention_op._schema.arguments
    assert tuple(argument.name for argument in arguments) == (
        *Problem._fields,
        "rows",
        "offset",
        "sequences",
        "backend",
    )


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_triton_is_one_graph(dynamic):
    def call(query, key, value, bias):
        return sigmoid_attention(
            query, key, value, bias=bias, is_causal=True, enable_gqa=True, return_aux=AuxRequest(3), backend="triton"
        )

    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (7, 9):
        leaves = [*draw(heads=4, n_k=length), per_head(4)]
        (output, aux), (expected, wanted) = compiled(*leaves), call(*leaves)
        assert torch.equal(output, expected)
        assert torch.equal(aux.statistics, wanted.statistics)
        found, true = (torch.autograd.grad(o.sum(), leaves) for o in (output, expected))
        assert all(torch.equal(a, b) for a, b in zip(found, true, strict=True))


def test_only_the_inputs_are_kept_for_the_backward():
    kept = []
    leaves = [*draw(), per_head()]

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sigmoid_attention(*leaves[:3], bias=leaves[3], return_aux=AuxRequest(2), backend="triton")
    pointers = {leaf.data_ptr() for leaf in leaves}
    assert {tensor.data_ptr() for tensor in kept} <= pointers


def test_a_broadcast_gradient_is_taken():
    leaves = draw()
    sigmoid_attention(*leaves, backend="triton").sum().backward()
    expected = torch.autograd.grad(sigmoid_attention(*leaves, backend="eager").sum(), leaves)
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


def test_the_output_is_laid_out_like_the_query():
    query, key, value = (tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in draw(requires_grad=False))
    assert sigmoid_attention(query, key, value, backend="triton").stride() == query.stride()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_compiled_call_is_one_graph_on_the_device():
    tensors = [torch.randn(1, 2, 300, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    compiled = torch.compile(lambda *args: sigmoid_attention(*args, is_causal=True), fullgraph=True, dynamic=True)
    output, expected = compiled(*tensors), sigmoid_attention(*tensors, is_causal=True)
    # A bias that follows the length is a tensor in a graph, and the sigmoid then of another form.
    torch.testing.assert_close(output, expected, atol=2e-3, rtol=2e-2)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(output.float().sum(), tensors))


@pytest.mark.gpu
def test_a_call_can_be_captured_in_a_cuda_graph():
    query, key, value = (torch.randn(1, 2, 256, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    expected, wanted = sigmoid_attention(query, key, value, return_aux=AuxRequest())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output, aux = sigmoid_attention(query, key, value, return_aux=AuxRequest())
    output.fill_(torch.nan)
    graph.replay()
    assert torch.equal(output, expected)
    assert torch.equal(aux.statistics, wanted.statistics)


def test_second_derivatives_are_refused_and_not_left_out():
    leaves = draw()
    output = sigmoid_attention(*leaves, backend="triton")
    (grad,) = torch.autograd.grad(output.square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="gradients of sigmoid_attention have no derivative"):
        torch.autograd.grad(grad.square().sum() + output.sum(), leaves[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_derivatives_are_refused_and_not_left_out():
    query, key, value = draw(requires_grad=False)
    with forward_ad.dual_level():
        assert torch.isfinite(sigmoid_attention(query, key, value, backend="triton")).all()
        dual = forward_ad.make_dual(query, torch.ones_like(query))
        with pytest.raises(RuntimeError, match="sigmoid_attention has no forward-mode derivative"):
            sigmoid_attention(dual, key, value, backend="triton")


def test_gradients_under_torch_func_are_refused_and_vmap_is_not():
    query, key, value = draw(requires_grad=False)

    def call(query, backend):
        return sigmoid_attention(query, key, value, backend=backend)

    with pytest.raises(RuntimeError, match=r"no gradient under torch\.func; pass backend='eager'"):
        torch.func.grad(lambda x: call(x, "triton").sum())(query)
    two = torch.stack([query, 2 * query])
    found, expected = (torch.func.vmap(partial(call, backend=backend))(two) for backend in ("triton", "eager"))
    torch.testing.assert_close(found, expected)


class Ends(torch.autograd.Function):
    """Sums, and passes no gradient on."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.sum()

    @staticmethod
    def backward(ctx, grad):
        return None


def test_an_output_that_receives_no_gradient_passes_none_on():
    leaves = [*draw(), per_head()]
    output = sigmoid_attention(*leaves[:3], bias=leaves[3], backend="triton")
    (Ends.apply(output) + leaves[0].sum()).backward()
    assert torch.equal(leaves[0].grad, torch.ones_like(leaves[0]))
    assert all(leaf.grad is None for leaf in leaves[1:])


def test_dynamo_does_not_trace_kernels_called_beside_a_compiled_frame():
    leaves = draw(requires_grad=False)
    problem = Problem(*leaves, None, -1.5, None, 0.25, True)

    @torch._dynamo.disable(recursive=False)
    def skipped(query):
        return ops.sigmoid_attention_op(query, *problem[1:], -1, 0.0, 0, "triton")[0]

    compiled = torch.compile(lambda query: 2 * skipped(query + 1), backend="aot_eager")
    assert torch.equal(compiled(leaves[0]), 2 * skipped(leaves[0] + 1))
