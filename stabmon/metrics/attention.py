"""Metrics of one attention: its output, weights, logits, queries and keys, most of them one number a head."""

import numpy as np

from stabmon.metrics.declaration import (
    DataPath,
    Doubles,
    Metric,
    OverHeads,
    Per,
    Place,
    Raw,
    Reduction,
    Shown,
    When,
)
from stabmon.records import Attention

STATISTICS = Raw(
    "statistics",
    Per.HEAD,
    Reduction.ADD,
    ("output_square_sum", "row_mass_sum", "rows", "logit_sum", "logit_square_sum", "pairs", "saturated", "dead"),
)
"""The columns of the kernels' statistics that add, in their order."""
COUNTS = Raw("counts", Per.ATTENTION, Reduction.ADD, ("samples", "output_elements", "query_tokens", "key_tokens"))
"""Sequences; output elements of one head; tokens whose query and key norms were added."""

RAW = (
    STATISTICS,
    Raw("query_squares", Per.HEAD, Reduction.ADD),
    Raw("key_squares", Per.HEAD, Reduction.ADD),
    COUNTS,
    Raw("softmax", Per.HEAD, Reduction.ADD, ("entropy_sum", "largest_weight_sum")),
    Raw("twin_square_sum", Per.HEAD, Reduction.ADD),
    Raw("logit_max", Per.HEAD, Reduction.MAX),
    Raw("keys", Per.ATTENTION, Reduction.MAX),
    Raw("logit_max_rank", Per.ATTENTION, Reduction.SET),
    Raw("bias", Per.HEAD, Reduction.SET),
    Raw("best_bias", Per.HEAD, Reduction.SET),
)


def _root_ratio(squares: Doubles, count: Doubles) -> Doubles:
    root: Doubles = np.sqrt(squares / count)
    return root


def _logit_std(logit_sum: Doubles, logit_square_sum: Doubles, pairs: Doubles) -> Doubles:
    mean = logit_sum / pairs
    variance = logit_square_sum / pairs - mean**2
    root: Doubles = np.sqrt(np.where(variance < 0, 0.0, variance))  # rounding can make it negative
    return root


def _has_bias(attention: Attention) -> bool:
    return attention.kind != "softmax"


def _is_softmax(attention: Attention) -> bool:
    return attention.kind == "softmax"


METRICS = (
    Metric(
        "attention_norm",
        Place.HEAD,
        "‖sigmoid(z + b) v‖ before the output projection: "
        "Frobenius over sequence and head dim, root mean square over samples",
        DataPath.OUTPUT,
        lambda output_square_sum, samples: _root_ratio(output_square_sum, samples),
        counted=("samples",),
        over_heads=OverHeads.ROOT_SUM_SQUARE,
        shown=Shown.PREFLIGHT | Shown.CURVE | Shown.HEATMAP,
    ),
    Metric(
        "twin_ratio",
        Place.HEAD,
        "attention norm over that of softmax on the same q, k, v",
        DataPath.OUTPUT,
        lambda output_square_sum, twin_square_sum: _root_ratio(output_square_sum, twin_square_sum),
        counted=("samples",),
        nonzero=("twin_square_sum",),
        over_heads=OverHeads.ROOT_MEAN_SQUARE,
        healthy=1.0,
        when=When.PREFLIGHT,
        shown=Shown.PREFLIGHT,
    ),
    Metric(
        "output_rms",
        Place.HEAD,
        "root mean square of the attention output",
        DataPath.OUTPUT,
        lambda output_square_sum, output_elements: _root_ratio(output_square_sum, output_elements),
        counted=("samples",),
        over_heads=OverHeads.ROOT_MEAN_SQUARE,
    ),
    Metric(
        "row_mass",
        Place.HEAD,
        "mean over queries of the sum of a row's weights; softmax has 1",
        DataPath.WEIGHTS,
        lambda row_mass_sum, rows: row_mass_sum / rows,
        counted=("rows",),
        healthy=1.0,
        shown=Shown.PREFLIGHT | Shown.CURVE | Shown.HEATMAP,
    ),
    Metric(
        "logit_max",
        Place.HEAD,
        "largest logit of the sampled rows, a lower bound of the true maximum",
        DataPath.LOGITS,
        counted=("pairs",),
        over_heads=OverHeads.MAX,
        shown=Shown.CURVE,
    ),
    Metric(
        "logit_max_rank",
        Place.LAYER,
        "rank of the process with the layer's largest logit",
        DataPath.LOGITS,
        when=When.DISTRIBUTED,
    ),
    Metric(
        "logit_mean",
        Place.HEAD,
        "mean logit z = q kᵀ·scale, before the bias",
        DataPath.LOGITS,
        lambda logit_sum, pairs: logit_sum / pairs,
        counted=("pairs",),
    ),
    Metric(
        "logit_std",
        Place.HEAD,
        "standard deviation of the logits",
        DataPath.LOGITS,
        _logit_std,
        counted=("pairs",),
        over_heads=OverHeads.ROOT_MEAN_SQUARE,
        shown=Shown.PREFLIGHT,
    ),
    Metric(
        "saturated_fraction",
        Place.HEAD,
        "share of weights above 0.5",
        DataPath.WEIGHTS,
        lambda saturated, pairs: saturated / pairs,
        counted=("pairs",),
        shown=Shown.CURVE,
    ),
    Metric(
        "dead_fraction",
        Place.HEAD,
        "share of weights below 1/(100 n)",
        DataPath.WEIGHTS,
        lambda dead, pairs: dead / pairs,
        counted=("pairs",),
    ),
    Metric(
        "entropy",
        Place.HEAD,
        "mean entropy of a row of softmax weights: 0 where a query looks at one key, log n where at all alike",
        DataPath.WEIGHTS,
        lambda entropy_sum, rows: entropy_sum / rows,
        counted=("rows",),
        unit="nats",
        where=_is_softmax,
    ),
    Metric(
        "largest_weight",
        Place.HEAD,
        "mean over queries of the largest softmax weight of a row",
        DataPath.WEIGHTS,
        lambda largest_weight_sum, rows: largest_weight_sum / rows,
        counted=("rows",),
        where=_is_softmax,
    ),
    Metric(
        "query_norm",
        Place.HEAD,
        "root mean square of ‖q‖ over evenly spaced tokens, at least as many as rows are sampled",
        DataPath.PROJECTION,
        lambda query_squares, query_tokens: _root_ratio(query_squares, query_tokens),
        counted=("query_tokens",),
        over_heads=OverHeads.ROOT_MEAN_SQUARE,
    ),
    Metric(
        "key_norm",
        Place.HEAD,
        "root mean square of ‖k‖ over evenly spaced tokens, at least as many as rows are sampled",
        DataPath.PROJECTION,
        lambda key_squares, key_tokens: _root_ratio(key_squares, key_tokens),
        counted=("key_tokens",),
        over_heads=OverHeads.ROOT_MEAN_SQUARE,
    ),
    Metric(
        "bias",
        Place.HEAD,
        "the bias b that is added to the logits",
        DataPath.BIAS,
        where=_has_bias,
        shown=Shown.PREFLIGHT,
    ),
    Metric(
        "best_bias",
        Place.HEAD,
        "the bias at which the mean row mass would be 1 on the same q, k",
        DataPath.WEIGHTS,
        when=When.PREFLIGHT,
        shown=Shown.PREFLIGHT,
    ),
    Metric(
        "keys",
        Place.LAYER,
        "number of keys of the longest call in the step",
        DataPath.INPUT,
        unit="tokens",
    ),
)
