"""The glossary: every quantity that stabmon records, with its unit, its place and its formula.

A metric recorded per head is shown per layer through ``over_heads``: one number a layer exists for every metric.
"""

from enum import StrEnum
from typing import NamedTuple


class Place(StrEnum):
    """Where a metric is measured: once a head, a layer or a run."""

    HEAD = "head"
    LAYER = "layer"
    RUN = "run"


class OverHeads(StrEnum):
    """How one number a layer is made of one number a head."""

    ROOT_SUM_SQUARE = "root_sum_square"
    ROOT_MEAN_SQUARE = "root_mean_square"
    MEAN = "mean"
    MAX = "max"


class Metric(NamedTuple):
    """One recorded quantity.

    name: the key in stores, rules, tags and the HTTP API.
    unit: "1" for a pure number.
    healthy: the value a healthy run is near, where there is one; the page centres its colours on it.
    """

    name: str
    place: Place
    unit: str
    text: str
    over_heads: OverHeads = OverHeads.MEAN
    healthy: float | None = None


_H, _L, _R = Place.HEAD, Place.LAYER, Place.RUN
_ALL = (
    Metric(
        "attention_norm",
        _H,
        "1",
        "‖sigmoid(z + b) v‖ before the output projection: "
        "Frobenius over sequence and head dim, root mean square over samples",
        OverHeads.ROOT_SUM_SQUARE,
    ),
    Metric("output_rms", _H, "1", "root mean square of the attention output", OverHeads.ROOT_MEAN_SQUARE),
    Metric("row_mass", _H, "1", "mean over queries of the sum of a row's weights; softmax has 1", healthy=1.0),
    Metric("logit_max", _H, "1", "largest logit of the sampled rows, a lower bound of the true maximum", OverHeads.MAX),
    Metric("logit_mean", _H, "1", "mean logit z = q kᵀ·scale, before the bias"),
    Metric("logit_std", _H, "1", "standard deviation of the logits", OverHeads.ROOT_MEAN_SQUARE),
    Metric("saturated_fraction", _H, "1", "share of weights above 0.5"),
    Metric("dead_fraction", _H, "1", "share of weights below 1/(100 n)"),
    Metric("query_norm", _H, "1", "root mean square over tokens of ‖q‖", OverHeads.ROOT_MEAN_SQUARE),
    Metric("key_norm", _H, "1", "root mean square over tokens of ‖k‖", OverHeads.ROOT_MEAN_SQUARE),
    Metric("bias", _H, "1", "the bias b that is added to the logits"),
    Metric(
        "twin_ratio",
        _H,
        "1",
        "attention norm over that of softmax on the same q, k, v",
        OverHeads.ROOT_MEAN_SQUARE,
        healthy=1.0,
    ),
    Metric("best_bias", _H, "1", "the bias at which the mean row mass would be 1 on the same q, k"),
    Metric("keys", _L, "tokens", "number of keys of the longest call in the step"),
    Metric("residual_in", _L, "1", "root mean square of a block's input"),
    Metric("residual_out", _L, "1", "root mean square of a block's output"),
    Metric(
        "branch_ratio", _L, "1", "rms of the attention branch as added over rms of the stream it joins", healthy=1.0
    ),
    Metric("block_growth", _L, "1", "rms of a block's output over rms of its input", healthy=1.0),
    Metric("gradient_norm", _L, "1", "L2 norm of a block's gradients after backward, before clipping"),
    Metric("layer_scale", _L, "1", "mean absolute gain of the LayerScale on the attention branch"),
    Metric("loss", _R, "as logged", "the loss given to monitor.log"),
    Metric("total_gradient_norm", _R, "1", "L2 norm of all gradients after backward, before clipping"),
    Metric("learning_rate", _R, "1", "learning rate of the optimizer's first parameter group"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order in which they are shown."""
