"""One small call of every kernel, run by test_checkers.py under CUDA's memory and race checkers."""

import sys

import torch

from stabmon.kernels import AuxRequest, sigmoid_attention, sigmoid_attention_varlen

CALLS = {
    "triton": (
        {"is_causal": True, "window": 40},
        {"alibi_slopes": (0.5, 0.1, 0.2, 0.3)},
        {"key_lengths": (50, 130)},
        {"return_aux": AuxRequest(rows=16, sequences=1)},
    ),
    "hopper": (
        {"is_causal": True},
        {"deterministic": True},
        {"is_causal": True, "bias": (-5.0, -4.0, -12.0, 1.0), "deterministic": True},
        {"bias": (-5.0, -4.0, -12.0, 1.0)},
    ),
}
"""Options of calls by backend; tuples become tensors."""


def leaves(*shape: int) -> list[torch.Tensor]:
    """Return query [shape], and key and value with half as many heads."""
    fewer = (*shape[:-3], shape[-3] // 2, *shape[-2:])
    return [torch.randn(size, device="cuda").bfloat16().requires_grad_() for size in (shape, fewer, fewer)]


def dense(backend: str, dim: int, options: dict[str, object]) -> None:
    """Run a call of ragged length forward and backward."""
    tensors = leaves(2, 4, 130, dim)
    given = {k: torch.tensor(v, device="cuda") if type(v) is tuple else v for k, v in options.items()}
    found = sigmoid_attention(*tensors, enable_gqa=True, backend=backend, **given)
    output = found[0] if isinstance(found, tuple) and "return_aux" in options else found
    torch.autograd.grad(output, tensors, torch.randn_like(output))


def packed(dim: int) -> None:
    """Run packed sequences, one of them empty, forward and backward."""
    starts = torch.tensor([0, 70, 70, 130], device="cuda", dtype=torch.int32)
    tensors = [x.transpose(0, 1).contiguous().detach().requires_grad_() for x in leaves(4, 130, dim)]
    output = sigmoid_attention_varlen(*tensors, starts, starts, 70, 70, enable_gqa=True, backend="triton")
    torch.autograd.grad(output, tensors, torch.randn_like(output))


if __name__ == "__main__":
    backend = sys.argv[1]
    for dim in (64, 128):
        for options in CALLS[backend]:
            dense(backend, dim, options)
            print(dim, options, flush=True)
        if backend == "triton":
            packed(dim)
    torch.cuda.synchronize()
    print("done")
