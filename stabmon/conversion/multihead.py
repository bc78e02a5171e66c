"""``nn.MultiheadAttention``, alone and within the layers of ``nn.Transformer``."""

from contextlib import ExitStack
from functools import partial

from torch import nn

from stabmon.conversion import additions
from stabmon.conversion.changes import put
from stabmon.conversion.lengths import longest
from stabmon.conversion.multihead_attention import SigmoidMultiheadAttention
from stabmon.conversion.report import Kept
from stabmon.conversion.work import Work


def convert(work: Work) -> None:
    """Convert every ``nn.MultiheadAttention`` of ``work``; encoders around them pack no padded sequences any more."""
    for name, module in list(work.remaining()):
        if isinstance(module, nn.MultiheadAttention):
            if reason := _refusal(module):
                work.kept.append(Kept(name, reason))
            else:
                work.attempt("nn.MultiheadAttention", name, partial(_convert, work, module))
    done = {found.module for found in work.converted}
    for name, module in work.model.named_modules():
        inside = any(path.startswith(f"{name}." if name else "") for path in done)
        if isinstance(module, nn.TransformerEncoder) and inside:
            put(module, "use_nested_tensor", False, work.changes)


def _refusal(module: nn.MultiheadAttention) -> str | None:
    if type(module) not in (nn.MultiheadAttention, SigmoidMultiheadAttention):
        return f"{type(module).__name__} may compute something else than the nn.MultiheadAttention that it derives from"
    if module.bias_k is not None or module.add_zero_attn:
        return "add_bias_kv and add_zero_attn give softmax a key to rest on, which sigmoid attention does not need"
    return None


def _convert(work: Work, module: nn.MultiheadAttention, undo: ExitStack) -> float:
    wanted = work.wanted
    start = wanted.start(longest(getattr(work.model, "config", None)))
    if wanted.bias == "learnable":
        additions.add_bias(module, module.num_heads, start, undo)
    else:
        put(module, additions.BIAS, start, undo)
    if wanted.qk_norm:
        additions.add_qk_norm(module, module.head_dim, undo)
    if wanted.layer_scale is not None:
        additions.add_layer_scale(module, module.out_proj, wanted.layer_scale, undo)
    put(module, "__class__", SigmoidMultiheadAttention, undo)
    return start
