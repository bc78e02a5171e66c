"""Models of timm: those that call ``F.scaled_dot_product_attention`` if their ``fused_attn`` is set."""

from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import nn

from stabmon.conversion import calls, sdpa
from stabmon.conversion.changes import put
from stabmon.conversion.report import Kept
from stabmon.conversion.work import Work

_OVER_ALL_TOKENS = {
    "timm.layers.attention",
    "timm.layers.diff_attention",
    "timm.models.beit",
    "timm.models.cait",
    "timm.models.eva",
    "timm.models.vision_transformer",
    "timm.models.vision_transformer_relpos",
}
"""Files whose attentions see all patches of an image; others pool them or see windows."""

_OVER_CHANNELS = {"XCA"}


def convert(work: Work) -> None:
    """Convert the attentions of ``work`` that are timm's."""
    for name, module in list(work.remaining()):
        own = type(module).__module__.partition(".")[0] == "timm" and hasattr(module, "fused_attn")
        if own and type(module).__name__ in _OVER_CHANNELS:
            work.kept.append(Kept(name, "it attends over channels and not over tokens"))
        elif own and calls.names(module, sdpa.NAME):
            work.attempt("timm", name, partial(_convert, work, name, module))


def _convert(work: Work, name: str, module: nn.Module, undo: ExitStack) -> float:
    put(module, "fused_attn", True, undo)
    return sdpa.swap(work, name, _tokens(work.model, name, module), undo)


def _tokens(model: nn.Module, name: str, module: nn.Module) -> int | None:
    """Return how many tokens attend to each other: all of an image's, with the class token, or a window's."""
    while type(module).__module__ in _OVER_ALL_TOKENS and name:
        name = name.rpartition(".")[0]
        owner: Any = model.get_submodule(name)
        patches = getattr(getattr(owner, "patch_embed", None), "num_patches", None)
        if isinstance(patches, int) and isinstance(getattr(owner, "num_prefix_tokens", None), int):
            return patches + int(owner.num_prefix_tokens)
    area = getattr(module, "window_area", None)
    return area if isinstance(area, int) else None
