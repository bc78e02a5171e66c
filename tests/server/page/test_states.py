"""The page's verdict and status of a run: healthy or not, live or ended, missing; on large and small screens."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stabmon.records import RunState

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_the_first_screen_says_whether_it_is_healthy_where_and_since_when(tab, page):
    tab.visit("?run=naive")
    assert page.locator("#verdict h1").inner_text() == "Unhealthy since step 0"
    assert "layers.0 to layers.3" in page.locator("#verdict").inner_text()
    status = page.locator("#status").inner_text()
    for part in ("naive", "finished", "step299", "overhead0.42 %", "updated"):
        assert part in status, part
    assert page.locator(".run-name").all_inner_texts()[-2:] == ["fixed", "naive"]
    assert tab.heatmap()["rows"] == 4


def test_a_healthy_run_is_called_healthy(tab, page):
    tab.visit("?run=fixed")
    assert page.locator("#verdict h1").inner_text() == "Healthy"
    assert page.locator("#verdict").get_attribute("class") == "verdict healthy"
    assert page.locator("#verdict .process").inner_text().strip() == "Finished"
    assert "No rule has found anything" in page.locator("#findings").inner_text()


def test_a_finished_run_is_not_shown_as_live(tab, page):
    tab.visit("?run=fixed")
    assert page.locator(".following").count() == 0
    assert "finished" in page.locator("#status .chip").all_inner_texts()


def test_what_a_run_lost_is_said_with_its_state(tab, page, folder):
    writer = folder.start("lossy")
    folder.write(writer, range(20))
    writer.close(RunState.FAILED, dropped=12)
    tab.visit("?run=lossy")
    (said,) = page.locator("#status .chip").all_inner_texts()
    assert said == "failed, 12 of 32 samples lost"
    assert page.locator("#verdict").get_attribute("class") == "verdict error"
    assert page.locator("#verdict h1").inner_text() == "Healthy until it ended"
    assert page.locator("#verdict .process b").inner_text() == "Failed"
    assert "because of an exception. 12 of 32 samples are lost." in page.locator("#verdict .process").inner_text()
    tab.until(lambda: any(said in facts for facts in page.locator(".run-facts").all_inner_texts()))


def test_a_live_run_grows_without_a_reload_and_stops_following_when_zoomed(tab, page, folder):
    writer = folder.start("live")
    folder.write(writer, range(20))
    tab.visit("?run=live")
    assert page.locator(".following").count() == 1
    assert tab.heatmap()["columns"] == 20
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    folder.write(writer, range(20, 45))
    tab.until(lambda: tab.heatmap()["columns"] == 45)
    tab.until(lambda: "step44" in page.locator("#status").inner_text())
    assert not [url for url in sent if "/series/" in url or "/heatmap/" in url]
    tab.visit("?run=live&from=5&to=15")
    page.wait_for_selector(".paused")
    folder.write(writer, range(45, 50))
    tab.until(lambda: "step49" in page.locator("#status").inner_text())
    assert tab.ranges()[0] == [5, 15]
    page.locator(".paused").click()
    tab.until(lambda: tab.heatmap()["columns"] == 50)
    writer.close(RunState.FINISHED)
    page.wait_for_selector("#status .state-finished")
    assert page.locator(".following").count() == 0


def test_the_error_for_an_unknown_run_names_the_known_ones_and_keeps_the_list(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/?run=nave")
    page.wait_for_selector("#message:visible")
    assert "fixed, " in page.locator("#message").inner_text()
    page.wait_for_selector(".run-name:text('naive')")
    page.close()


def test_an_empty_folder_says_what_to_do_and_shows_the_first_run_as_it_comes(
    browser, make_server, make_store, tmp_path
):
    store = make_store(tmp_path)
    server = make_server(tmp_path)
    page = browser.new_page()
    page.goto(server.address)
    page.wait_for_selector("text=No runs yet")
    assert "stabmon.watch(model" in page.locator("#message").inner_text()
    threading.Timer(0.1, lambda: store.finished("first")).start()
    page.wait_for_selector("table.home .run-name:text('first')")
    page.close()
    server.stop()


def test_the_page_works_on_a_small_screen_and_findings_are_in_sight(tab, page):
    for width, height in ((1180, 800), (1024, 800), (390, 800)):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"{tab.address}/?run=naive")
        page.wait_for_selector("canvas")
        tab.until(lambda limit=width: page.evaluate("document.documentElement.scrollWidth") <= limit)
        assert page.locator("#verdict h1").is_visible()
        first = page.locator("#findings .group-head").first.bounding_box()
        assert first["y"] + first["height"] < height
    assert page.locator("#findings .side-head").inner_text() == "Findings\n6 findings by 3 rules"


WRITE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.server.conftest import Store
store = Store(Path(sys.argv[1]))
writer = store.start("killed")
store.write(writer, range(5))
print("written", flush=True)
time.sleep(3600)
"""


