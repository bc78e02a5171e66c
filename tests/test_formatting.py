"""Numbers as stabmon writes them, in Python and on the page."""

import math
from pathlib import Path

import pytest
import yaml

from stabmon.formatting import SETTINGS, flat, measured, number, plural, signed, words

TABLE = yaml.safe_load((Path(__file__).parent / "numbers.yaml").read_text())


@pytest.mark.parametrize(("value", "digits", "text"), [tuple(row) for row in TABLE])
def test_a_number_is_written_as_the_table_has_it(value, digits, text):
    assert number(float(value), digits) == text


def test_halves_are_rounded_away_from_zero_as_javascript_does():
    assert [number(value) for value in (12.25, -12.25, 1234.5, 0.5)] == ["12.3", "-12.3", "1,235", "0.5"]


def test_a_difference_has_a_sign_and_what_was_not_measured_is_a_dash():
    assert [signed(value) for value in (0.5, -0.5, 0.0)] == ["+0.5", "-0.5", "0"]
    assert [measured(value) for value in (math.nan, math.inf, 2.0)] == ["-", "Inf", "2"]


def test_names_and_counts_are_words():
    assert words("total_gradient_norm") == "total gradient norm"
    assert words("loss-spike") == "loss spike"
    assert [plural(count, "layer") for count in (0, 1, 1200)] == ["0 layers", "1 layer", "1,200 layers"]


def test_settings_are_flat_and_their_number_is_bounded():
    nested = {"model": {"heads": 4, "bias": None}, "lr": 1e-3}
    assert flat(nested) == {"model.heads": 4, "model.bias": None, "lr": 1e-3}
    assert len(flat({"a": {str(key): key for key in range(1000)}, "b": 1})) == SETTINGS
