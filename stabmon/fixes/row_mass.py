"""Row mass at another bias, and the bias at which a row sums to one, from what a run records. No torch."""

import math

import numpy as np

from stabmon import alibi

_SPREAD = np.linspace(-8.0, 8.0, 401)
_DENSITY = np.exp(-0.5 * _SPREAD**2) / np.exp(-0.5 * _SPREAD**2).sum()
_SEARCHED = 60
"""Halvings of the bisection."""


def mean_weight(bias: float, logit_mean: float = 0.0, logit_std: float = 0.0) -> float:
    """Return E sigmoid(z + bias) for logits z of a normal distribution."""
    z = np.clip(logit_mean + logit_std * _SPREAD + bias, -700.0, 700.0)
    return float((_DENSITY / (1.0 + np.exp(-z))).sum())


def row_mass_at(wanted: float, row_mass: float, bias: float, logit_mean: float = 0.0, logit_std: float = 0.0) -> float:
    """Return the row mass expected at the bias ``wanted``, where it is ``row_mass`` at ``bias``."""
    return row_mass * mean_weight(wanted, logit_mean, logit_std) / mean_weight(bias, logit_mean, logit_std)


def best_bias(row_mass: float, bias: float, logit_mean: float = 0.0, logit_std: float = 0.0) -> float | None:
    """Return the bias b* at which rows would sum to one, where they sum to ``row_mass`` at ``bias``.

    The row mass says how many keys count, m / E sigmoid(z + b), and b* solves keys · E sigmoid(z + b*) = 1. While no
    weight is saturated that is b - log(row mass); at b = 0, where all are near half, it is not. None where no bias can:
    the numbers are not finite, nothing is left to sum, or a single key counts.

    Measured against the root on the same logits of random queries and keys (n = 64 to 4096): within 0.01 at a standard
    deviation of 1, 0.1 at 2, 0.3 at 3.
    """
    if not all(map(math.isfinite, (row_mass, bias, logit_mean, logit_std))) or row_mass <= 0:
        return None
    keys = row_mass / max(mean_weight(bias, logit_mean, logit_std), 1e-300)
    if keys <= 1.0 + 1e-3:
        return None
    low, high = -700.0 - logit_mean, 40.0 - logit_mean + 8 * logit_std
    for _ in range(_SEARCHED):
        middle = (low + high) / 2
        if keys * mean_weight(middle, logit_mean, logit_std) > 1:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def alibi_bias(heads: int, length: float, is_causal: bool) -> float:
    """Return -log of the number of keys that ALiBi leaves a row of ``length`` keys; the median over heads.

    A head with slope m (``stabmon.alibi.slopes``) hides a key at distance d by a factor exp(-m d), so a row of a causal
    mask keeps Σ exp(-m d) = (1 - exp(-m n)) / (1 - exp(-m)) keys, however long it becomes; without the mask both sides
    count, each of half the length.
    """
    slopes = np.array(alibi.slopes(heads))
    side = length if is_causal else length / 2
    keys = (1 - np.exp(-slopes * side)) / (1 - np.exp(-slopes))
    return -float(np.median(np.log(keys if is_causal else np.maximum(2 * keys - 1, 1))))
