import struct

import numpy as np
import pytest

from stabmon.series import MISSING, Series, Spot, is_missing
from stabmon.server.encoding import pack, unpack

SPOTS = [Spot("layers.0", None), Spot("layers.10", 3)]
ODD = np.array([[np.nan, 1.5], [np.inf, -np.inf], [MISSING, -0.0]], dtype=np.float32)


def test_every_bit_survives_the_way_there_and_back():
    steps = np.array([0, 7, 2**40])
    series = unpack(pack(Series("row_mass", SPOTS, steps, ODD, ODD, ODD, cursor=3)))
    assert series.steps.tolist() == steps.tolist()
    assert list(series.spots) == SPOTS
    assert series.cursor == 3
    for part in (series.values, series.low, series.high):
        assert np.ascontiguousarray(part).tobytes() == ODD.tobytes()
    assert is_missing(series.values).tolist() == [[False, False], [False, False], [True, False]]


def test_a_series_of_nothing_is_packed_too():
    empty = Series("loss", [Spot(None, None)], np.empty(0, np.int64), np.empty((0, 1), np.float32))
    assert unpack(pack(empty)).values.shape == (0, 1)


def test_numbers_begin_where_a_float64_may_begin():
    for metric in ("a", "loss", "total_gradient_norm"):
        packed = pack(Series(metric, SPOTS, np.arange(3), ODD))
        assert struct.unpack_from("<I", packed)[0] % 8 == 0


def test_another_format_is_refused_with_its_number():
    with pytest.raises(ValueError, match="format 1, got format 7"):
        unpack(struct.pack("<II", 8, 7) + b"{}      ")
