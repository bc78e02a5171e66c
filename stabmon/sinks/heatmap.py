"""A heatmap as a PNG: colour is the logarithm of a ratio to a reference; NaN and missing values have their own."""

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

SCALE = (
    "White is the reference, blue below it (deepest at a hundredth), red above it (deepest at a hundred times); "
    "magenta is NaN or an infinity, grey was not measured."
)


def _palette() -> npt.NDArray[np.uint8]:
    at = np.linspace(0, len(_ANCHORS) - 1, _SHADES)
    shades = np.stack([np.interp(at, np.arange(len(_ANCHORS)), channel) for channel in _ANCHORS.T], axis=1)
    return np.vstack([shades.round(), (255, 0, 255), (128, 128, 128)]).astype(np.uint8)


PALETTE = _palette()
"""Colours by index, [203, 3]: the shades, then the colour of NaN and infinities, then that of missing values."""


def indices(values: Floats, reference: float) -> npt.NDArray[np.uint8]:
    """Return the palette's index of each of ``values`` (any shape); what is not above zero has the lowest shade."""
    with np.errstate(all="ignore"):
        decades = np.log10(np.maximum(values, 0.0).astype(np.float64) / reference)
    position = np.clip(decades / DECADES, -1.0, 1.0)
    shade = np.nan_to_num((position + 1.0) / 2.0 * (_SHADES - 1)).round().astype(np.uint8)
    shade[~np.isfinite(values)] = _NOT_FINITE
    shade[is_missing(values)] = _MISSING
    return shade


def png(cells: npt.NDArray[np.uint8], width: int = 1, height: int = 1) -> tuple[bytes, int, int]:
    """Return a PNG of ``cells`` [rows, columns], each ``width`` by ``height`` pixels, and its own height and width."""
    pixels = np.repeat(np.repeat(cells, height, axis=0), width, axis=1)
    picture = Image.fromarray(pixels)
    picture.putpalette(PALETTE.tobytes())
    encoded = BytesIO()
    picture.save(encoded, format="PNG")
    return encoded.getvalue(), *pixels.shape
