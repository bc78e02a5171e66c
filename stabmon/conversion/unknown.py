"""Modules that look like attention and that no kind of model knows: they are kept, with the reason."""

import re

from stabmon.conversion import calls
from stabmon.conversion.report import Kept
from stabmon.conversion.work import Work

_REASONS = {
    "flex_attention": "it calls FlexAttention, whose score_mod may do anything",
    "multi_head_attention_forward": "it calls F.multi_head_attention_forward",
    "softmax": "it computes softmax itself",
}


def keep(work: Work) -> None:
    """Report what is left of ``work`` and calls attention, or has it in its class's name and weights of its own."""
    for name, module in list(work.remaining()):
        kind = module.__class__
        if kind.__module__.startswith("torch.") or any(path.startswith(f"{name}.") for path in work.known()):
            continue
        reason = next((text for function, text in _REASONS.items() if calls.names(module, function)), None)
        called = re.search(r"[Aa]ttn|[Aa]ttention", kind.__name__)
        if called and any(True for _ in module.parameters()):
            reason = reason or "no call of attention was found in its code"
            work.kept.append(Kept(name, f"{reason}; call stabmon.kernels.sigmoid_attention there"))
        elif reason is not None and not called and "softmax" not in reason:
            work.kept.append(Kept(name, f"{reason}; call stabmon.kernels.sigmoid_attention there"))
