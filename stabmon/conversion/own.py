"""stabmon's own modules: a ``SoftmaxAttention`` becomes a ``SigmoidAttention``; sigmoid attention stays."""

from contextlib import ExitStack

import torch
from torch import nn

from stabmon.conversion import additions, structure
from stabmon.conversion.changes import put
from stabmon.conversion.report import Kept
from stabmon.conversion.work import ALREADY, Work
from stabmon.nn import RMSNorm, SigmoidAttention, SoftmaxAttention


def convert(work: Work) -> None:
    """Convert the softmax attentions of ``work`` that are stabmon's own."""
    for name, module in list(work.remaining()):
        if isinstance(module, SigmoidAttention):
            work.kept.append(Kept(name, ALREADY))
        elif type(module) is SoftmaxAttention:
            work.attempt("stabmon", name, lambda undo, of=module, at=name: _convert(work, at, of, undo))  # type: ignore[misc]


def _convert(work: Work, name: str, module: SoftmaxAttention, undo: ExitStack) -> float:
    start = work.wanted.start(None)
    bias = torch.full((module.heads,), start, device=module.qkv.weight.device)
    if work.wanted.bias == "learnable":
        module.register_parameter("bias", nn.Parameter(bias))
    else:
        module.register_buffer("bias", bias)
    undo.callback(delattr, module, "bias")
    put(module, "max_length", work.wanted.max_length, undo)
    put(module, "backend", "auto", undo)
    put(module, "__class__", SigmoidAttention, undo)
    if work.wanted.qk_norm and isinstance(module.query_norm, nn.Identity):
        for side in ("query_norm", "key_norm"):
            put(module, side, RMSNorm(module.head_dim).to(module.qkv.weight), undo)
    if work.wanted.layer_scale is not None:
        additions.add_layer_scale(module, structure.projection(work.model, name), work.wanted.layer_scale, undo)
    return start
