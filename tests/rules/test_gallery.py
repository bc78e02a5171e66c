"""Every rule has a picture, made of real runs, and it is the one that the command draws."""

import re
from xml.etree import ElementTree

import pytest

from stabmon.errors import ConfigError
from stabmon.rules import catalogue, gallery

CODES = [rule.code for rule in catalogue()]


def test_every_rule_has_a_scene_and_no_scene_is_without_its_rule():
    assert sorted(gallery.reference_runs()) == CODES


@pytest.mark.parametrize("code", CODES)
def test_the_picture_on_disk_is_drawn_from_the_stored_runs(code):
    text = gallery.draw(gallery.reference_runs()[code])
    assert gallery.plot_of(code).read_text(encoding="utf-8") == text
    drawn = ElementTree.fromstring(text)
    assert drawn.find("{*}title").text.startswith(code)
    assert not re.search(r"\b(nan|inf)\b", text)


def test_lines_lie_within_the_panels_and_break_where_nothing_was_measured():
    text = gallery.draw(gallery.reference_runs()["NUM001"])
    points = [
        tuple(map(float, pair.split(","))) for line in re.findall(r'points="([^"]+)"', text) for pair in line.split()
    ]
    assert all(50 <= x <= 700 and 50 <= y <= 220 for x, y in points)
    assert max(x for x, _ in points if x < 360) < 300


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'ATT001'"):
        gallery.plot_of("ATT01")
