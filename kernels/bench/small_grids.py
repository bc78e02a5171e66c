"""Microseconds of one forward call where the grid does not fill the device: decoding, chunked prefill, small batches.

Calls are timed in CUDA graphs, where no launch waits for the host, over inputs that together exceed every second-level
cache, interleaved with torch's fused softmax attention. The floor is reading and writing each tensor once.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .. import choice
from ..api import sigmoid_attention
from ..problem import Backend, Problem
from .speed import PEERS
from .timing import CLEARED, machine, medians

BANDWIDTH = 4.0e6
"""Bytes a microsecond of the floor: what an H200's memory delivers to a large copy, about 4.3 TB/s, rounded down."""
SETS = 24
"""Most sets of inputs that a graph's calls go through."""


class Shape(NamedTuple):
    """One call in bf16: query [B, H, n_q, D], key and value [B, key_heads, n_k, D]."""

    batch: int
    heads: int
    key_heads: int
    n_q: int
    n_k: int
    dim: int
    is_causal: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of query, key, value and output."""
        return 4 * self.batch * self.dim * (self.heads * self.n_q + self.key_heads * self.n_k)

    def __str__(self) -> str:
        mask = " causal" if self.is_causal else ""
        return f"{self.batch}, {self.heads}:{self.key_heads}, {self.n_q}, {self.n_k}, {self.dim}{mask}"


GRIDS = {
    "decode": (
        Shape(1, 32, 8, 1, 8192, 128),
        Shape(8, 32, 8, 1, 8192, 128),
        Shape(32, 32, 8, 1, 4096, 128),
        Shape(1, 32, 8, 1, 131072, 128),
        Shape(1, 32, 8, 16, 8192, 128),
        Shape(1, 32, 8, 1, 8192, 64),
        Shape(1, 16, 16, 1, 32768, 64),
    ),
    "small": (
        Shape(1, 16, 16, 512, 8192, 64),
        Shape(1, 32, 8, 128, 16384, 128),
        Shape(1, 8, 8, 2048, 2048, 64, True),
        Shape(1, 12, 12, 1024, 1024, 64, True),
        Shape(4, 12, 12, 256, 256, 64, True),
        Shape(1, 16, 16, 1024, 1024, 128, True),
        Shape(2, 16, 16, 4096, 4096, 64, True),
    ),
}


def measure(grid: str, rounds: int) -> dict[str, Any]:
    """Return device, versions, and for each shape of ``grid`` microseconds by contender and what ``auto`` takes.

    Raises:
        RuntimeError: there is no CUDA device.
        ValueError: there is no such grid.
    """
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}; expected one of {', '.join(map(repr, GRIDS))}")
    if not torch.cuda.is_available():
        raise RuntimeError("bench needs a CUDA device, this machine has none")
    return {**machine(), "grid": grid, "rounds": rounds, "rows": [_row(shape, rounds) for shape in GRIDS[grid]]}


def _row(shape: Shape, rounds: int) -> dict[str, Any]:
    inputs = [_tensors(shape) for _ in range(max(2, min(SETS, -(-CLEARED // shape.bytes))))]
    ways = _contenders(shape, inputs[0])
    with torch.no_grad():
        graphs = {name: _graph(way, inputs) for name, way in ways.items()}
        found = medians({name: graph.replay for name, graph in graphs.items()}, rounds)
    chosen = choice.forward(_problem(shape, inputs[0]))
    times = {name: round(1000 * time / len(inputs), 2) for name, time in found.items()}
    return {**shape._asdict(), "microseconds": times, "auto": chosen, "floor": round(shape.bytes / BANDWIDTH, 1)}


def _tensors(shape: Shape) -> list[Tensor]:
    sizes = [(shape.heads, shape.n_q), (shape.key_heads, shape.n_k), (shape.key_heads, shape.n_k)]
    return [
        torch.randn(shape.batch, heads, length, shape.dim, device="cuda", dtype=torch.bfloat16)
        for heads, length in sizes
    ]


def _contenders(shape: Shape, tensors: list[Tensor]) -> dict[str, Callable[..., Tensor]]:
    dense: Backend = choice.gradients(_problem(shape, tensors))
    backends: tuple[Backend, ...] = ("auto", "split_keys", "triton")
    ours = {name: partial(_sigmoid, shape, name) for name in dict.fromkeys((*backends, dense))}
    return ours | {name: partial(_softmax, shape, peer) for name, peer in PEERS.items()}


def _problem(shape: Shape, tensors: list[Tensor]) -> Problem:
    query, key, value = tensors
    return Problem(query, key, value, scale=shape.dim**-0.5, is_causal=shape.is_causal)


def _sigmoid(shape: Shape, backend: Backend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    bias, gqa = -math.log(shape.n_k), shape.heads != shape.key_heads
    return sigmoid_attention(query, key, value, bias=bias, is_causal=shape.is_causal, enable_gqa=gqa, backend=backend)


def _softmax(shape: Shape, peer: SDPBackend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    gqa = shape.heads != shape.key_heads
    with sdpa_kernel(peer):
        return scaled_dot_product_attention(query, key, value, is_causal=shape.is_causal, enable_gqa=gqa)


def _graph(way: Callable[..., Tensor], inputs: list[list[Tensor]]) -> torch.cuda.CUDAGraph:
    """Return a call on each of ``inputs`` as one CUDA graph; the first call compiles, which a capture cannot hold."""
    way(*inputs[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for tensors in inputs:
            way(*tensors)
    return graph


def table(found: dict[str, Any]) -> str:
    """Return what ``measure`` found as Markdown."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield f"{found['device']}, {versions}, bf16, microseconds of a forward call in CUDA graphs"
    yield ""
    yield "| B, H:H_k, N_q, N_k, D | auto (kernel) | split | hopper | triton | cuDNN | FA2 | best peer / auto | bytes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in found["rows"]:
        times = row["microseconds"]
        shape = Shape(*(row[name] for name in Shape._fields))
        peer = min(times[name] for name in PEERS)
        columns = [f"{times[name]:.1f}" if name in times else "" for name in ("split_keys", "hopper", "triton", *PEERS)]
        cells = (shape, f"{times['auto']:.1f} ({row['auto']})", *columns, f"{peer / times['auto']:.2f}", row["floor"])
        yield f"| {' | '.join(map(str, cells))} |"
