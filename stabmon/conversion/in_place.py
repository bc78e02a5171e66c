"""``stabmon.convert``: softmax attention to sigmoid attention in place."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn

from stabmon.conversion import multihead, own, sdpa, timm, transformers, unknown, x_transformers
from stabmon.conversion.report import ConversionReport
from stabmon.conversion.work import Wanted, Work
from stabmon.errors import ModelError

log = logging.getLogger(__name__)

KINDS = (
    own.convert,
    transformers.convert,
    multihead.convert,
    timm.convert,
    x_transformers.convert,
    sdpa.convert,
    unknown.keep,
)
"""The kinds of models, in the order in which they take modules; a new kind is a file and a place here."""


def convert(
    model: nn.Module,
    *,
    bias: float | Literal["learnable"] | None = None,
    qk_norm: bool = False,
    layer_scale: float | None = None,
    max_length: int | None = None,
) -> ConversionReport:
    """Replace softmax by sigmoid in every attention of ``model`` that is understood, in place.

    Weights and their names stay as they are, so states saved before load into the converted model but for what is new,
    and those saved after load into a model that was converted with the same arguments. Convert before the optimizer
    is made, since it has to hold the new parameters, and before ``torch.compile``.

    Args:
        model: a model of Transformers or timm, or any that attends by ``nn.MultiheadAttention``, the layers of
            ``nn.Transformer``, or ``F.scaled_dot_product_attention``.
        bias: added to every logit: None for -log of the longest training length, a number, or "learnable": a parameter
            for each head that starts there.
        qk_norm: whether queries and keys go through an RMS norm over each head's channels, just before the attention.
        layer_scale: first gain of a LayerScale on each attention's branch, behind its output projection.
        max_length: longest training length in tokens, where it is another than the model says, or the model says none.

    Returns:
        A report of what was converted and what was kept and why; its ``undo`` makes the model what it was. What was
        kept is logged too.

    Raises:
        ModelError: nothing could be converted; the message says why. The model is as it was.
        ValueError: an argument is out of range.
    """
    work = Work(model, _checked(Wanted(bias, qk_norm, layer_scale, max_length)))
    try:
        for kind in KINDS:
            kind(work)
        if not work.converted:
            raise ModelError(_nothing(work))
    except BaseException:
        work.changes.close()
        raise
    report = ConversionReport(tuple(work.converted), tuple(work.kept), work.changes)
    if report.kept:
        log.warning("%s", report)
    return report


@contextmanager
def converted(
    model: nn.Module,
    *,
    bias: float | Literal["learnable"] | None = None,
    qk_norm: bool = False,
    layer_scale: float | None = None,
    max_length: int | None = None,
) -> Iterator[ConversionReport]:
    """Convert ``model`` as ``convert`` does, with its errors, and undo it at the end of the block."""
    report = convert(model, bias=bias, qk_norm=qk_norm, layer_scale=layer_scale, max_length=max_length)
    try:
        yield report
    finally:
        report.undo()


def _checked(wanted: Wanted) -> Wanted:
    bias, gain, length = wanted.bias, wanted.layer_scale, wanted.max_length
    if bias is not None and bias != "learnable" and not _is_finite(bias):
        raise ValueError(f"bias must be None, a finite number or 'learnable', got {bias!r}")
    if gain is not None and not _is_finite(gain):
        raise ValueError(f"layer_scale must be None or a finite number, got {gain!r}")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise ValueError(f"max_length must be a whole number of at least 1, got {length!r}")
    return wanted


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _nothing(work: Work) -> str:
    if not work.kept:
        return "no attention of a kind that stabmon.convert knows was found; docs/models.md lists them"
    reasons = "; ".join(f"{kept.module or 'the model'}: {kept.reason}" for kept in work.kept)
    return f"no attention could be converted: {reasons}"
