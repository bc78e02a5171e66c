"""The page writes numbers as Python does: one table for both."""

from pathlib import Path

import pytest
import yaml

from stabmon.formatting import number

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TABLE = yaml.safe_load((Path(__file__).parents[2] / "numbers.yaml").read_text())
WRITE = """async (rows) => {
    const { number } = await import("/static/text.js");
    return rows.map(([value, digits]) => number(value, digits));
}"""


def test_the_page_writes_the_numbers_of_the_table(tab, page):
    tab.visit("?run=fixed")
    written = page.evaluate(WRITE, [[float(value), digits] for value, digits, _ in TABLE])
    assert written == [text for _, _, text in TABLE]


def test_the_page_and_python_write_ties_and_many_sizes_alike(tab, page):
    tab.visit("?run=fixed")
    values = [sign * k / 8 * 10.0**power for power in range(-9, 9) for k in (1, 5, 13, 98, 99.96) for sign in (1, -1)]
    rows = [[value, digits] for value in values for digits in (3, 4)]
    assert page.evaluate(WRITE, rows) == [number(*row) for row in rows]


def test_numbers_that_json_writes_as_words_are_shortened(tab, page):
    tab.visit("?run=fixed")
    assert page.evaluate(WRITE, [["NaN", 3], ["Infinity", 3], ["-Infinity", 3]]) == ["NaN", "Inf", "-Inf"]
