"""TFLOP/s of published kernels, timed in separate runs, and ours over them.

Forward and backward, medians of ``triton.testing.do_bench`` on one H100 80GB HBM3 (torch 2.11, triton 3.6): bfloat16,
16384 tokens, width 2048, the shapes and FLOP of ``speed.py``. Another card, another day: figures drift by about 5 %,
so each is also given over cuDNN's softmax of its own run. FlashSigmoid is the kernel of arXiv 2409.04431;
FlashAttention-4 is softmax, in CuTe, by its path for capability 9.0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .speed import Cell


class Pair(NamedTuple):
    """TFLOP/s of one kernel in one cell."""

    forward: float
    backward: float


class Timed(NamedTuple):
    """TFLOP/s of one cell in one run."""

    cudnn: Pair
    attention_4: Pair
    sigmoid: Pair


MEASURED = {
    Cell(64, 2048, False): Timed(Pair(468, 413), Pair(509, 469), Pair(384, 281)),
    Cell(64, 8192, False): Timed(Pair(500, 461), Pair(552, 533), Pair(399, 310)),
    Cell(64, 16384, False): Timed(Pair(495, 443), Pair(556, 542), Pair(401, 311)),
    Cell(64, 2048, True): Timed(Pair(399, 315), Pair(385, 391), Pair(345, 241)),
    Cell(64, 8192, True): Timed(Pair(432, 397), Pair(529, 491), Pair(373, 297)),
    Cell(64, 16384, True): Timed(Pair(436, 441), Pair(531, 542), Pair(376, 314)),
    Cell(128, 2048, False): Timed(Pair(632, 484), Pair(646, 551), Pair(405, 306)),
    Cell(128, 8192, False): Timed(Pair(675, 532), Pair(674, 597), Pair(444, 337)),
    Cell(128, 16384, False): Timed(Pair(630, 542), Pair(696, 629), Pair(441, 342)),
    Cell(128, 2048, True): Timed(Pair(507, 387), Pair(530, 442), Pair(346, 259)),
    Cell(128, 8192, True): Timed(Pair(557, 512), Pair(609, 547), Pair(381, 313)),
    Cell(128, 16384, True): Timed(Pair(593, 534), Pair(661, 593), Pair(399, 334)),
}
PEERS = {"FlashSigmoid": "sigmoid", "FlashAttention-4": "attention_4"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return our speed over that of each peer as Markdown; ``rows`` are the cells of a result of ``bench``.

    Range and geometric mean over the cells of a head dim; then the mean of both over cuDNN in their own runs.
    """
    lines = [
        "| over | forward | backward | both over cuDNN in their own run: forward / backward |",
        "|---|---|---|---|",
    ]
    for name, peer in PEERS.items():
        for dim in (64, 128):
            of_dim = [row for row in rows if row["dim"] == dim]
            ways = [list(_ratios(of_dim, peer, way)) for way in ("forward", "backward")]
            plain = [_range([ratio for ratio, _ in ratios]) for ratios in ways]
            shared = " / ".join(f"×{_mean([ratio for _, ratio in ratios]):.2f}" for ratios in ways)
            lines.append(f"| {name}, d {dim} | {' | '.join(plain)} | {shared} |")
    return "\n".join(lines)


def _ratios(rows: Sequence[Mapping[str, Any]], peer: str, way: str) -> Iterator[tuple[float, float]]:
    """Yield our speed over the peer's in each cell, and the same of both speeds over cuDNN in their own run."""
    for row in rows:
        timed = MEASURED[Cell(row["dim"], row["length"], row["is_causal"])]
        ratio = row[way]["fixed"] / getattr(getattr(timed, peer), way)
        yield ratio, ratio * getattr(timed.cudnn, way) / row[way]["cudnn"]


def _range(ratios: Sequence[float]) -> str:
    return f"×{min(ratios):.2f} to ×{max(ratios):.2f}, mean ×{_mean(ratios):.2f}"


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))
