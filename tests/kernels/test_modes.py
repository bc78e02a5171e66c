"""The modes in which torch calls an operator: determinism, autocast, checkpointing, CUDA graphs; the sigmoid's form."""

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from stabmon.kernels import AuxRequest, choice, device, dispatch, ops, sigmoid_attention, sigmoid_attention_varlen
from stabmon.kernels.problem import Problem

GPU = torch.cuda.is_available()
DEVICE, HALF = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float16)
fused = pytest.mark.skipif(not (GPU or device.interpreted()), reason="needs a CUDA device or Triton's interpreter")
BACKENDS = ["eager", pytest.param("triton", marks=fused)]


def draw(n=12, dtype=torch.float32, requires_grad=True):
    return [torch.randn(2, 2, n, 16, device=DEVICE, dtype=dtype, requires_grad=requires_grad) for _ in range(3)]


def lengths(*numbers):
    return torch.tensor(numbers, device=DEVICE)


@pytest.mark.parametrize("given", [None, False, True])
def test_determinism_follows_torch_unless_it_is_passed(given, monkeypatch):
    seen = []
    attend = dispatch.reference.sigmoid_attention
    monkeypatch.setattr(dispatch.reference, "sigmoid_attention", lambda p: (seen.append(p.deterministic), attend(p))[1])
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    sigmoid_attention(*draw(), deterministic=given, backend="eager")
    assert seen == [given is not False]


@fused
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_repeated_run_gives_the_same_bits(deterministic):
    leaves = [*draw(n=70), torch.zeros(2, device=DEVICE, requires_grad=True)]
    options = {"is_causal": True, "window": 30, "key_lengths": lengths(70, 33), "deterministic": deterministic}
    runs = []
    for _ in range(2):
        output = sigmoid_attention(*leaves[:3], bias=leaves[3], backend="triton", **options)
        runs.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["bias", "alibi_slopes"])
