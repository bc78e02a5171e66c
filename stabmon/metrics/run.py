"""Metrics of the whole run: one number a step."""

import numpy as np

from stabmon.metrics.declaration import DataPath, Doubles, Metric, Per, Place, Raw, Reduction, When

RAW = (
    Raw("other_gradient_norm", Per.RUN, Reduction.SET, is_norm=True),
    Raw("learning_rate", Per.RUN, Reduction.SET),
    Raw("non_finite_rank", Per.RUN, Reduction.SET),
    Raw("non_finite_ranks", Per.RUN, Reduction.SET),
    Raw("reduction_seconds", Per.RUN, Reduction.SET),
    Raw("reduction_bytes", Per.RUN, Reduction.SET),
)


def _total_gradient_norm(gradient_norm: Doubles, other_gradient_norm: Doubles) -> Doubles:
    norms = np.concatenate([gradient_norm, other_gradient_norm])
    root: Doubles = np.sqrt((norms**2).sum())
    return root


METRICS = (
    Metric(
        "loss",
        Place.RUN,
        "the loss given to monitor.log",
        DataPath.LOSS,
        unit="as logged",
        when=When.LOGGED,
    ),
    Metric(
        "softmax_gap",
        Place.RUN,
        "loss of a shadow of the model less that of its softmax twin, mean of the last 16 batches of a live race",
        DataPath.LOSS,
        unit="as logged",
        when=When.LOGGED,
    ),
    Metric(
        "softmax_gap_low",
        Place.RUN,
        "lower end of that gap's 95 % interval, the lowest of three in a row",
        DataPath.LOSS,
        unit="as logged",
        when=When.LOGGED,
    ),
    Metric(
        "race_cost",
        Place.RUN,
        "time of a live race over that of the training without it",
        DataPath.LOSS,
        when=When.LOGGED,
    ),
    Metric(
        "total_gradient_norm",
        Place.RUN,
        "L2 norm of all gradients after backward, before clipping",
        DataPath.GRADIENT,
        _total_gradient_norm,
        counted=("gradient_norm", "other_gradient_norm"),
        when=When.TRAINING,
    ),
    Metric(
        "learning_rate",
        Place.RUN,
        "learning rate of the optimizer's first parameter group",
        DataPath.LOSS,
        when=When.OPTIMIZER,
    ),
    Metric(
        "non_finite_rank",
        Place.RUN,
        "lowest rank whose own forward pass, or logged number, is NaN or infinite",
        DataPath.LOSS,
        when=When.DISTRIBUTED,
    ),
    Metric(
        "non_finite_ranks",
        Place.RUN,
        "number of ranks whose own forward pass, or logged number, is NaN or infinite",
        DataPath.LOSS,
        when=When.DISTRIBUTED,
    ),
    Metric(
        "reduction_seconds",
        Place.RUN,
        "time in which the numbers of all ranks were put together, outside the training's thread; it includes the wait "
        "for the slowest rank",
        DataPath.LOSS,
        unit="s",
        when=When.DISTRIBUTED,
    ),
    Metric(
        "reduction_bytes",
        Place.RUN,
        "bytes that each rank sent to the others for the sample",
        DataPath.LOSS,
        unit="bytes",
        when=When.DISTRIBUTED,
    ),
)
