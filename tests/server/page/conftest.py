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
HEATMAP = """() => {
    const { data } = document.querySelector("section[aria-label=heatmap] .plot");
    const odd = data.length > 1 ? data[1].z.flat().filter((cell) => cell === 1).length : 0;
    return { rows: data[0].z.length, columns: data[0].z[0].length, odd };
}"""
RANGES = "() => [...document.querySelectorAll('.plot')].map((plot) => plot._fullLayout.xaxis.range)"
GO = "query => { history.pushState(null, '', query); dispatchEvent(new PopStateEvent('popstate')); }"


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
        """Return the heatmap's rows and columns, and how many of its cells are marked as not finite."""
        return self.page.evaluate(HEATMAP)

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
    assert kept_tab.foreign == []
    assert kept_tab.complaints == []


@pytest.fixture
def page(tab):
    """The tab's page, as playwright has it."""
    return tab.page
