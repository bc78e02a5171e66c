"""Real images that a package ships: scikit-learn's 1797 handwritten digits, scanned from forms and reduced to 8 x 8.

They are the test set of the UCI collection "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from stabmon.errors import ConfigError

CLASSES = 10
VALID_SHARE = 0.2
"""Share of the images, at the end, that training never sees; neighbours are by the same hand, so most hands are new."""


class Images(NamedTuple):
    """pixels: [number, 8, 8] float32 with mean 0 and standard deviation 1 over all; labels: [number] int64."""

    pixels: Tensor
    labels: Tensor


class Digits(NamedTuple):
    """The images, in the order in which the package ships them."""

    train: Images
    valid: Images


@lru_cache(maxsize=1)
def scanned_digits() -> Digits:
    """Return the digits.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError(
            f"the vision workload reads scikit-learn's digits, and scikit-learn cannot be imported ({error}); "
            "pip install 'stabmon[workloads]'"
        ) from error
    grey, classes = load_digits(return_X_y=True)
    pixels = torch.tensor(grey, dtype=torch.float32).reshape(-1, 8, 8)
    pixels = (pixels - pixels.mean()) / pixels.std()
    labels, cut = torch.tensor(classes), round(len(pixels) * (1 - VALID_SHARE))
    return Digits(Images(pixels[:cut], labels[:cut]), Images(pixels[cut:], labels[cut:]))