def test_a_killed_training_is_called_crashed_and_no_longer_green(tab, page, folder):
    command = [sys.executable, "-W", "ignore", "-c", WRITE, str(folder.directory), str(Path(__file__).parents[3])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        tab.visit("?run=killed")
        assert page.locator("#verdict").get_attribute("class") == "verdict healthy"
        assert page.locator("#verdict .process b").inner_text() == "Running"
        process.kill()
        process.wait()
    page.wait_for_selector("#verdict.error .process b:text('Crashed')")
    assert page.locator(".following").count() == 0


def test_a_run_that_starts_is_not_called_damaged_and_is_shown_with_its_first_step(tab, page, folder):
    (folder.directory / "new").mkdir()
    page.goto(f"{tab.address}/?run=new")
    page.wait_for_selector("#verdict h1:text('Waiting for the first step')")
    assert page.locator("#verdict .process b").inner_text() == "Starting"
    writer = folder.start("new")
    folder.write(writer, range(12))
    page.wait_for_selector("canvas")
    tab.until(lambda: tab.heatmap()["columns"] == 12)
    writer.close(RunState.FINISHED)
    tab.complaints.clear()  # the browser reports the 404 of a run that has stored nothing


def test_the_verdict_can_be_read_before_any_chart_is_there(tab, page):
    held = []
    page.route(re.compile("/(series|heatmap)/"), lambda route: held.append(route))
    page.goto(f"{tab.address}/?run=naive")
    page.wait_for_selector("#verdict h1:text('Unhealthy since step 0')")
    assert page.locator("#findings .group").count() == 3
    assert page.locator("canvas").count() == 0 or page.locator(".loading").count() == 1
    for route in held:
        route.continue_()
    page.unroute_all()
    tab.until(lambda: tab.heatmap()["columns"] == 300)


def test_a_heatmap_goes_on_when_a_first_finding_changes_the_metric_that_is_shown(tab, page, folder, make_findings):
    writer = folder.start("turning")
    folder.write(writer, range(20))
    tab.visit("?run=turning")
    assert page.get_by_label("Metric").input_value() == "attention_norm"
    writer.findings([make_findings()[0].model_copy(update={"metric": "logit_max"})])
    folder.write(writer, range(20, 25))
    tab.until(lambda: page.get_by_label("Metric").input_value() == "logit_max")
    folder.write(writer, range(25, 40))
    tab.until(lambda: tab.heatmap()["columns"] == 40)
    tab.until(lambda: tab.pixel("heatmap", 38, 0.5)[3] == 255)
    writer.close(RunState.FINISHED)


def test_an_update_keeps_the_readout_the_focus_and_what_was_opened(tab, page, folder, make_findings):
    writer = folder.start("busy")
    folder.write(writer, range(20))
    writer.findings(make_findings())
    tab.visit("?run=busy&metric=row_mass&finding=ATT001%3Alayers.0%3A0")
    page.locator("summary", has_text="As a change to your own code").first.click()
    box = tab.area("heatmap")
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 7 / 8)
    readout = page.locator("section[aria-label=heatmap] .readout")
    assert "layers.0" in readout.inner_text()
    for selector in ("section[aria-label=curves] button.value >> nth=1", ".code-block button >> nth=0"):
        page.locator(selector).focus()
        page.evaluate("document.activeElement.dataset.mine = 'yes'; window.kept = document.activeElement")
        before = tab.heatmap()["columns"]
        folder.write(writer, range(before, before + 10))
        later = [one.model_copy(update={"last": before + 9, "value": one.value + before}) for one in make_findings()]
        writer.findings(later)
        tab.until(lambda now=before: tab.heatmap()["columns"] == now + 10)
        value = f"{later[0].value:,.0f}"
        tab.until(lambda text=value: text in page.locator(".detail .facts").inner_text())
        assert page.evaluate("document.activeElement === window.kept")
        assert "layers.0" in readout.inner_text()
    assert page.locator(".fix details").first.get_attribute("open") is not None
    writer.close(RunState.FINISHED)


def test_seven_tabs_share_one_stream_and_all_are_live(browser, tab, address, folder):
    writer = folder.start("shared")
    folder.write(writer, range(5))
    tabs = [type(tab)(browser, address, tab.wait_until) for _ in range(7)]
    for one in tabs:
        one.visit("?run=shared")
    folder.write(writer, range(5, 30))
    for one in tabs:
        one.page.bring_to_front()
        one.until(lambda one=one: one.heatmap()["columns"] == 30)
    writer.close(RunState.FINISHED)
    for one in tabs:
        one.page.close()


def test_a_hidden_tab_closes_its_stream_and_catches_up_when_it_is_seen_again(tab, page, folder):
    writer = folder.start("hidden")
    folder.write(writer, range(5))
    tab.visit("?run=hidden")
    page.evaluate(HIDE, True)
    folder.write(writer, range(5, 10))
    page.wait_for_timeout(1500)  # three looks of the server: a stream that were open would have brought them
    assert tab.heatmap()["columns"] == 5
    page.evaluate(HIDE, False)
    tab.until(lambda: tab.heatmap()["columns"] == 10)
    writer.close(RunState.FINISHED)


def test_rules_that_would_set_the_same_bias_say_which_comes_first(tab, page, folder, make_findings):
    writer = folder.start("biases")
    folder.write(writer, range(20))
    first = make_findings()[:4]
    writer.findings([*first, *(one.model_copy(update={"code": "ATT003", "name": "drift"}) for one in first)])
    writer.close(RunState.FINISHED)
    tab.visit("?run=biases&finding=ATT003%3Alayers.1%3A0")
    assert "First try the fix of ATT001" in page.locator(".detail").inner_text()
    assert "Suggested fix" not in page.locator(".detail").inner_text()
    tab.visit("?run=biases&finding=ATT001%3Alayers.1%3A0")
    assert "Suggested fix" in page.locator(".detail").inner_text()
