"""Peers of other packages, where they are installed: FlashAttention-4 and FlashInfer, as they document themselves."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Way = Callable[..., Tensor]
NAMES = ("fa4", "flashinfer")
WORKSPACE = 128 * 2**20
"""Bytes that FlashInfer's wrapper is given."""


def installed(shape: Any, table: Tensor | None) -> dict[str, Way]:
    """Return the peers that take calls of ``shape``, a ``small_grids.Shape``, in bf16, by the pages of ``table``."""
    ways: dict[str, Way] = {}
    if find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None:
        ways["fa4"] = _flash_attention_4(shape, table)
    if find_spec("flashinfer") is not None and shape.n_q == 1 and table is not None:
        ways["flashinfer"] = _flash_infer(shape, table)
    return ways


def _flash_attention_4(shape: Any, table: Tensor | None) -> Way:
    module = import_module("flash_attn.cute")

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        if table is None:
            return _output(module.flash_attn_func(q, k, v, causal=shape.is_causal))
        lengths = table.new_full((shape.batch,), shape.n_k)
        return _output(module.flash_attn_varlen_func(q, k, v, seqused_k=lengths, page_table=table, causal=True))

    return attend


def _flash_infer(shape: Any, table: Tensor) -> Way:
    module = import_module("flashinfer")
    workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=table.device)
    wrapper = module.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD")
    pages = table.size(1)
    starts = torch.arange(shape.batch + 1, dtype=torch.int32, device=table.device) * pages
    last = torch.full((shape.batch,), shape.page, dtype=torch.int32, device=table.device)
    wrapper.plan(
        starts, table.flatten(), last, shape.heads, shape.key_heads, shape.dim, shape.page,
        q_data_type=torch.bfloat16,
    )  # fmt: skip

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> Tensor:
        found: Tensor = wrapper.run(query[:, :, 0], (key.transpose(1, 2), value.transpose(1, 2)))
        return found

    return attend


def _output(given: Any) -> Tensor:
    """Return the output of a function that may return more with it."""
    output: Tensor = given if isinstance(given, Tensor) else given[0]
    return output
