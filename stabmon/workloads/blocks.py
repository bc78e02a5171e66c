"""The stack of blocks that every workload's model is built of, with all options of a ``ModelConfig``."""

from torch import nn

from stabmon.config import ModelConfig
from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention


def blocks(config: ModelConfig, max_length: int, *, is_causal: bool = False) -> nn.ModuleList:
    """Return the blocks of ``config``, whose "length" bias is -log of ``max_length``, the longest row of keys.

    A softmax model draws the same first weights as the sigmoid model with the same seed.
    """
    return nn.ModuleList(
        Block(
            config.width,
            _attention(config, max_length, is_causal),
            layer_scale=config.layer_scale,
            hybrid_norm=config.hybrid_norm,
            norm=config.norm,
        )
        for _ in range(config.layers)
    )


def _attention(config: ModelConfig, max_length: int, is_causal: bool) -> nn.Module:
    position = config.position if config.position in ("rope", "alibi") else None
    if config.attention == "softmax":
        return SoftmaxAttention(
            config.width, config.heads, is_causal=is_causal, position=position, qk_norm=config.qk_norm
        )
    return SigmoidAttention(
        config.width,
        config.heads,
        bias=config.bias,
        bias_start=config.bias_start,
        max_length=max_length,
        is_causal=is_causal,
        position=position,
        qk_norm=config.qk_norm,
    )
