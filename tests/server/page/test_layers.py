"""Small multiples, limits, the healthy band, the warm-up, and zooming by touch."""

import time

import numpy as np
import pytest

from stabmon.records import RunInfo, RunState
from stabmon.series import Layout
from stabmon.store import RunWriter

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STRETCHED = """async () => {
    const { stretched } = await import("/static/touch.js");
    return [stretched([0, 100], 200, [50, 150], [0, 200]), stretched([0, 100], 200, [100, 150], [50, 100]),
            stretched([0, 100], 200, [50, 150], [100, 100])];
}"""
PINCH = """() => {
    const area = document.querySelector("section[aria-label=loss] .plot");
    const { left, top } = area.getBoundingClientRect();
    const send = (kind, id, x) => area.dispatchEvent(new PointerEvent(kind,
        { pointerId: id, pointerType: "touch", clientX: left + x, clientY: top + 40, bubbles: true, button: 0 }));
    area.setPointerCapture = () => {};
    send("pointerdown", 1, 200), send("pointerdown", 2, 300);
    send("pointermove", 1, 120), send("pointermove", 2, 380);
    send("pointerup", 1, 120), send("pointerup", 2, 380);
}"""

WARM_UPS = """async () => {
    const { warmUp } = await import("/static/bands.js");
    const column = (rates) => ({ values: Float32Array.from(rates) });
    const series = (rates) => ({ steps: Float64Array.from(rates.keys()), columns: [column(rates)] });
    return [[0, 1, 2, 3, 3, 2, 1], [3, 3, 3], [3, 2, 1], [0, 1, 2, 3]].map((rates) => warmUp(series(rates)));
}"""


def test_layers_are_shown_apart_on_one_scale_and_the_address_keeps_it(tab, page):
    tab.visit("?run=fixed&metric=row_mass")
    page.get_by_role("button", name="by layer").click()
    cells = page.locator("section[aria-label=layers] figure")
    assert cells.count() == 4
    assert "view=layers" in page.url
    assert page.locator("section[aria-label=curves]:visible").count() == 0
    tab.visit("?run=fixed&metric=row_mass&view=layers&step=100")
    assert (
        cells.first.locator("b").inner_text() == page.locator("section[aria-label=layers] b").first.inner_text() != "–"
    )
    cells.nth(2).get_by_role("button").click()
    page.wait_for_selector("section[aria-label=layers] .panel-note:text('heads of layers.2')")
    page.get_by_role("button", name="overlaid").click()
    page.wait_for_selector("section[aria-label=curves]:visible")


def test_the_limits_of_a_metric_are_drawn_and_one_out_of_sight_is_named(tab, page, client):
    metrics = {one["name"]: one for one in client.get("/api/v1/runs/fixed").json()["metrics"]}
    assert (metrics["row_mass"]["low"], metrics["row_mass"]["high"]) == (0.05, 10.0)
    assert metrics["loss"]["high"] is None
    tab.visit("?run=naive&metric=row_mass&with=fixed")
    low, high = tab.pixel("curves", 20, 0.2), tab.pixel("curves", 20, 0.8)
    assert low != high, "between the limits lies the healthy band"
    page.get_by_label("What is this?").click()
    dialog = page.get_by_role("dialog", name="row mass").inner_text()
    assert "below 0.05 or above 10" in dialog
    page.keyboard.press("Escape")


def test_a_runs_own_limits_are_drawn_in_place_of_the_defaults(runs, open_client):
    layout = Layout.of([("row_mass", "layers.0", 2)])
    writer = runs.start("plain")
    writer.close(RunState.FINISHED)
    info = open_client(runs.directory).get("/api/v1/runs/plain").json()["info"]
    changed = RunInfo.model_validate(info | {"name": "own", "limits": {"att.row_mass_max": 4}})
    RunWriter.create(runs.directory / "own", changed, layout).close(RunState.FINISHED)
    (found,) = open_client(runs.directory).get("/api/v1/runs/own").json()["metrics"]
    assert found["high"] == 4


def test_the_warm_up_is_marked_where_the_learning_rate_rose(tab, page):
    tab.visit("?run=fixed")
    assert page.evaluate(WARM_UPS) == [3, None, None, 3]


def test_two_fingers_zoom_and_a_visible_button_shows_everything_again(tab, page):
    tab.visit("?run=fixed")
    wide, moved, least = page.evaluate(STRETCHED)
    assert wide == pytest.approx([25, 75])
    assert moved == pytest.approx([25, 125])
    assert least[0] < least[1]
    full = tab.ranges()[0]
    page.evaluate(PINCH)
    page.wait_for_url("**from=**")
    first, last = tab.ranges()[0]
    assert last - first == pytest.approx((full[1] - full[0]) * 100 / 260, rel=0.05)
    page.get_by_role("button", name="reset zoom").click()
    tab.until(lambda: tab.ranges()[0] == full)


def test_a_range_without_a_sample_says_so(tab, page):
    tab.visit("?run=fixed&from=5000&to=6000")
    empty = page.locator("section.panel.empty:visible")
    assert empty.count() == 4
    said = page.evaluate("getComputedStyle(document.querySelector('.panel.empty .plot-area'), '::after').content")
    assert said == '"nothing was sampled in these steps"'


def test_what_is_not_recorded_is_listed_with_its_reason(tab, page, folder):
    from stabmon.records import Failure

    writer = folder.start("gaps")
    folder.write(writer, range(20))
    tab.visit("?run=gaps")
    assert page.locator(".missing").count() == 0
    lost = Failure(subject="learning rate", reason="it is no number; log one", first_step=3, last_step=9, count=4)
    writer.failures([lost])
    page.wait_for_selector(".missing li")
    assert page.locator(".missing li").inner_text().split("\n")[0] == "learning rate steps 3 to 9, 4 times"
    assert "it is no number; log one" in page.locator(".missing").inner_text()
    writer.close(RunState.FINISHED)
    page.reload()
    page.wait_for_selector(".missing li")


def test_the_drawer_describes_stabmon_itself(tab, page, folder):
    writer = folder.start("sparse")
    for step in (*range(10), *range(10, 100, 10)):
        writer.sample(step, time.time(), np.asarray(folder.row(step)))
    writer.close(RunState.FINISHED, dropped=3)
    tab.visit("?run=sparse")
    page.keyboard.press("i")
    drawer = page.get_by_role("dialog").inner_text()
    for part in ("every step to 10, then every 10 steps", "3 of 22 (14 %)", "size", "kB", "torch"):
        assert part in drawer, part
    page.keyboard.press("Escape")
