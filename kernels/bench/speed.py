"""Shapes to time, and what the contenders reach in each: ours and torch's fused softmax attention, interleaved.

FLOP = 4·B·H·N²·D forward, half when causal, 2.5 times that backward.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ..auxiliary import AuxRequest
from .timing import Calls, medians

TOKENS, WIDTH = 16384, 2048
PEERS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
REQUESTS = {"off": None, "sums": AuxRequest(rows=0), "rows": AuxRequest(rows=16, sequences=1)}
"""Statistics that a call may ask for: none, the output's sums alone, and those with the rows that a monitor samples."""
FINER = 2
"""Factor of the rounds for the cost of statistics, a difference of microseconds."""
GRAPHED = 10
"""Calls in one CUDA graph."""


class Cell(NamedTuple):
    """One shape to time: TOKENS tokens of WIDTH features, cut into sequences of ``length`` and heads of ``dim``."""

    dim: int
    length: int
    is_causal: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[B, H, N, D]."""
        return max(1, TOKENS // self.length), WIDTH // self.dim, self.length, self.dim

    @property
    def flops(self) -> float:
        """Floating-point operations of one forward pass."""
        batch, heads, length, dim = self.shape
        return 4.0 * batch * heads * length * length * dim / (2 if self.is_causal else 1)

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Return the cell of a name such as d128-causal-2048.

        Raises:
            ValueError: it looks otherwise.
        """
        found = re.fullmatch(r"d([1-9]\d*)-(full|causal)-([1-9]\d*)", text)
        if found is None:
            raise ValueError(f"a cell must look like d128-causal-2048 or d64-full-8192, got {text!r}")
        return cls(int(found[1]), int(found[3]), found[2] == "causal")


GRID = tuple(Cell(d, n, causal) for d in (64, 128) for causal in (False, True) for n in (2048, 8192, 16384))
STATISTICS_GRID = tuple(Cell(d, n, causal) for n in (4096, 8192) for d in (64, 128) for causal in (False, True))
"""Cells whose cost of statistics is measured in CUDA graphs."""


def cell_name(row: Mapping[str, Any]) -> str:
    """Return what the cell of a row of results is called on the terminal: d 64 causal n 2048."""
    return f"d {row['dim']} {'causal' if row['is_causal'] else 'full'} n {row['length']}"


def speeds(cell: Cell, rounds: int, dtype: torch.dtype, attend: Callable[..., Any]) -> dict[str, Any]:
    """Return TFLOP/s of every contender, forward and backward, and what statistics add to ours, through the operator.

    Ours are fixed (a number as bias) and learnable (a tensor that wants a gradient).
    """
    tensors = _tensors(cell, dtype)
    grad = torch.randn(cell.shape, device="cuda").to(dtype)
    bias = torch.full(cell.shape[1:2], -math.log(cell.length), device="cuda", requires_grad=True)
    ways = _contenders(cell, tensors, bias, attend)
    leaves = {name: [*tensors, bias] if name == "learnable" else tensors for name in ways}
    with torch.no_grad():
        forward = medians(ways, rounds)
        statistics = _shares(medians(_requests(cell, tensors, attend), FINER * rounds))
    backward = medians({name: _gradient(way(), leaves[name], grad) for name, way in ways.items()}, rounds)
    return {
        **cell._asdict(),
        "forward": {name: round(cell.flops / time / 1e9, 1) for name, time in forward.items()},
        "backward": {name: round(2.5 * cell.flops / time / 1e9, 1) for name, time in backward.items()},
        "statistics": statistics,
    }


def cost_of_statistics(cell: Cell, rounds: int, dtype: torch.dtype, attend: Callable[..., Any]) -> dict[str, Any]:
    """Return microseconds of a forward pass, and the shares that statistics add, without the host: in CUDA graphs."""
    tensors = _tensors(cell, dtype)
    with torch.no_grad():
        calls = _requests(cell, tensors, attend)
        found = medians({name: _graph(call).replay for name, call in calls.items()}, FINER * rounds)
    return {**cell._asdict(), "microseconds": round(1000 * found["off"] / GRAPHED, 1), **_shares(found)}


def _tensors(cell: Cell, dtype: torch.dtype) -> list[Tensor]:
    """Return query, key and value."""
    return [torch.randn(cell.shape, device="cuda").to(dtype).requires_grad_() for _ in range(3)]


def _contenders(
    cell: Cell, tensors: list[Tensor], bias: Tensor, attend: Callable[..., Any]
) -> dict[str, Callable[[], Tensor]]:
    ours = {"fixed": -math.log(cell.length), "learnable": bias}
    ways: dict[str, Callable[[], Tensor]] = {
        name: partial(attend, *tensors, bias=given, is_causal=cell.is_causal) for name, given in ours.items()
    }
    peers = {name: partial(softmax, peer, *tensors, is_causal=cell.is_causal) for name, peer in PEERS.items()}
    return ways | peers


def softmax(peer: SDPBackend, query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Tensor:
    """Return torch's softmax attention by the kernels of ``peer``."""
    with sdpa_kernel(peer):
        return scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def _gradient(output: Tensor, leaves: list[Tensor], grad: Tensor) -> Callable[[], object]:
    return partial(torch.autograd.grad, output, leaves, grad, retain_graph=True)


def _requests(cell: Cell, tensors: list[Tensor], attend: Callable[..., Any]) -> Calls:
    call = partial(attend, *tensors, bias=-math.log(cell.length), is_causal=cell.is_causal)
    return {name: partial(call, return_aux=request) for name, request in REQUESTS.items()}


def _shares(times: dict[str, float]) -> dict[str, float]:
    """Return by what share of the forward's time the output sums, and sums and sampled rows, lengthen it."""
    return {name: round(times[name] / times["off"] - 1, 4) for name in ("sums", "rows")}


def _graph(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Return GRAPHED calls as one CUDA graph; the first call compiles, which a capture could not hold."""
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(GRAPHED):
            call()
    return graph
