"""The arithmetic after the copy: one raw buffer becomes one row of series, on the host, all heads at once."""

import numpy as np
import numpy.typing as npt

from stabmon.series import MISSING, Floats, is_missing
from stabmon.stats.plan import Plan

Doubles = npt.NDArray[np.float64]


def finalise(raw: Floats, plan: Plan) -> Floats:
    """Return the row of ``plan.layout`` that ``raw`` [plan.width] stands for; MISSING where nothing was counted."""
    row = np.full(plan.layout.width, MISSING, dtype=np.float32)
    with np.errstate(all="ignore"):
        _heads(row, raw, plan)
        _layers(row, raw, plan)
        _run_wide(row, raw, plan)
    return row


def _heads(row: Floats, raw: Floats, plan: Plan) -> None:
    value = {name: raw[at].astype(np.float64) for name, at in plan.gather.head.items()}
    samples, rows, pairs = value["samples"], value["rows"], value["pairs"]
    power = value["output_square_sum"]
    mean = value["logit_sum"] / pairs
    variance = value["logit_square_sum"] / pairs - mean**2
    _put(row, plan, "attention_norm", np.sqrt(power / samples), samples)
    _put(row, plan, "output_rms", np.sqrt(power / value["output_elements"]), samples)
    _put(row, plan, "row_mass", value["row_mass_sum"] / rows, rows)
    _put(row, plan, "logit_max", value["logit_max"], pairs)
    _put(row, plan, "logit_mean", mean, pairs)
    _put(row, plan, "logit_std", np.sqrt(np.where(variance < 0, 0.0, variance)), pairs)
    _put(row, plan, "saturated_fraction", value["saturated"] / pairs, pairs)
    _put(row, plan, "dead_fraction", value["dead"] / pairs, pairs)
    _put(row, plan, "query_norm", np.sqrt(value["query_squares"] / value["query_tokens"]), value["query_tokens"])
    _put(row, plan, "key_norm", np.sqrt(value["key_squares"] / value["key_tokens"]), value["key_tokens"])
    _put_set(row, plan, "bias", raw[plan.gather.sigmoid])
    if "twin_ratio" in plan.columns:
        _put(row, plan, "twin_ratio", np.sqrt(power / value["twin"]), samples)
        _put_set(row, plan, "best_bias", raw[plan.gather.best_bias])


def _layers(row: Floats, raw: Floats, plan: Plan) -> None:
    value = {name: raw[at].astype(np.float64) for name, at in plan.gather.layer.items()}
    into, out, branch = (
        np.sqrt(value[f"{name}_squares"] / value[f"{name}_elements"]) for name in ("stream_in", "stream_out", "branch")
    )
    has_in, has_out, has_branch = (value[f"{name}_elements"] > 0 for name in ("stream_in", "stream_out", "branch"))
    _put(row, plan, "keys", value["keys"], value["keys"] >= 0)
    _put(row, plan, "residual_in", into, has_in)
    _put(row, plan, "residual_out", out, has_out)
    _put(row, plan, "branch_ratio", branch / into, has_in & has_branch)
    _put(row, plan, "block_growth", out / into, has_in & has_out)
    if "gradient_norm" in plan.columns:
        _put_set(row, plan, "gradient_norm", raw[plan.gather.layer["gradient"]])
    if "layer_scale" in plan.columns:
        _put_set(row, plan, "layer_scale", raw[plan.gather.gain])


def _run_wide(row: Floats, raw: Floats, plan: Plan) -> None:
    if "total_gradient_norm" in plan.columns:
        norms = raw[plan.gradients]
        known = norms[~is_missing(norms)].astype(np.float64)
        _put(row, plan, "total_gradient_norm", np.sqrt((known**2).sum()), np.array(known.size))
    if "learning_rate" in plan.columns:
        _put_set(row, plan, "learning_rate", raw[plan.learning_rate])
    for name, at in plan.logged.items():
        _put_set(row, plan, name, raw[at])


def _put(row: Floats, plan: Plan, metric: str, values: Doubles, counted: npt.NDArray[np.generic]) -> None:
    """Write ``values`` where ``counted`` is more than nothing; a NaN count says that something was measured."""
    measured = ~(np.asarray(counted) == 0)
    row[plan.columns[metric]] = np.where(measured, values.astype(np.float32), MISSING)


def _put_set(row: Floats, plan: Plan, metric: str, values: Floats) -> None:
    """Write values that are whole already; they stay float32, so that MISSING keeps its bits."""
    if metric in plan.columns:
        row[plan.columns[metric]] = values
