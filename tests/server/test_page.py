"""The page in a real browser, over a real server."""

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from stabmon.records import RunState

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with tempfile.TemporaryDirectory() as profile, playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=list(FLAGS),
            viewport={"width": 1440, "height": 900},
            accept_downloads=True,
        )
        context.set_default_timeout(15_000)
        yield context
        context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_store):
    """Two finished runs and one that a test goes on writing."""
    store = make_store(tmp_path_factory.mktemp("page"))
    store.finished("naive", naive=True, age=timedelta(minutes=20))
    store.finished("fixed", age=timedelta(minutes=10))
    return store


@pytest.fixture(scope="module")
def address(folder, make_server) -> Iterator[str]:
    server = make_server(folder.directory)
    yield server.address
    server.stop()


class Watched:
    """A tab, the addresses it asked for elsewhere, and what it complained about."""

    def __init__(self, context, address: str) -> None:
        self.tab = context.new_page()
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.asked(request.url, address))
        self.tab.on("console", lambda said: self.said(said.type, said.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(error.stack))

    def asked(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.foreign.append(url)

    def said(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)


@pytest.fixture(scope="module")
def watched(browser, address) -> Watched:
    """One tab for most tests: loading a page takes seconds, changing its address does not."""
    return Watched(browser, address)


@pytest.fixture
def page(watched) -> Iterator:
    """The tab, which may speak to its own server alone, and must not complain."""
    watched.foreign.clear()
    watched.complaints.clear()
    watched.tab.set_viewport_size({"width": 1440, "height": 900})
    yield watched.tab
    assert watched.foreign == []
    assert watched.complaints == []


def visit(page, address: str, query: str) -> None:
    """Go to an address of the page; within the page, as Back does, where it is open already."""
    if page.url.startswith(address):
        page.evaluate(
            "query => { history.pushState(null, '', query); dispatchEvent(new PopStateEvent('popstate')); }", query
        )
    else:
        page.goto(f"{address}/{query}")
    until(lambda: drawn(page) == query)


def drawn(page) -> str | None:
    """The address whose charts stand on the page."""
    return page.locator("#panels").get_attribute("data-drawn")


def until(holds: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until something holds; the page's own policy forbids to wait inside it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.03)


def heatmap(page) -> dict:
    """What the heatmap holds: rows, columns, and how many cells are marked as not finite."""
    return page.evaluate("""() => {
        const { data } = document.querySelector("section[aria-label=heatmap] .plot");
        const odd = data.length > 1 ? data[1].z.flat().filter((cell) => cell === 1).length : 0;
        return { rows: data[0].z.length, columns: data[0].z[0].length, odd };
    }""")


def x_ranges(page) -> list[list[float]]:
    return page.evaluate(
        """() => [...document.querySelectorAll(".plot")].map((plot) => plot._fullLayout.xaxis.range)"""
    )


def flags(page) -> list[str]:
    return page.locator(".cursor:visible .cursor-flag").all_inner_texts()


def test_the_first_screen_says_whether_it_is_healthy_where_and_since_when(page, address):
    visit(page, address, "?run=naive")
    assert page.locator("#verdict h1").inner_text() == "Unhealthy since step 0"
    assert "layers.0 to layers.3" in page.locator("#verdict").inner_text()
    status = page.locator("#status").inner_text()
    for part in ("naive", "finished", "step299", "overhead0.42 %", "dropped0", "ago"):
        assert part in status, part
    assert page.locator(".run-name").all_inner_texts()[-2:] == ["fixed", "naive"]
    assert heatmap(page)["rows"] == 4


def test_a_healthy_run_is_called_healthy(page, address):
    visit(page, address, "?run=fixed")
    assert page.locator("#verdict h1").inner_text() == "Healthy"
    assert "No rule has found anything" in page.locator("#findings").inner_text()


def test_a_finished_run_is_not_shown_as_live(page, address):
    visit(page, address, "?run=fixed")
    assert page.locator(".following").count() == 0
    assert "finished" in page.locator("#status .chip").all_inner_texts()


def test_every_plot_has_the_same_steps_under_one_another(page, address):
    visit(page, address, "?run=naive")
    places = page.evaluate(
        "() => [...document.querySelectorAll('.plot')].map((plot) => {"
        "const { _offset, _length } = plot._fullLayout.xaxis; return [_offset, _length]; })"
    )
    assert len(places) == 4
    assert all(place == places[0] for place in places)
    assert len({tuple(limits) for limits in x_ranges(page)}) == 1


def test_a_nan_and_what_was_not_measured_are_shown_apart(page, address):
    visit(page, address, "?run=naive&metric=attention_norm")
    assert heatmap(page)["odd"] == 1
    legend = page.locator(".legend").inner_text()
    assert "NaN or Inf (1)" in legend
    assert "not measured (24)" in legend
    visit(page, address, "?run=naive&metric=attention_norm&step=120")
    readout = page.locator("section[aria-label=curves] .readout").inner_text()
    assert re.search(r"layers\.2\s*NaN", readout)


def test_a_click_on_a_finding_pins_its_step_on_every_chart_and_shows_the_fix(page, address):
    visit(page, address, "?run=naive")
    page.get_by_role("button", name=re.compile("Gradient spike", re.I)).click()
    page.wait_for_selector(".detail")
    assert flags(page) == ["147"] * 4
    assert "finding=GRD001%3A%3A147" in page.url
    page.get_by_role("button", name=re.compile("Large initial", re.I)).click()
    assert page.get_by_label("Copy the code for all of these").is_visible()
    page.locator(".row", has_text="layers.1").click()
    detail = page.locator(".detail").inner_text()
    for part in (
        "243 at step 0",
        "the bias is 0",
        "limit 10",
        "bias −5.545",
        "model.layers.1.attention.bias.fill_(-5.545)",
    ):
        assert part in detail, part
    assert flags(page) == ["0"] * 4


def test_a_click_on_a_layer_opens_its_heads_and_back_closes_them(page, address):
    visit(page, address, "?run=naive&metric=row_mass")
    box = page.locator("section[aria-label=heatmap] .plot .nsewdrag").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 3 / 8)
    page.wait_for_selector("text=heads of layers.2")
    assert "layer=layers.2" in page.url
    assert page.locator("section[aria-label=curves] .value span").all_inner_texts() == [f"head {i}" for i in range(4)]
    page.go_back()
    page.wait_for_selector("text=by layer")
    assert "layer=" not in page.url


def test_an_address_brings_everything_back_after_a_reload(page, address):
    query = (
        "?run=naive&with=fixed&metric=row_mass&layer=layers.2&step=60&from=40&to=90"
        "&finding=ATT001%3Alayers.2%3A0&theme=dark"
    )
    visit(page, address, query)
    page.reload()
    page.wait_for_selector(".detail")
    page.wait_for_selector("section[aria-label=loss] .value >> nth=1")
    assert page.url == f"{address}/{query}"
    assert page.locator("select").input_value() == "row_mass"
    assert page.locator(".panel-note b").inner_text() == "layers.2"
    assert flags(page) == ["60"] * 4
    assert x_ranges(page) == [[40, 90]] * 4
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("section[aria-label=loss] .value span").all_inner_texts() == ["naive", "fixed"]
    assert page.get_by_label("Lay fixed over the chosen run").is_checked()


def test_back_and_forward_walk_through_runs_and_metrics(page, address):
    visit(page, address, "?run=naive")
    page.get_by_label("Metric").select_option("row_mass")
    page.wait_for_url("**metric=row_mass**")
    page.get_by_role("link", name=re.compile("^fixed")).click()
    page.wait_for_selector("#status .title:text('fixed')")
    page.go_back()
    page.wait_for_selector("#status .title:text('naive')")
    until(lambda: page.get_by_label("Metric").input_value() == "row_mass")
    page.go_back()
    until(lambda: page.get_by_label("Metric").input_value() == "attention_norm")


def test_two_tabs_show_two_runs(browser, page, address):
    visit(page, address, "?run=naive")
    other = browser.new_page()
    visit(other, address, "?run=fixed&theme=dark")
    visit(page, address, "?run=naive&metric=row_mass")
    assert other.locator("#status .title").inner_text() == "fixed"
    assert page.evaluate("document.documentElement.dataset.theme ?? ''") == ""
    other.close()


def test_a_drag_zooms_all_charts_and_f_shows_everything_again(page, address):
    visit(page, address, "?run=naive")
    full = x_ranges(page)[0]
    box = page.locator("section[aria-label=loss] .plot .nsewdrag").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
    page.mouse.up()
    page.wait_for_url("**from=**")
    ranges = x_ranges(page)
    assert all(limits == ranges[0] for limits in ranges)
    assert 70 <= ranges[0][0] <= 80
    assert 145 <= ranges[0][1] <= 155
    page.keyboard.press("f")
    page.wait_for_url(lambda url: "from=" not in url)
    until(lambda: x_ranges(page)[0] == full)


def test_keys_walk_along_findings_and_steps(page, address):
    visit(page, address, "?run=naive")
    page.keyboard.press("j")
    page.wait_for_url("**finding=ATT001%3Alayers.0%3A0**")
    page.keyboard.press("j")
    page.wait_for_url("**finding=ATT001%3Alayers.1%3A0**")
    page.keyboard.press("k")
    page.wait_for_url("**finding=ATT001%3Alayers.0%3A0**")
    page.keyboard.press("]")
    page.wait_for_url("**step=1&**")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.wait_for_url("**theme=**")


def test_pointing_shows_the_values_of_that_step_everywhere(page, address):
    visit(page, address, "?run=naive")
    box = page.locator("section[aria-label=heatmap] .plot .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 7 / 8)
    step = flags(page)[0]
    assert flags(page) == [step] * 4
    assert f"step {step} · layers.0 · " in page.locator("section[aria-label=heatmap] .readout").inner_text()


def test_the_heatmap_is_also_a_table_and_a_file(page, address):
    visit(page, address, "?run=naive&metric=attention_norm&from=100&to=130")
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


def test_a_live_run_grows_without_a_reload_and_stops_following_when_zoomed(page, address, folder):
    writer = folder.start("live")
    folder.write(writer, range(20))
    visit(page, address, "?run=live")
    assert page.locator(".following").count() == 1
    assert heatmap(page)["columns"] == 20
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    folder.write(writer, range(20, 45))
    until(lambda: heatmap(page)["columns"] == 45)
    until(lambda: "step44" in page.locator("#status").inner_text())
    assert not [url for url in sent if "/series/" in url or "/heatmap/" in url]
    visit(page, address, "?run=live&from=5&to=15")
    page.wait_for_selector(".paused")
    folder.write(writer, range(45, 50))
    time.sleep(1.2)
    assert x_ranges(page)[0] == [5, 15]
    page.locator(".paused").click()
    until(lambda: heatmap(page)["columns"] == 50)
    writer.close(RunState.FINISHED)
    page.wait_for_selector("#status .state-finished")
    assert page.locator(".following").count() == 0


def test_an_unknown_run_says_which_there_are_and_keeps_the_list(browser, address):
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


def test_it_works_on_a_small_screen(page, address):
    for width in (1024, 390):
        page.set_viewport_size({"width": width, "height": 800})
        visit(page, address, "?run=naive")
        until(lambda limit=width: page.evaluate("document.documentElement.scrollWidth") <= limit)
        assert page.locator("#verdict h1").is_visible()
