"""A real browser on a real server; skipped where there is no chromium."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 120
"""Seconds that playwright waits for an element, on a loaded machine too."""
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
RANGES = """() => [...document.querySelectorAll("section.panel[data-range]:not([hidden])")].map(
    (panel) => panel.dataset.range.split(" ").map(Number))"""
PIXEL = """([name, step, part]) => {
    const panel = document.querySelector(`section.panel[aria-label="${name}"]`);
    const [from, to] = panel.dataset.range.split(" ").map(Number);
    const canvas = panel.querySelector("canvas");
    const [left, right, top, bottom] = [84, 66, 6, 24];
    const [wide, high] = [canvas.clientWidth - left - right, canvas.clientHeight - top - bottom];
    const [x, y] = [left + ((step - from) / (to - from)) * wide, top + (1 - part) * high];
    const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, -Math.round(x), -Math.round(y));
    return [...copy.getImageData(0, 0, 1, 1).data];
}"""
GO = "query => { history.pushState(null, '', query || '/'); dispatchEvent(new PopStateEvent('popstate')); }"


class Tab:
    """A tab on the page, what it asked other hosts for, and what it complained about."""

    def __init__(self, context, address: str, wait_until: Callable[[Callable[[], object]], None]) -> None:
        self.page = context.new_page()
        self.address, self.wait_until = address, wait_until
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked(request.url))
        self.page.on("console", lambda said: self.said(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(error.stack))

    def asked(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.foreign.append(url)

    def said(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def visit(self, query: str) -> None:
        """Go to an address of the page; within the page, as Back does, where it is open already."""
        if self.page.url.startswith(self.address):
            self.page.evaluate(GO, query)
        else:
            self.page.goto(f"{self.address}/{query}")
        self.until(lambda: self.page.locator("#panels").get_attribute("data-drawn") == query)

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds; the page's own policy forbids waiting inside it."""
        self.wait_until(holds)

    def heatmap(self) -> dict:
        """Return the numbers of rows and of samples that the heatmap shows."""
        cells = self.page.locator("section[aria-label=heatmap]").get_attribute("data-cells")
        return dict(zip(("rows", "columns"), map(int, (cells or "0 x 0").split(" x ")), strict=True))

    def pixel(self, panel: str, step: float, part: float) -> list[int]:
        """Return red, green, blue and opacity of a plot at a step, at a part of its height from the bottom."""
        return self.page.evaluate(PIXEL, [panel, step, part])

    def area(self, panel: str) -> dict[str, float]:
        """Return the place of a panel's plotting area."""
        box = self.page.locator(f"section[aria-label={panel}] .plot").bounding_box()
        left, right, top, bottom = 84, 66, 6, 24
        size = {"width": box["width"] - left - right, "height": box["height"] - top - bottom}
        return {"x": box["x"] + left, "y": box["y"] + top} | size

    def ranges(self) -> list[list[float]]:
        """Return the first and last step in sight of each plot."""
        return self.page.evaluate(RANGES)

    def flags(self) -> list[str]:
        """Return the step that each plot's cursor shows."""
        return self.page.locator(".cursor:visible .cursor-flag").all_inner_texts()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Start chromium; for one file at a time, because playwright keeps an event loop running in this thread."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with tempfile.TemporaryDirectory() as profile, playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(FLAGS), accept_downloads=True
        )
        context.set_default_timeout(PATIENCE * 1000)
        yield context
        context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_store):
    """Two finished runs; a test may write more."""
    store = make_store(tmp_path_factory.mktemp("page"))
    store.finished("naive", naive=True, age=timedelta(minutes=20))
    store.finished("fixed", age=timedelta(minutes=10))
    return store


@pytest.fixture(scope="module")
def address(folder, make_server) -> Iterator[str]:
    server = make_server(folder.directory)
    yield server.address
    server.stop()


@pytest.fixture(scope="module")
def kept_tab(browser, address, wait_until) -> Tab:
    """One tab for most tests: loading a page takes seconds, changing its address does not."""
    return Tab(browser, address, wait_until)


@pytest.fixture
def tab(kept_tab) -> Iterator[Tab]:
    """The tab, which may connect to its own server alone, and must not complain."""
    kept_tab.foreign.clear()
    kept_tab.complaints.clear()
    kept_tab.page.set_viewport_size({"width": 1440, "height": 900})
    yield kept_tab
    kept_tab.page.evaluate("localStorage.clear()")
    assert kept_tab.foreign == []
    assert kept_tab.complaints == []


@pytest.fixture
def page(tab):
    """The tab's page, as playwright has it."""
    return tab.page