def test_per_head_tensors_may_be_any_view(name, backend):
    tensors = draw()
    wide = torch.tensor([0.25, 5.0, 0.5, 5.0], device=DEVICE)
    for view in (wide[::2], wide[:1].expand(2)):
        given, dense = ({name: x} for x in (view, view.clone()))
        found, expected = (sigmoid_attention(*tensors, backend=backend, **options) for options in (given, dense))
        assert torch.equal(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_casts_the_tensors_alone(backend):
    leaves = [*draw(), torch.tensor([-3.0001, -2.9999], device=DEVICE, requires_grad=True)]
    given = lengths(12, 5)
    with torch.autocast(DEVICE, dtype=HALF):
        output = sigmoid_attention(*leaves[:3], bias=leaves[3], key_lengths=given, backend=backend)
    halves = [leaf.to(HALF) for leaf in leaves[:3]]
    assert output.dtype == HALF
    assert torch.equal(output, sigmoid_attention(*halves, bias=leaves[3], key_lengths=given, backend=backend))
    grads = torch.autograd.grad(output.sum(), leaves)
    assert {grad.dtype for grad in grads} == {torch.float32}


@pytest.mark.parametrize("backend", BACKENDS)
def test_activation_checkpointing_changes_no_bit(backend):
    leaves, given = draw(), lengths(12, 5)

    def call(*tensors):
        return sigmoid_attention(*tensors, key_lengths=given, window=4, backend=backend)

    plain, kept = call(*leaves), checkpoint(call, *leaves, use_reentrant=False)
    assert torch.equal(plain, kept)
    grads = [torch.autograd.grad(output.square().sum(), leaves) for output in (plain, kept)]
    assert all(torch.equal(first, second) for first, second in zip(*grads, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_windows_and_masks_compile_to_one_graph(backend):
    def call(query, key, value, mask, given):
        options = {"key_lengths": given, "window": 5, "is_causal": True, "return_aux": AuxRequest(3, sequences=1)}
        return sigmoid_attention(query, key, value, attn_mask=mask, backend=backend, **options)

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (9, 12):
        leaves = [*draw(n), torch.randn(2, 1, 1, n, device=DEVICE, requires_grad=True)]
        (output, aux), (expected, wanted) = compiled(*leaves, lengths(n, 4)), call(*leaves, lengths(n, 4))
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(aux.statistics, wanted.statistics)
        assert aux[1:] == wanted[1:] == (backend, "accurate")
        found, true = (torch.autograd.grad(each.sum(), leaves) for each in (output, expected))
        for mine, theirs in zip(found, true, strict=True):
            torch.testing.assert_close(mine, theirs)


@fused
def test_operators_pass_opcheck_on_lengths_packed_sequences_and_masks():
    tensors, per_sequence = draw(requires_grad=False), torch.zeros(2, 1, device=DEVICE)
    padded = Problem(*tensors, per_sequence, 0.0, None, 0.25, True, 4, lengths(12, 5))
    starts = lengths(0, 3, 7, 12)
    one = [tensor[:1] for tensor in tensors]
    packed = Problem(*one, None, -1.0, None, 0.25, True, None, None, starts, starts, 5, 5)
    quick = ("test_schema", "test_faketensor")  # what depends on the fields; test_ops runs the rest
    masked = Problem(*tensors, per_sequence, scale=0.25, attn_mask=torch.randn(2, 1, 1, 12, device=DEVICE))
    for problem in (padded, packed, masked):
        gradients = (False, problem.attn_mask is not None)
        torch.library.opcheck(
            ops.backward_op, (problem.query.clone(), *problem, *gradients, "triton"), test_utils=quick
        )
        sums = torch.zeros(problem.batch, 2, device=DEVICE)
        torch.library.opcheck(ops.row_statistics_op, (*problem, sums, 3, 0.5, 1), test_utils=quick)
        leaves = problem._replace(query=problem.query.clone().requires_grad_())
        torch.library.opcheck(ops.sigmoid_attention_op, (*leaves, 3, 0.5, 1, "triton"), test_utils=quick)


def of(bias, form="auto", dtype=torch.bfloat16):
    tensor = torch.zeros(1, 2, 8, 64, dtype=dtype)
    number = 0.0 if isinstance(bias, torch.Tensor) else bias
    per_head = bias if isinstance(bias, torch.Tensor) else None
    return Problem(tensor, tensor, tensor, per_head, number, None, 0.125, False, form=form)


@pytest.mark.parametrize("backend", ["triton", "hopper"])
def test_the_form_is_reported_and_can_be_forced(backend, monkeypatch):
    monkeypatch.setattr(device, "on_device", lambda device: True)
    low, learnable = -math.log(131072), torch.zeros(2)
    reported = [choice.form_of(of(bias), backend) for bias in (-4.0, low, learnable)]
    assert reported == ["tanh", "accurate", "by head" if backend == "hopper" else "accurate"]
    assert {choice.form_of(of(bias, "tanh"), backend) for bias in (-4.0, low, learnable)} == {"tanh"}
    assert {choice.form_of(of(bias, "accurate"), backend) for bias in (-4.0, low, learnable)} == {"accurate"}
    assert choice.form_of(of(-4.0, dtype=torch.float32), "triton") == "accurate"
    assert choice.form_of(of(-4.0), "eager") == "accurate"


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "auto"])
def test_the_forced_form_is_the_one_that_runs(backend):
    query, key, value = (torch.randn(1, 2, 300, 64, device="cuda", dtype=HALF) for _ in range(3))
    outputs = {}
    for form in ("tanh", "accurate"):
        call = {"bias": -9.0, "form": form, "backend": backend, "return_aux": AuxRequest(0)}
        outputs[form], aux = sigmoid_attention(query, key, value, **call)
        assert aux.form == form
    assert not torch.equal(outputs["tanh"], outputs["accurate"])


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True], ids=["lengths", "packed"])
def test_forward_and_backward_can_be_captured_in_a_cuda_graph(packed):
    given = lengths(0, 100, 300) if packed else lengths(300, 129)
    shape = (300, 2, 64) if packed else (2, 2, 300, 64)
    leaves = [torch.randn(shape, device="cuda", dtype=HALF, requires_grad=True) for _ in range(3)]
    grad = torch.randn(shape, device="cuda", dtype=HALF)

    def call():
        if packed:
            output = sigmoid_attention_varlen(*leaves, given, given, 200, 200, is_causal=True)
        else:
            output = sigmoid_attention(*leaves, key_lengths=given, window=100)
        return [output, *torch.autograd.grad(output, leaves, grad)]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        expected = [tensor.detach().clone() for tensor in call()]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    for tensor in found:
        tensor.detach().fill_(torch.nan)
    graph.replay()
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
