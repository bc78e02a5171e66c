"""The gain with which a QK norm starts so that the logits keep their size, read from the weights."""

import math

import torch
from torch import Tensor

from stabmon.formatting import number
from stabmon.nn import Block
from stabmon.nn.self_attention import SelfAttention


def norm_gain(attention: SelfAttention, block: Block | None, widest: float) -> tuple[float, str]:
    """Return the gain of both norms at which logits keep their present size, and in words where it comes from.

    The size is that for inputs of independent channels with root mean square one, as a norm without gain gives them;
    the gain of the block's own norm is counted in. Gains g give logits a standard deviation of g² for queries and keys
    that point anywhere, so g stays under √``widest``.
    """
    with torch.no_grad():
        weight = torch.stack(attention.qkv.weight.double().chunk(3))  # [3, width, width]
        size = (weight * _input_gain(weight, block)).square().sum(-1).mean(-1).sqrt()  # [3]
    present = float(math.sqrt(size[0] * size[1]))
    largest = math.sqrt(widest)
    if present <= largest:
        return present, "what their weights give now"
    return largest, f"their weights give {number(present)} now, too much for a bias to bear"


def _input_gain(weight: Tensor, block: Block | None) -> Tensor:
    return weight.new_ones(()) if block is None or block.norm == "post" else block.attention_norm.weight.to(weight)
