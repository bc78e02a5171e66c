import math

import pytest

from stabmon.errors import ConfigError
from stabmon.rules import Limits, catalogue
from stabmon.rules.limits import documents


def test_every_limit_has_a_meaning_a_unit_and_a_source():
    assert documents()
    for document in documents():
        assert document.text.endswith(".")
        assert document.unit
        assert document.source
        assert document.default > 0


def test_every_limit_is_named_by_a_rule():
    named = {limit.name for rule in catalogue() for limit in rule.limits}
    assert named == {document.name for document in documents()}


@pytest.mark.parametrize("mapping", [{"att.row_mass_max": 6}, {"att": {"row_mass_max": "6"}}], ids=["dotted", "nested"])
def test_limits_are_read_from_a_mapping_and_the_rest_keeps_its_default(mapping):
    limits = Limits.from_mapping(mapping)
    assert limits.att.row_mass_max == 6
    assert limits.att.row_mass_min == Limits().att.row_mass_min
    assert limits.res == Limits().res


@pytest.mark.parametrize("name", ["att.row_mas_max", "row_mass_max", "attention.row_mass_max"])
def test_an_unknown_limit_names_the_nearest_one(name):
    with pytest.raises(ConfigError, match=r"unknown limit .*did you mean 'att\.row_mass_max'"):
        Limits.from_mapping({name: 6})


@pytest.mark.parametrize("value", [0, -1, math.nan, "much", None])
def test_a_limit_that_is_no_positive_number_is_refused(value):
    with pytest.raises(ConfigError, match=r"att\.row_mass_max must be a positive number, got"):
        Limits.from_mapping({"att.row_mass_max": value})


def test_infinity_switches_an_upper_limit_off():
    assert Limits.from_mapping({"att.row_mass_max": "inf"}).att.row_mass_max == math.inf


def test_no_limits_are_the_defaults():
    assert Limits.from_mapping({}) == Limits()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("att.row_mass_max", True),
        ("att.first_steps", True),
        ("att.row_mass_min", math.inf),
        ("att.row_mass_min", "inf"),
    ],
)
def test_a_truth_value_is_no_limit_and_neither_is_infinity_below(name, value):
    for mapping in ({name: value}, {f"layers.0/{name}": value}):
        with pytest.raises(ConfigError, match=f"{name} must be a positive (whole )?number, got {value!r}"):
            Limits.from_mapping(mapping)
