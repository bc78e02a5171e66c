from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from stabmon.integrations.transformers.masks import sigmoid_mask

KEYS = 9
PATTERNS = {
    "causal": (causal_mask_function, {}),
    "window": (sliding_window_causal_mask_function(4), {"local_size": 4}),
    "wide window": (sliding_window_causal_mask_function(20), {"local_size": 20}),
    "chunks": (
        chunked_causal_mask_function(4, torch.zeros(2, dtype=torch.long)),
        {"local_size": 4, "config": LlamaConfig(attention_chunk_size=4)},
    ),
    "both ways": (bidirectional_mask_function, {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": True}),
}


def _whole(mask: Tensor | None, queries: int, is_causal: bool) -> Tensor:
    """Return the valid pairs [B, 1, N_q, KEYS] that the attention function takes from ``mask``."""
    if mask is not None and mask.dim() == 4:
        return mask
    valid = torch.ones(2, 1, queries, KEYS, dtype=torch.bool)
    position = torch.arange(KEYS - queries, KEYS)[:, None]
    if is_causal:
        valid &= torch.arange(KEYS) <= position
    if mask is not None:
        valid &= (mask if mask.dim() == 2 else mask[:, 0])[:, None, None]
    if mask is not None and mask.dim() == 3:
        valid &= torch.arange(KEYS) > position - mask.size(1)
    return valid


@pytest.mark.parametrize("padding", ["none", "left", "right", "all valid"])
@pytest.mark.parametrize("queries", [KEYS, 3, 1])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_form_of_a_mask_means_the_pairs_that_transformers_means(pattern: str, queries: int, padding: str) -> None:
    function, options = PATTERNS[pattern]
    valid = {"none": None, "all valid": torch.ones(2, KEYS, dtype=torch.bool)}.get(padding)
    if padding in ("left", "right"):
        valid = torch.ones(2, KEYS, dtype=torch.bool)
        valid[0, slice(2) if padding == "left" else slice(-2, None)] = False
    given: dict[str, Any] = {
        "batch_size": 2,
        "q_length": queries,
        "kv_length": KEYS,
        "q_offset": KEYS - queries,
        "mask_function": function,
        "attention_mask": valid,
        "device": "cpu",
    }
    expected = sdpa_mask(**given, allow_is_causal_skip=False)
    ours = sigmoid_mask(**given, **options)
    assert torch.equal(_whole(ours, queries, pattern != "both ways"), expected.expand(2, -1, -1, -1))


def test_a_cache_longer_than_what_was_seen_takes_the_whole_mask() -> None:
    mask = sigmoid_mask(2, 3, KEYS, q_offset=2)
    assert torch.equal(mask, sdpa_mask(2, 3, KEYS, q_offset=2, allow_is_causal_skip=False))
    assert sigmoid_mask(2, 3, KEYS, q_offset=torch.tensor(6)).dim() == 4
