"""The page's verdict and status of a run: healthy or not, live or ended, missing; on large and small screens."""

import threading

import pytest

from stabmon.records import RunState

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_first_screen_says_whether_it_is_healthy_where_and_since_when(tab, page):
    tab.visit("?run=naive")
    assert page.locator("#verdict h1").inner_text() == "Unhealthy since step 0"
    assert "layers.0 to layers.3" in page.locator("#verdict").inner_text()
    status = page.locator("#status").inner_text()
    for part in ("naive", "finished", "step299", "overhead0.42 %", "ago"):
        assert part in status, part
    assert page.locator(".run-name").all_inner_texts()[-2:] == ["fixed", "naive"]
    assert tab.heatmap()["rows"] == 4


def test_a_healthy_run_is_called_healthy(tab, page):
    tab.visit("?run=fixed")
    assert page.locator("#verdict h1").inner_text() == "Healthy"
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
    assert "naive" in page.locator(".run-name").all_inner_texts()
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
    page.wait_for_selector("#status .title:text('first')")
    page.close()
    server.stop()


def test_the_page_works_on_a_small_screen(tab, page):
    for width in (1024, 390):
        page.set_viewport_size({"width": width, "height": 800})
        tab.visit("?run=naive")
        tab.until(lambda limit=width: page.evaluate("document.documentElement.scrollWidth") <= limit)
        assert page.locator("#verdict h1").is_visible()
