"""Modules that look like attention and that no kind of model knows: they are kept, with the reason."""

import re

from torch import nn

from stabmon.conversion import calls
from stabmon.conversion.report import Kept
from stabmon.conversion.work import Work

_REASONS = {
    "flex_attention": "it calls FlexAttention, whose score_mod may do anything",
    "multi_head_attention_forward": "it calls F.multi_head_attention_forward",
    "softmax": "it computes softmax itself",
}


def keep(work: Work) -> None:
    """Report what is left of ``work`` and calls attention, or has it in its class's name and weights."""
    for code_says_it in (True, False):  # first those that compute attention, then those that may
        for name, module in list(work.remaining()):
            reason = _reason(module)
            holds_another = any(path.startswith(f"{name}." if name else "") for path in work.known())
            if not holds_another and not type(module).__module__.startswith("torch.") and _is_attention(module, reason):
                if code_says_it and reason is None:
                    continue
                found = reason or "no call of attention was found in its code"
                work.kept.append(Kept(name, f"{found}; call stabmon.kernels.sigmoid_attention there"))


def _reason(module: nn.Module) -> str | None:
    return next((text for function, text in _REASONS.items() if calls.names(module, function)), None)


def _is_attention(module: nn.Module, reason: str | None) -> bool:
    """Return whether ``module`` is attention; softmax alone may also be that of a router or of a classifier."""
    if re.search(r"[Aa]ttn|[Aa]ttention", type(module).__name__):
        return any(True for _ in module.parameters())
    return reason is not None and reason != _REASONS["softmax"]
