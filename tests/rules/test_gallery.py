"""Every rule has a plot of a real run that it flags and one that it does not, as the command draws it."""

import json
import re
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from stabmon.errors import ConfigError
from stabmon.rules import catalogue, gallery
from stabmon.rules.gallery.__main__ import app
from stabmon.workloads.reference_runs import PAIRS

RUNS = gallery.reference_runs()
CODES = sorted(RUNS)


def test_every_pair_of_trainings_has_been_recorded_for_a_rule_that_exists():
    recorded = "`python -m stabmon.rules.gallery record CODE` records a pair that is new"
    assert sorted(pair.code for pair in PAIRS) == CODES, recorded
    assert set(CODES) <= {rule.code for rule in catalogue()}


@pytest.mark.parametrize("code", CODES)
def test_a_rule_flags_its_bad_run_and_not_its_good_one(code):
    assert RUNS[code].bad.flagged is not None
    assert RUNS[code].good.flagged is None


@pytest.mark.parametrize("code", [code for code in CODES if RUNS[code].limit is not None])
def test_a_limit_that_is_drawn_lies_between_the_two_runs(code):
    """The bad run is past the limit and stays within its panel; the good run is on the other side at its start."""
    runs = RUNS[code]
    bad, good = (
        [value for line in curves.lines.values() for value in line if value is not None]
        for curves in (runs.bad, runs.good)
    )
    assert min(bad) < runs.limit < max(bad) or max(bad) < runs.limit < min(good) or max(good) < runs.limit < min(bad)


@pytest.mark.slow
def test_the_pictures_on_disk_are_those_that_the_command_draws_from_the_stored_runs(tmp_path):
    assert CliRunner().invoke(app, ["draw", "--output", str(tmp_path)]).exit_code == 0
    for code in CODES:
        text = (tmp_path / "plots" / f"{code}.svg").read_text(encoding="utf-8")
        assert gallery.plot_of(code).read_text(encoding="utf-8") == text, code
        assert ElementTree.fromstring(text).find("{*}title").text.startswith(code)
        assert not re.search(r"\b(nan|inf)\b", text)
        assert len(text) < 40_000


def test_a_curve_ends_where_nothing_was_measured_any_more():
    bad = RUNS["NUM001"].bad
    (values,) = bad.lines.values()
    assert [value for step, value in zip(bad.steps, values, strict=True) if step > bad.flagged] == [None] * sum(
        step > bad.flagged for step in bad.steps
    )
    assert None not in values[:30]


@pytest.mark.slow
def test_the_command_trains_the_runs_again_and_they_are_flagged_at_the_same_step(tmp_path):
    arguments = ["record", "RES001", "--dir", str(tmp_path / "runs"), "--output", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    written = {one["code"]: one for one in json.loads((tmp_path / "runs.json").read_text())}
    assert sorted(written) == CODES
    stored, again = RUNS["RES001"].bad, written["RES001"]["bad"]
    assert again["flagged"] == stored.flagged
    assert again["lines"]["layers.0"] == pytest.approx(stored.lines["layers.0"], rel=0.05)
    assert (tmp_path / "plots" / "RES001.svg").is_file()


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'ATT001'"):
        gallery.plot_of("ATT01")
