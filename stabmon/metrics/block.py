"""Metrics of one residual block: its stream, the branch that joins it, and its gradients; one number a layer."""

import numpy as np

from stabmon.metrics.declaration import (
    DataPath,
    Doubles,
    Metric,
    Per,
    Place,
    Raw,
    Reduction,
    Shown,
    When,
)
from stabmon.records import Attention

RAW = (
    Raw("branch", Per.ATTENTION, Reduction.ADD, ("branch_squares", "branch_elements")),
    Raw("stream_in", Per.ATTENTION, Reduction.ADD, ("in_squares", "in_elements")),
    Raw("stream_out", Per.BLOCK, Reduction.ADD, ("out_squares", "out_elements")),
    Raw("layer_scale", Per.ATTENTION, Reduction.SET),
    Raw("gradient_norm", Per.BLOCK, Reduction.SET, is_norm=True),
)


def _has_stream(attention: Attention) -> bool:
    return "stream" not in attention.unknown


def _has_branch(attention: Attention) -> bool:
    return _has_stream(attention) and "branch" not in attention.unknown


def _has_output(attention: Attention) -> bool:
    return _has_stream(attention) and "block" not in attention.unknown


def _rms(squares: Doubles, elements: Doubles) -> Doubles:
    root: Doubles = np.sqrt(squares / elements)
    return root


def _branch_ratio(
    branch_squares: Doubles, branch_elements: Doubles, in_squares: Doubles, in_elements: Doubles
) -> Doubles:
    return _rms(branch_squares, branch_elements) / _rms(in_squares, in_elements)


def _block_growth(out_squares: Doubles, out_elements: Doubles, in_squares: Doubles, in_elements: Doubles) -> Doubles:
    return _rms(out_squares, out_elements) / _rms(in_squares, in_elements)


METRICS = (
    Metric(
        "residual_in",
        Place.LAYER,
        "root mean square of the residual stream that the attention's branch joins; mostly the block's input",
        DataPath.INPUT,
        lambda in_squares, in_elements: _rms(in_squares, in_elements),
        counted=("in_elements",),
        where=_has_stream,
    ),
    Metric(
        "residual_out",
        Place.LAYER,
        "root mean square of a block's output",
        DataPath.BLOCK_OUTPUT,
        lambda out_squares, out_elements: _rms(out_squares, out_elements),
        counted=("out_elements",),
        where=_has_output,
    ),
    Metric(
        "branch_ratio",
        Place.LAYER,
        "rms of the attention branch as added over rms of the stream it joins",
        DataPath.BRANCH,
        _branch_ratio,
        counted=("branch_elements", "in_elements"),
        nonzero=("in_squares",),
        where=_has_branch,
        healthy=1.0,
        shown=Shown.PREFLIGHT | Shown.CURVE | Shown.HEATMAP,
    ),
    Metric(
        "block_growth",
        Place.LAYER,
        "rms of a block's output over rms of the stream that its attention joins",
        DataPath.BLOCK_OUTPUT,
        _block_growth,
        counted=("out_elements", "in_elements"),
        nonzero=("in_squares",),
        where=_has_output,
        healthy=1.0,
        shown=Shown.PREFLIGHT | Shown.CURVE,
    ),
    Metric(
        "gradient_norm",
        Place.LAYER,
        "L2 norm of a block's gradients after backward, before clipping",
        DataPath.GRADIENT,
        when=When.TRAINING,
        shown=Shown.CURVE,
    ),
    Metric(
        "layer_scale",
        Place.LAYER,
        "mean absolute gain of the LayerScale on the attention branch",
        DataPath.LAYER_SCALE,
        where=lambda attention: attention.layer_scale,
    ),
)
