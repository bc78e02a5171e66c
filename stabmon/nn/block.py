"""A transformer block with a place for each option that makes sigmoid attention stable."""

from typing import Literal

from torch import Tensor, nn

from stabmon.nn.layer_scale import LayerScale
from stabmon.nn.norm import RMSNorm


class Block(nn.Module):
    """Attention, then a feed-forward network, each as x + scale(post_norm(branch(norm(x)))).

    With ``norm`` "post" each is norm(x + scale(post_norm(branch(x)))): the stream itself is normed, as in the first
    transformers (arXiv 1706.03762).

    ``attention_post_norm`` and ``feed_forward_post_norm`` are identities unless ``hybrid_norm`` is set,
    ``attention_scale`` and ``feed_forward_scale`` unless ``layer_scale`` is: fixes are put in their places.

    Args:
        width: channels of the residual stream.
        attention: maps [B, N, width] to [B, N, width].
        expansion: hidden channels of the feed-forward network, in multiples of ``width``.
        layer_scale: first gain of a LayerScale on both branches; None for no LayerScale.
        hybrid_norm: whether both branches are normed again before they are added (arXiv 2409.04431).
        norm: "pre" or "post".

    Raises:
        ValueError: another ``norm``.
    """

    def __init__(
        self,
        width: int,
        attention: nn.Module,
        *,
        expansion: int = 4,
        layer_scale: float | None = None,
        hybrid_norm: bool = False,
        norm: Literal["pre", "post"] = "pre",
    ) -> None:
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"norm must be 'pre' or 'post', got {norm!r}")
        self.norm = norm
        self.attention_norm = RMSNorm(width)
        self.attention = attention
        self.attention_post_norm = _post_norm(width, hybrid_norm)
        self.attention_scale = _scale(width, layer_scale)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )
        self.feed_forward_post_norm = _post_norm(width, hybrid_norm)
        self.feed_forward_scale = _scale(width, layer_scale)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the residual stream [B, N, width] after both branches were added to ``x``.

        lengths: [B], passed to the attention where it is given: the tokens after them are padding.
        """
        given = () if lengths is None else (lengths,)
        if self.norm == "post":
            x = self.attention_norm(x + self.attention_scale(self.attention_post_norm(self.attention(x, *given))))
            return self.feed_forward_norm(x + self._feed_forward(x))  # type: ignore[no-any-return]  # a module's output
        x = x + self.attention_scale(self.attention_post_norm(self.attention(self.attention_norm(x), *given)))
        return x + self._feed_forward(self.feed_forward_norm(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.feed_forward_scale(self.feed_forward_post_norm(self.feed_forward(x)))
        return out

    def extra_repr(self) -> str:
        """Return the options that no submodule shows, for the model's printed form."""
        return f"norm={self.norm!r}"


def _post_norm(width: int, wanted: bool) -> nn.Module:
    return RMSNorm(width) if wanted else nn.Identity()


def _scale(width: int, init: float | None) -> nn.Module:
    return nn.Identity() if init is None else LayerScale(width, init)
