"""Extra outputs of a call: statistics of logits and weights over sampled rows."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from .problem import Problem

STATISTICS = (
    "output_square_sum",
    "row_mass_sum",
    "rows",
    "logit_sum",
    "logit_square_sum",
    "pairs",
    "saturated",
    "dead",
    "logit_max",
)
"""The columns of ``AuxOutput.statistics``: all add over calls and samples but the last, which is a maximum."""

OFFSET_STEPS = 65536
"""``AuxRequest.offset`` is rounded down to this fraction, so that every backend samples the same rows."""
DEAD = 0.01
"""A weight below DEAD / n is dead: a hundredth of what a row of n equal weights that sums to one would have."""

Measure = Callable[[Problem], Callable[[Tensor], Tensor]]
"""Measures statistics beside a forward: called before its launch, on the problem as its kernel reads it; what that
returns is called right after the launch, on partial sums of Σ out² [B, H, parts] float32, and returns the statistics.
"""


class AuxRequest(NamedTuple):
    """A request for extra outputs.

    rows: query rows to sample per batch and head; 0 leaves only the output sums.
    offset: where in its stratum each sampled row lies, in [0, 1): row r is floor((r + offset) * N_q / rows).
    sequences: how many of the batch's sequences to sample, in strata as rows are; None for all. The others count
        nothing. Each costs a pass over its keys.
    """

    rows: int = 64
    offset: float = 0.5
    sequences: int | None = None


class AuxOutput(NamedTuple):
    """Extra outputs of one call; no gradient flows into them.

    statistics: [B, H, 9] float32, columns as in ``STATISTICS``. Logits are z = scale * q·k (+ ALiBi), before the bias;
        only valid keys of sampled rows count; ``rows`` counts sampled rows that have a valid key. Saturated: z + b > 0.
        Dead: a weight below 1/(100 n), with n the row's valid keys. Without sampled rows all but the first are 0 and
        ``logit_max`` is -inf. A monitor that asks for the same of this call gets the same tensor: do not write into it.
    backend: which backend computed the output.
    form: "tanh", "accurate" or "by head" (tanh where a head's bias allows it), how it computed sigmoid.
    """

    statistics: Tensor
    backend: str
    form: str
