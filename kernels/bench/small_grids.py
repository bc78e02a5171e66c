"""Microseconds of one forward call where the grid does not fill the device: decoding, chunked prefill, small batches.

Calls are timed in CUDA graphs, where no launch waits for the host, over inputs that together exceed every second-level
cache, interleaved with torch's fused softmax attention, and with FlashAttention-4 and FlashInfer where they are
installed. The floor is reading and writing each tensor once. Rows with pages read a cache through a page table in
random order; torch's own functions take none, so there the peer is ours on the same keys side by side.
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
from . import packages
from .speed import PEERS
from .timing import CLEARED, machine, medians

BANDWIDTH = 4.0e6
"""Bytes a microsecond of the floor: what an H200's memory delivers to a large copy, about 4.3 TB/s, rounded down."""
_TITLES = {"split_keys": "split", "cudnn": "cuDNN", "flash": "FA2", "fa4": "FA4", "flashinfer": "FlashInfer"}
SETS = 24
"""Most sets of inputs that a graph's calls go through."""


class Shape(NamedTuple):
    """One call in bf16: query [B, H, n_q, D], key and value [B, key_heads, n_k, D], or in pages of ``page`` keys."""

    batch: int
    heads: int
    key_heads: int
    n_q: int
    n_k: int
    dim: int
    is_causal: bool = False
    page: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of query, key, value and output."""
        return 4 * self.batch * self.dim * (self.heads * self.n_q + self.key_heads * self.n_k)

    def __str__(self) -> str:
        mask = (" causal" if self.is_causal else "") + (f" pages of {self.page}" if self.page else "")
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
        Shape(8, 32, 8, 1, 8192, 128, page=16),
        Shape(8, 32, 8, 1, 8192, 128, page=256),
        Shape(32, 32, 8, 1, 4096, 128, page=16),
        Shape(32, 32, 8, 4, 4096, 128, True, page=64),
        Shape(1, 32, 8, 1, 131072, 128, page=64),
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
    table = _table(shape) if shape.page else None
    failed: dict[str, str] = {}
    with torch.no_grad():
        graphs = {name: _graph(way, inputs) for name, way in _contenders(shape, inputs[0], table).items()}
        try:
            graphs |= {name: _graph(way, inputs) for name, way in packages.installed(shape, table).items()}
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # of another package's release
            failed["packages"] = f"{type(error).__name__}: {error}"
        found = medians({name: graph.replay for name, graph in graphs.items()}, rounds)
    chosen = "split_keys" if shape.page else choice.forward(_problem(shape, inputs[0]))
    times = {name: round(1000 * time / len(inputs), 2) for name, time in found.items()}
    return {
        **shape._asdict(),
        "microseconds": times,
        "auto": chosen,
        "floor": round(shape.bytes / BANDWIDTH, 1),
    } | failed


def _tensors(shape: Shape) -> list[Tensor]:
    if shape.page:
        query = torch.randn(shape.batch, shape.heads, shape.n_q, shape.dim, device="cuda", dtype=torch.bfloat16)
        pool = shape.batch * shape.n_k // shape.page, shape.page, shape.key_heads, shape.dim
        return [query, *(torch.randn(pool, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(2))]
    sizes = [(shape.heads, shape.n_q), (shape.key_heads, shape.n_k), (shape.key_heads, shape.n_k)]
    return [
        torch.randn(shape.batch, heads, length, shape.dim, device="cuda", dtype=torch.bfloat16)
        for heads, length in sizes
    ]


def _table(shape: Shape) -> Tensor:
    """Return the pages of each sequence, in random order."""
    pages = torch.randperm(shape.batch * shape.n_k // shape.page, device="cuda", dtype=torch.int32)
    return pages.view(shape.batch, -1)


def _contenders(shape: Shape, tensors: list[Tensor], table: Tensor | None) -> dict[str, Callable[..., Tensor]]:
    if table is not None:
        return {"auto": partial(_paged, shape, table), "side by side": partial(_side_by_side, shape)}
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


def _paged(shape: Shape, table: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return sigmoid_attention(
        query, key, value, bias=-math.log(shape.n_k), is_causal=shape.is_causal, enable_gqa=True, page_table=table
    )


def _side_by_side(shape: Shape, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention to the same pool as if it were [B, H_k, n_k, D] of a layout [B, n_k, H_k, D]."""
    shaped = (shape.batch, shape.n_k, shape.key_heads, shape.dim)
    keys, values = (x.transpose(1, 2).reshape(shaped).transpose(1, 2) for x in (key, value))
    return _sigmoid(shape, "split_keys", query, keys, values)


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
    names = ["split_keys", "hopper", "triton", *PEERS, *packages.NAMES, "side by side"]
    names = [name for name in names if any(name in row["microseconds"] for row in found["rows"])]
    header = ["B, H:H_k, N_q, N_k, D", "auto (kernel)", *(_TITLES.get(name, name) for name in names)]
    yield f"| {' | '.join([*header, 'best peer / auto', 'bytes'])} |"
    yield "|---" * (len(header) + 2) + "|"
    for row in found["rows"]:
        times = row["microseconds"]
        shape = Shape(*(row[name] for name in Shape._fields if name in row))
        peers = [times[name] for name in (*PEERS, *packages.NAMES) if name in times]
        columns = [f"{times[name]:.1f}" if name in times else "" for name in names]
        ratio = f"{min(peers) / times['auto']:.2f}" if peers else ""
        cells = (shape, f"{times['auto']:.1f} ({row['auto']})", *columns, ratio, row["floor"])
        yield f"| {' | '.join(map(str, cells))} |"
