import re
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pytest

from stabmon.records import RunState
from stabmon.reports.drawing import Axis, chart
from stabmon.reports.page import page
from stabmon.series import MISSING, Series, Spot
from stabmon.store import open_run


def test_a_report_holds_verdict_findings_fix_charts_and_configuration(naive):
    text = unescape(page("naive", naive))
    assert "Unhealthy since step 0: large initial attention norm in layers.0 to layers.3." in text
    assert "error ATT001 large-initial-attention-norm in layers.0 to layers.3 since step 0" in text
    assert "model.layers.0.attention.bias.fill_(-5.545)" in text
    assert "Follows from it" in text
    assert "<td>model.bias</td><td>0</td>" in text
    assert text.count("<svg") == len(naive.layout.metrics)
    assert text.index("attention norm</h3>") < text.index("loss [as logged]</h3>"), "what is flagged comes first"


def test_a_report_needs_no_network_and_runs_no_script(naive):
    text = page("naive", naive)
    assert not re.search(r"<(script|link|img|iframe|object)\b|https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_a_hostile_name_is_text(store):
    writer = store.start("evil")
    writer.close(RunState.FINISHED)
    with open_run(store.directory / "evil") as run:
        text = page("<img src=x onerror=alert(1)>\x1b[31m", run)
    assert "<img" not in text
    assert "\x1b" not in text


def test_a_healthy_run_and_one_without_a_sample_have_a_report_too(fixed, store):
    assert "<p>No findings.</p>" in page("fixed", fixed)
    store.start("new")
    with open_run(store.directory / "new") as run:
        assert "Waiting for the first step" in page("new", run)


def drawn(values, spots=1):
    values = np.asarray(values, np.float32).reshape(-1, spots)
    series = Series("loss", [Spot(f"layers.{at}", None) for at in range(spots)], np.arange(len(values)), values)
    return ElementTree.fromstring(chart(series, "loss & more"))


def paths(svg, kind):
    return [one.get("d") for one in svg.iter("path") if one.get("class") == kind]


def test_a_line_breaks_where_nothing_was_measured_and_marks_what_is_not_finite():
    svg = drawn([1, 2, MISSING, 3, np.nan, 4, 5, np.inf])
    (line,) = paths(svg, "line")
    assert line.count("M") == 3
    (marks,) = paths(svg, "odd")
    assert marks.count("M") == 2, "NaN and infinity, not what is missing"


def test_a_chart_of_nothing_finite_says_so():
    assert "no finite number" in "".join(drawn([np.nan, np.inf]).itertext())


def test_a_point_alone_and_a_constant_are_drawn():
    assert paths(drawn([3.0]), "line")[0].endswith("h.1")
    assert "NaN" not in paths(drawn([2.0, 2.0]), "line")[0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 7e6), (1e-9, 3e-9)])
def test_ticks_are_round_and_inside(low, high):
    ticks = Axis(low, high, 0, 100).ticks()
    assert 2 <= len(ticks) <= 6
    assert all(low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)


def test_numbers_that_span_decades_have_a_logarithmic_axis():
    axis = Axis(1e-3, 1e5, 200, 0, is_logarithmic=True)
    assert axis.at(1e-3) == 200
    assert axis.at(1e1) == pytest.approx(100)
    assert all(str(tick).strip("0.").startswith("1") for tick in axis.ticks())
