"""A heatmap as a PNG: colour is the logarithm of a ratio to a reference, or of the value itself where nobody knows one.

NaN and missing values have colours of their own.
"""

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from stabmon.series import Floats, is_missing

DECADES = 2.0
"""The ends of the colours: a hundredth of the reference and a hundred times it."""

_SHADES = 201
_NOT_FINITE, _MISSING = _SHADES, _SHADES + 1
_ANCHORS = np.array([(8, 29, 88), (49, 130, 189), (242, 240, 235), (230, 110, 40), (103, 0, 13)], dtype=np.float64)
"""Deep blue, blue, near white at the reference, orange, deep red: distinct also with a colour-vision deficiency."""

LOWEST, HIGHEST = 1e-3, 1e5
"""The ends of the colours where there is no reference: the same in every run, so that two runs can be compared."""

_RISING = np.array([(0, 34, 78), (67, 78, 108), (125, 124, 120), (187, 173, 108), (254, 232, 56)], dtype=np.float64)
"""Dark blue over grey to yellow, as the page has it where there is no healthy value."""

RISING_SCALE = (
    "Dark blue is 0.001 or less, yellow 100,000 or more, by decades; magenta is NaN or an infinity, grey was not "
    "measured."
)

SCALE = (
    "White is the reference, blue below it (deepest at a hundredth), red above it (deepest at a hundred times); "
    "magenta is NaN or an infinity, grey was not measured."
)


def _palette(anchors: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    at = np.linspace(0, len(anchors) - 1, _SHADES)
    shades = np.stack([np.interp(at, np.arange(len(anchors)), channel) for channel in anchors.T], axis=1)
    return np.vstack([shades.round(), (255, 0, 255), (128, 128, 128)]).astype(np.uint8)


PALETTE = _palette(_ANCHORS)
"""Colours by index, [203, 3]: the shades, then the colour of NaN and infinities, then that of missing values."""
RISING = _palette(_RISING)
"""The same for values without a reference."""


def indices(values: Floats, reference: float | None) -> npt.NDArray[np.uint8]:
    """Return the palette's index of each of ``values`` (any shape); what is not above zero has the lowest shade."""
    if reference is None:
        low, high = LOWEST, HIGHEST
    else:
        low, high = reference * 10**-DECADES, reference * 10**DECADES
    with np.errstate(all="ignore"):
        decades = np.log10(np.maximum(values, 0.0).astype(np.float64) / low)
    position = np.clip(decades / np.log10(high / low), 0.0, 1.0)
    shade: npt.NDArray[np.uint8] = np.nan_to_num(position * (_SHADES - 1)).round().astype(np.uint8)
    shade[~np.isfinite(values)] = _NOT_FINITE
    shade[is_missing(values)] = _MISSING
    return shade


def png(
    cells: npt.NDArray[np.uint8], width: int = 1, height: int = 1, palette: npt.NDArray[np.uint8] = PALETTE
) -> tuple[bytes, int, int]:
    """Return a PNG of ``cells`` [rows, columns], each ``width`` by ``height`` pixels, and its own height and width."""
    pixels = np.repeat(np.repeat(cells, height, axis=0), width, axis=1)
    picture = Image.fromarray(pixels)
    picture.putpalette(palette.tobytes())
    encoded = BytesIO()
    picture.save(encoded, format="PNG")
    return encoded.getvalue(), *pixels.shape
