"""The charts: one axis, one cursor, every number that was recorded."""

import re
import time

import numpy as np
import pytest

from stabmon.records import RunState

pytestmark = [pytest.mark.browser, pytest.mark.slow]
DEPTHS = """async (theme) => {
    const { depthColour } = await import("/static/colours.js");
    document.documentElement.dataset.theme = theme;
    return [...Array(24).keys()].map((index) => depthColour(index, 24));
}"""


def test_every_plot_has_the_same_steps_under_one_another(tab, page):
    tab.visit("?run=naive&step=120")
    lines = page.locator(".cursor:visible")
    places = {round(lines.nth(index).bounding_box()["x"], 1) for index in range(4)}
    assert len(places) == 1
    assert len({tuple(limits) for limits in tab.ranges()}) == 1


def test_a_nan_and_a_missing_value_are_shown_differently(tab, page):
    tab.visit("?run=naive&metric=attention_norm")
    legend = page.locator(".legend").inner_text()
    assert "NaN (1)" in legend
    assert "not measured (24)" in legend
    assert tab.pixel("heatmap", 203, 0.5)[3] == 0, "what was not measured shows the hatching behind"
    row = 2.5 / 4
    assert tab.pixel("heatmap", 120, row) == [214, 0, 127, 255]
    assert tab.pixel("heatmap", 110, row)[3] == 255
    tab.visit("?run=naive&metric=attention_norm&step=120")
    readout = page.locator("section[aria-label=curves] .readout").inner_text()
    assert re.search(r"layers\.2\s*NaN", readout)


def test_nan_and_the_two_infinities_have_three_colours_and_are_counted_apart(tab, page, folder, make_store):
    writer = folder.start("odd")
    start = next(column.start for column in writer.layout.of_metric("logit_max") if column.layer == "layers.1")
    for step, value in enumerate([np.nan, np.inf, -np.inf, 2.0] * 5):
        values = make_store.row(step)
        values[start : start + 4] = value
        writer.sample(step, time.time(), values)
    writer.close(RunState.FINISHED)
    tab.visit("?run=odd&metric=logit_max")
    legend = page.locator(".legend").inner_text()
    assert all(text in legend for text in ("NaN (5)", "+Inf (5)", "-Inf (5)")), legend
    colours = [tuple(tab.pixel("heatmap", step, 1.5 / 4)) for step in range(4)]
    assert len(set(colours)) == 4
    assert colours[:3] == [tuple(tab.pixel("heatmap", step, 1.5 / 4)) for step in range(4, 7)]


def test_a_cleared_finding_is_shaded_to_the_last_step_at_which_it_held_and_an_open_one_is_a_line(tab):
    tab.visit("?run=naive")
    for panel in ("curves", "loss"):
        assert tab.pixel(panel, 147.5, 0.93)[3] > 0, "the gradient spike of steps 147 and 148"
        assert [tab.pixel(panel, step, 0.93)[3] for step in (143, 152, 222)] == [0, 0, 0], "ATT001 is open throughout"
        assert tab.pixel(panel, 222, 0.999)[3] > 0


def test_the_lines_of_layers_can_be_seen_in_both_themes(tab, page):
    tab.visit("?run=fixed")
    for theme, surface in (("light", (255, 255, 255)), ("dark", (0x19, 0x1B, 0x1E))):
        colours = page.evaluate(DEPTHS, theme)
        assert len(set(colours)) == 24
        assert min(contrast(tuple(map(int, re.findall(r"\d+", colour))), surface) for colour in colours) >= 3
    page.evaluate("delete document.documentElement.dataset.theme")


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def luminance(colour: tuple[int, ...]) -> float:
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


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
    box = tab.area("heatmap")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 3 / 8)
    page.wait_for_selector("text=heads of layers.2")
    assert "layer=layers.2" in page.url
    assert page.locator("section[aria-label=curves] .value span").all_inner_texts() == [f"head {i}" for i in range(4)]
    page.go_back()
    page.wait_for_selector("text=by layer")
    assert "layer=" not in page.url


def test_pointing_shows_the_values_of_that_step_everywhere(tab, page):
    tab.visit("?run=naive")
    box = tab.area("heatmap")
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


def test_a_file_of_buckets_says_lowest_mean_and_highest_and_every_column_has_a_name(tab, page, folder, make_store):
    writer = folder.start("long")
    start = next(column.start for column in writer.layout.of_metric("loss"))
    for step in range(5000):
        values = make_store.row(step % 300)
        values[start] = 70.8 if step == 3333 else values[start]
        writer.sample(step, time.time(), values)
    writer.close(RunState.FINISHED)
    tab.visit("?run=long")
    with page.expect_download() as saved:
        page.get_by_label(re.compile("Download loss")).click()
    lines = [line.split(",") for line in saved.value.path().read_text().splitlines()]
    assert lines[0] == ["first step", "loss lowest", "loss mean", "loss highest"]
    assert max(float(line[3]) for line in lines[1:]) == pytest.approx(70.8)
    with page.expect_download() as saved:
        page.get_by_label(re.compile("Download heatmap")).click()
    assert (
        saved.value.path().read_text().startswith("first step,layers.0 lowest,layers.0 mean,layers.0 highest,layers.1")
    )
    tab.visit("?run=fixed&with=long")
    with page.expect_download() as saved:
        page.get_by_label(re.compile("Download loss")).click()
    assert saved.value.path().read_text().startswith("first step,fixed,long lowest,long mean,long highest\n")


def test_a_symptom_is_listed_under_its_cause(tab, page):
    tab.visit("?run=naive")
    assert page.locator("#findings > .groups > .group").count() == 2
    under = page.locator("#findings .symptoms")
    assert under.get_attribute("aria-label") == "what follows from ATT001"
    assert "GRD001" in under.inner_text()
    under.locator(".group-head").click()
    tab.until(lambda: "finding=GRD001" in page.url)
    assert "100 %" in page.locator("#findings .detail .facts").inner_text()
