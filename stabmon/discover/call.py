"""One attention call of a scan: what the call itself says, and what the pass says of its surroundings."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from stabmon.discover.points import Point
from stabmon.kernels import observe
from stabmon.kernels.visibility import shown
from stabmon.stats.multihead import inputs_of

Kind = Literal["sigmoid", "softmax"]


@dataclass(slots=True)
class AttentionCall:
    """One attention call.

    stack: paths of the modules that ran, outermost first; the last is the module's own.
    stream, branch: where the tensors of its residual addition were seen. added_in: paths of the modules that ran then,
    None where there is no such addition.
    """

    module: nn.Module
    stack: tuple[str, ...]
    kind: Kind
    door: str
    heads: int
    head_dim: int
    keys: int
    is_causal: bool
    bias: float | Literal["learnable"] | None
    alibi: bool
    qk_norm: bool
    query: Tensor
    output: Tensor
    added_in: tuple[str, ...] | None = None
    stream: tuple[Point, ...] = ()
    branch: tuple[Point, ...] = ()
    branch_is_output: bool = False
    hybrid_norm: bool = False
    gain: nn.Parameter | None = None

    @property
    def module_name(self) -> str:
        """Path of the module that made the call."""
        return self.stack[-1]

    def forgotten(self) -> "AttentionCall":
        """Return the call without its tensors, which would keep the pass's activations."""
        return replace(self, query=_NOTHING, output=_NOTHING)


_NOTHING = torch.empty(0)


def seen_call(module: nn.Module, stack: tuple[str, ...], call: observe.Call, *, qk_norm: bool) -> AttentionCall:
    """Return the attention ``call`` that ``module`` made while ``stack`` ran."""
    problem = call.problem
    return AttentionCall(
        module,
        stack,
        call.kind,
        call.door,
        problem.query.size(1),
        problem.query.size(3),
        problem.n_k,
        problem.is_causal or _is_causal(problem.attn_mask),
        _bias(problem.any_bias, problem.n_k) if call.kind == "sigmoid" else None,
        problem.alibi_slopes is not None,
        qk_norm,
        problem.query,
        call.output if call.returned is None else call.returned,
    )


def seen_multihead(
    module: nn.MultiheadAttention, stack: tuple[str, ...], args: Any, kwargs: Any, output: Any
) -> AttentionCall:
    """Return the call of ``module`` with ``args`` and ``kwargs`` that gave ``output``."""
    inputs = inputs_of(args, kwargs)
    return AttentionCall(
        module,
        stack,
        "softmax",
        "torch.nn.MultiheadAttention",
        module.num_heads,
        module.head_dim,
        inputs["key"].size(-2 if module.batch_first else 0),
        bool(inputs.get("is_causal")) or _is_causal(_visible(inputs.get("attn_mask"))),
        None,
        False,
        False,
        cast(Tensor, inputs["query"]),
        output[0],
    )


def _bias(bias: Tensor | float, keys: int) -> float | Literal["learnable"] | None:
    """Return what ``bias`` says by itself: None where heads differ, or where it follows the number of ``keys``."""
    if not isinstance(bias, Tensor):
        return None if math.isclose(bias, -math.log(keys)) else float(bias)
    if bias.requires_grad:
        return "learnable"
    values = set(bias.flatten().tolist()) if bias.dim() == 1 and not bias.is_meta else set()
    return values.pop() if len(values) == 1 else None


def _visible(mask: Tensor | None) -> Tensor | None:
    """Return a mask of ``nn.MultiheadAttention`` as other functions take it: True where a key is seen."""
    return ~mask if mask is not None and mask.dtype == torch.bool else mask


def _is_causal(mask: Tensor | None) -> bool:
    """Return whether ``mask`` [..., N, N] hides every later key and no query's own."""
    if mask is None or mask.dim() < 2 or mask.size(-1) != mask.size(-2) or mask.size(-1) < 2:
        return False
    one = mask.reshape(-1, mask.size(-2), mask.size(-1))[0]
    seen = shown(one)
    return bool(seen.diagonal().any()) and not bool(seen.triu(1).any())
