"""A metric of its own file: one declaration, from raw inputs that exist."""

from stabmon.metrics import DataPath, Metric, Place, Shown

MASS_PER_LOGIT = Metric(
    "mass_per_logit",
    Place.HEAD,
    "sum of weights over the root mean square of the logits",
    DataPath.WEIGHTS,
    lambda row_mass_sum, logit_square_sum, pairs: row_mass_sum / (logit_square_sum / pairs) ** 0.5,
    counted=("pairs",),
    shown=Shown.PREFLIGHT | Shown.CURVE,
)
