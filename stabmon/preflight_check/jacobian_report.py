"""The Jacobian bound of each attention as data and as a table."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from stabmon.formatting import measured
from stabmon.records import Evidence, Record


class JacobianBound(Record):
    """A bound on ‖∂out/∂x‖₂ of one attention before its output projection, and its factors: each the largest head's.

    See ``stabmon.preflight_check.jacobian`` for the formula and its derivation. It is an upper bound, far above the
    norm itself: to be compared between layers, lengths and steps.
    """

    layer: str
    sigmoid: float
    """The bound; NaN for softmax attention."""
    softmax: float
    """The bound of softmax on the same queries, keys and values."""
    query_norm: float
    """‖W_q‖₂, by power iteration, as the next two."""
    key_norm: float
    value_norm: float
    coupling: float
    """‖W_qᵀW_k‖₂ with the logits' scale, times the mean of ‖x‖²; under RoPE ‖W_q‖₂‖W_k‖₂, under QK norm its slope."""
    coupling_max: float
    """The same with the largest ‖x‖², which is what softmax depends on."""
    input_mean_square: float
    """Mean over tokens of ‖x‖², of the sequence that has most."""
    input_max_square: float
    sigma: float
    """σ_∞ = n·sup sigmoid(z + b) over the logits that occur."""
    sigma_slope: float
    """σ'_∞ = n·sup sigmoid'(z + b)."""
    softmax_weight: float
    """n·sup softmax(z)."""
    softmax_column: float
    """Largest sum over queries of the weights that one key gets from softmax."""
    evidence: Evidence = Evidence.REMEMBERED
    """Of the sigmoid's form; that both are bounds is derived and tested."""


_COLUMNS = {
    "sigmoid": "sigmoid",
    "softmax": "softmax",
    "query_norm": "‖W_q‖",
    "key_norm": "‖W_k‖",
    "value_norm": "‖W_v‖",
    "coupling": "C",
    "input_mean_square": "mean\n‖x‖²",
    "input_max_square": "max\n‖x‖²",
    "sigma": "σ_∞",
    "sigma_slope": "σ'_∞",
}


def jacobian_table(bounds: Sequence[JacobianBound]) -> Table:
    """Return one row a layer."""
    title = "Bound on the Jacobian (its form is remembered from the paper, not read there)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", no_wrap=True)
    for name in _COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    for bound in bounds:
        table.add_row(bound.layer, *(measured(getattr(bound, name)) for name in _COLUMNS))
    return table
