"""Every registered kind, with its own default value: a new one is tested here without a change."""

import pytest

from stabmon import config as configuration
from stabmon.config import RunConfig
from stabmon.fixes import apply_to_config, config_diff, registry
from stabmon.fixes.kind import LayerFacts
from stabmon.fixes.record import Fix
from stabmon.fixes.suggest import make
from stabmon.records import Attention


def run() -> RunConfig:
    """A run in which every kind has something to change."""
    changes = {"training.precision": "fp16", "training.clip": None, "model.norm": "post"}
    return configuration.override(configuration.load("naive"), changes)


def default(kind: str, attention: str) -> Fix:
    there = Attention(
        layer="layers.1",
        module="layers.1.attention",
        block="layers.1",
        branch="layers.1.attention_scale",
        kind=attention,
        heads=2,
        head_dim=4,
    )
    value, setting = registry.find(kind).default(run(), LayerFacts(2, {}), None)
    return make(kind, None if registry.find(kind).of_training else there, "why", value=value, setting=setting)


@pytest.mark.parametrize("attention", ["sigmoid", "functional"])
@pytest.mark.parametrize("kind", registry.names())
def test_every_kind_of_fix_comes_with_code_and_a_diff(kind: str, attention: str) -> None:
    fix = default(kind, attention)
    assert fix.code
    lines = fix.diff.splitlines()
    assert lines[0].startswith("@@ ")
    assert any(line.startswith("+") for line in lines), fix.diff
    assert all(line[0] in "@ +-" for line in lines), fix.diff
    assert Fix.model_validate_json(fix.model_dump_json()) == fix
    assert str(fix).startswith(registry.find(kind).title)


@pytest.mark.parametrize("kind", registry.names())
def test_every_kind_has_a_form_in_a_configuration(kind: str) -> None:
    assert config_diff(run(), apply_to_config(default(kind, "sigmoid"), run()))


@pytest.mark.parametrize("kind", registry.names())
def test_the_keys_of_every_kind_are_those_of_a_configuration(kind: str) -> None:
    assert registry.find(kind).keys
    for key in registry.find(kind).keys:
        section, name = key.split(".")
        assert name in type(getattr(run(), section)).model_fields


@pytest.mark.parametrize("kind", registry.names())
def test_a_factor_is_shown_as_one_and_a_value_as_a_value(kind: str) -> None:
    fix = default(kind, "sigmoid")
    shown = str(fix).removeprefix(registry.find(kind).title)
    if "*=" in fix.code:
        assert shown.startswith(" x ")
    elif fix.value is not None:
        assert shown.startswith(" = ")
