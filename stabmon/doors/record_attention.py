"""The door for attention that is written by hand: one call that shows it to a monitor."""

from typing import Literal

from torch import Tensor

from stabmon.doors.form import four_dimensions, scale_of
from stabmon.kernels import observe
from stabmon.kernels.problem import Problem

NAME = "stabmon.record_attention"


def record_attention(
    query: Tensor,
    key: Tensor,
    output: Tensor,
    *,
    value: Tensor | None = None,
    bias: Tensor | float = 0.0,
    kind: Literal["sigmoid", "softmax"] = "sigmoid",
    scale: float | None = None,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
) -> None:
    """Show attention that your code computed to the monitor, as if it had run through one of stabmon's functions.

    Call it in the forward of the module that computes the attention. It costs nothing while nobody watches, changes
    nothing, and ``torch.compile`` traces through it.

    Args:
        query: [B, H, N_q, D], as it is multiplied with the keys.
        key: [B, H_k, N_k, D]; H_k is H or divides it.
        output: [B, H, N_q, D_v], the weighted sums of the values, before the output projection.
        value: [B, H_k, N_k, D_v]; preflight compares with softmax only where it is given.
        bias: what is added to every logit before the sigmoid: a number, or a tensor [H].
        kind: what makes weights of logits.
        scale: factor of q·k; 1/√D by default.
        is_causal: query i sees keys j <= i + N_k - N_q.
        attn_mask: broadcastable to [B, H, N_q, N_k]: True where a query sees a key, or numbers added to the logits.

    Arguments that do not fit together are a failure of the monitor's (``Monitor.failures``), and raise nothing.
    """
    observer = observe.current()
    if observer is not None:
        observer.show(_call, query, key, output, value, bias, kind, scale, is_causal, attn_mask)


def _call(
    query: Tensor,
    key: Tensor,
    output: Tensor,
    value: Tensor | None,
    bias: Tensor | float,
    kind: Literal["sigmoid", "softmax"],
    scale: float | None,
    is_causal: bool,
    attn_mask: Tensor | None,
) -> observe.Call:
    """Return the call in the kernels' form.

    Raises:
        ValueError: a tensor has another number of dimensions, or ``kind`` is neither.
    """
    for name, tensor in (("query", query), ("key", key), ("output", output)):
        if tensor.dim() != 4:
            raise ValueError(f"record_attention takes {name} as [B, H, N, D], got shape {list(tensor.shape)}")
    if kind not in ("sigmoid", "softmax"):
        raise ValueError(f"record_attention takes kind 'sigmoid' or 'softmax', got {kind!r}")
    per_head = bias.detach().float().expand(query.size(1)) if isinstance(bias, Tensor) else None
    problem = Problem(
        query,
        key,
        query.new_empty(0) if value is None else value,
        per_head,
        0.0 if isinstance(bias, Tensor) else float(bias),
        scale=scale_of(query, scale),
        is_causal=is_causal,
        attn_mask=four_dimensions(attn_mask),
    )
    return observe.Call(problem, output, kind=kind, door=NAME)
