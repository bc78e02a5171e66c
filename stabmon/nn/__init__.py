"""Modules for transformers with sigmoid attention: the attention, the block, and options that make it stable."""

from stabmon.nn.attention import SigmoidAttention
from stabmon.nn.block import Block
from stabmon.nn.layer_scale import LayerScale
from stabmon.nn.norm import RMSNorm
from stabmon.nn.position import alibi_slopes, rotate
from stabmon.nn.softmax import SoftmaxAttention

__all__ = ["Block", "LayerScale", "RMSNorm", "SigmoidAttention", "SoftmaxAttention", "alibi_slopes", "rotate"]
