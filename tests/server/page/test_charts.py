"""The charts: one axis, one cursor, every number that was recorded."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_every_plot_has_the_same_steps_under_one_another(tab, page):
    tab.visit("?run=naive")
    places = page.evaluate(
        "() => [...document.querySelectorAll('.plot')].map((plot) => {"
        "const { _offset, _length } = plot._fullLayout.xaxis; return [_offset, _length]; })"
    )
    assert len(places) == 4
    assert all(place == places[0] for place in places)
    assert len({tuple(limits) for limits in tab.ranges()}) == 1


def test_a_nan_and_a_missing_value_are_shown_differently(tab, page):
    tab.visit("?run=naive&metric=attention_norm")
    assert tab.heatmap()["odd"] == 1
    legend = page.locator(".legend").inner_text()
    assert "NaN or Inf (1)" in legend
    assert "not measured (24)" in legend
    tab.visit("?run=naive&metric=attention_norm&step=120")
    readout = page.locator("section[aria-label=curves] .readout").inner_text()
    assert re.search(r"layers\.2\s*NaN", readout)


def test_a_cleared_finding_is_shaded_to_the_last_step_at_which_it_held(tab, page):
    tab.visit("?run=naive")
    curves = page.locator("section[aria-label=curves] .plot")
    shaded = curves.evaluate("(plot) => plot.layout.shapes.map((shape) => [shape.x0, shape.x1])")
    assert [146.5, 148.5] in shaded


def test_a_click_on_a_finding_pins_its_step_on_every_chart_and_shows_the_fix(tab, page):
    tab.visit("?run=naive")
    page.get_by_role("button", name=re.compile("Gradient spike", re.I)).click()
    page.wait_for_selector(".detail")
    assert tab.flags() == ["147"] * 4
    assert "finding=GRD001%3A%3A147" in page.url
    page.get_by_role("button", name=re.compile("Large initial", re.I)).click()
    assert page.get_by_label("Copy the code for all of these").is_visible()
    page.locator(".row", has_text="layers.1").click()
    detail = page.locator(".detail").inner_text()
    for part in (
        "243 at step 0",
        "the bias is 0",
        "limit 10",
        "bias -5.545",
        "model.layers.1.attention.bias.fill_(-5.545)",
        "row mass 128 → 1",
    ):
        assert part in detail, part
    page.locator("summary", has_text="As a change to your own code").click()
    assert "where layers.1.attention is built" in page.locator(".detail").inner_text()
    assert tab.flags() == ["0"] * 4


def test_a_click_on_a_layer_opens_its_heads_and_back_closes_them(tab, page):
    tab.visit("?run=naive&metric=row_mass")
    box = page.locator("section[aria-label=heatmap] .plot .nsewdrag").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 3 / 8)
    page.wait_for_selector("text=heads of layers.2")
    assert "layer=layers.2" in page.url
    assert page.locator("section[aria-label=curves] .value span").all_inner_texts() == [f"head {i}" for i in range(4)]
    page.go_back()
    page.wait_for_selector("text=by layer")
    assert "layer=" not in page.url


def test_pointing_shows_the_values_of_that_step_everywhere(tab, page):
    tab.visit("?run=naive")
    box = page.locator("section[aria-label=heatmap] .plot .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 7 / 8)
    step = tab.flags()[0]
    assert tab.flags() == [step] * 4
    assert f"step {step} · layers.0 · " in page.locator("section[aria-label=heatmap] .readout").inner_text()


def test_the_heatmap_is_also_a_table_and_a_file(tab, page):
    tab.visit("?run=naive&metric=attention_norm&from=100&to=130")
    page.get_by_label("Show the heatmap as a table").click()
    rows = page.locator(".panel-below table tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == [f"layers.{index}" for index in range(4)]
    assert rows[2].split()[-2:] == ["1", "0"]
    with page.expect_download() as saved:
        page.get_by_label(re.compile("Download heatmap")).click()
    lines = saved.value.path().read_text().splitlines()
    assert lines[0] == "step,layers.0,layers.1,layers.2,layers.3"
    assert [line.split(",")[0] for line in lines[1:]] == [str(step) for step in range(100, 131)]
    assert lines[21].split(",")[3] == "NaN"


def test_a_symptom_is_listed_under_its_cause(tab, page):
    tab.visit("?run=naive")
    assert page.locator("#findings > .groups > .group").count() == 2
    under = page.locator("#findings .symptoms")
    assert under.get_attribute("aria-label") == "what follows from ATT001"
    assert "GRD001" in under.inner_text()
    under.locator(".group-head").click()
    tab.until(lambda: "finding=GRD001" in page.url)
    assert "100 %" in page.locator("#findings .detail .facts").inner_text()
