"""Figures of the service on this machine: ``python -m stabmon.server.bench``; those of the page need playwright.

Makes runs in a temporary folder: one of ten million values (24 layers, 16 heads, 5 metrics), a thousand small ones, and
one that is written while it is looked at. Prints a line a figure; nothing here is a test.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from stabmon.records import Attention, Heartbeat, ModelMap, RunInfo, RunState
from stabmon.series import Layout
from stabmon.server import stream_bench
from stabmon.store import RunWriter

LAYERS, HEADS = 24, 16
METRICS = ("attention_norm", "row_mass", "logit_max", "logit_std", "saturated_fraction")
STEPS = 5200
"""Samples of the large run: times 1,922 columns, ten million values."""
REQUESTS = 40
"""Requests of each kind."""
OPENED = 5
"""Times that a page is opened, each in a browser profile that has nothing of it."""
PAINTED = """
const marks = {};
const frame = requestAnimationFrame;
const painted = (name) => frame(() => frame(() => { marks[name] = performance.now(); }));
const parts = { verdict: "#verdict h1", heatmap: "section[data-cells]", runs: "table.home tbody tr" };
globalThis.marks = marks;
new MutationObserver(() => {
  for (const [name, selector] of Object.entries(parts)) {
    if (!(name in marks) && document.querySelector(selector)) [marks[name] = null, painted(name)];
  }
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
"""Script that notes when each part was painted first, in milliseconds since the address was asked for."""
STREAMS, IDLE = 200, 20
"""Clients that hold a server open when it is ended: those that follow a run, and of each kind that does nothing."""
WATCHED = 10
"""Seconds for which the page of a live run is watched."""


def write(folder: Path, steps: int) -> RunWriter:
    """Write ``steps`` samples of a run of 24 layers and 16 heads, and leave it open."""
    names = [f"layers.{index}" for index in range(LAYERS)]
    layout = Layout.of(
        [(metric, name, HEADS) for metric in METRICS for name in names]
        + [("loss", None, 1), ("total_gradient_norm", None, 1)]
    )
    model = ModelMap(attentions=tuple(_attention(name) for name in names), parameters=1)
    writer = RunWriter.create(folder, RunInfo(name=folder.name, created=datetime.now(UTC), model=model), layout)
    add(writer, range(steps))
    return writer


def _attention(name: str) -> Attention:
    return Attention(
        layer=name, module=name, block=name, branch=name, kind="sigmoid", heads=HEADS, head_dim=64, max_length=1024
    )


def add(writer: RunWriter, steps: range) -> None:
    """Add samples and a heartbeat."""
    generator = np.random.default_rng(steps.start)
    level = np.random.default_rng(0).lognormal(size=writer.layout.width)
    for step in steps:
        values = level * generator.lognormal(sigma=0.05, size=len(level))
        writer.sample(step, time.time(), values.astype(np.float32))
    writer.heartbeat(Heartbeat(state=RunState.RUNNING, step=steps[-1], time=time.time(), overhead=0.004))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` in a process of its own for the length of the block; yield the address."""
    with stream_bench.server(folder) as (_, host, port):
        yield f"http://{host}:{port}"


def milliseconds(act: Callable[[], object]) -> float:
    """Return how long ``act`` takes."""
    start = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - start)


def say(what: str, figure: str) -> None:
    """Print one figure."""
    print(f"{what:<58} {figure}", flush=True)


def bench_api(address: str, run: str) -> None:
    """Print the 95th percentile of each kind of request to a large run."""
    kinds = (f"runs/{run}", f"runs/{run}/digest", f"runs/{run}/series/loss", f"runs/{run}/series/row_mass")
    for path in (*kinds, f"runs/{run}/heatmap/attention_norm", "rules"):
        times = [milliseconds(partial(fetch, f"{address}/api/v1/{path}")) for _ in range(REQUESTS)]
        say(f"GET {path}: 95th percentile", f"{np.percentile(times, 95):.0f} ms")


def fetch(url: str) -> bytes:
    """Return the body of ``url``."""
    with urlopen(url) as response:
        body: bytes = response.read()
    return body


def bench_list(address: str, count: int) -> None:
    """Print how long the list of ``count`` runs takes: at first, until all are read, and then."""
    url = f"{address}/api/v1/runs"
    say(f"list of {count:,} runs: first answer", f"{milliseconds(lambda: fetch(url)):.0f} ms")

    def read() -> None:
        while b'"pending":true' in fetch(url):
            time.sleep(0.5)

    say(f"list of {count:,} runs: all are read after", f"{milliseconds(read) / 1000:.1f} s")
    for what, path in (("list", url), ("metrics", f"{address}/metrics")):
        times = [milliseconds(partial(fetch, path)) for _ in range(REQUESTS)]
        say(f"{what} of {count:,} runs: 95th percentile", f"{np.percentile(times, 95):.0f} ms")


def bench_end(folder: Path, run: str) -> None:
    """Print how long a server takes to end while many clients hold it open."""
    found = stream_bench.end(folder, run, "loss,row_mass", streams=STREAMS, idle=IDLE)
    what = f"SIGTERM with {STREAMS} streams, {IDLE} unread ones, {IDLE} half requests"
    say(what, f"{found.seconds:.2f} s ({found.busy:.2f} s of processor time)")


def bench_page(address: str, large: str, live: RunWriter, browser: Any) -> None:
    """Print what a reader waits for, and what a live update costs the page's main thread."""
    for part in ("verdict", "heatmap"):
        say(f"page of ten million values: {part} is painted", opened(browser, f"{address}/?run={large}", part))
    page = browser.new_page()
    page.goto(f"{address}/?run={Path(live.target.where).name}")
    page.wait_for_selector(".following")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # its own time, on a busy machine too

    def busy() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    def share() -> float:
        before = busy()
        page.wait_for_timeout(1000 * WATCHED)
        return (busy() - before) / WATCHED

    idle = share()
    stop = threading.Event()
    writing = threading.Thread(target=_go_on, args=(live, stop))
    writing.start()
    page.wait_for_timeout(2000)
    shares = f"{100 * share():.1f} %, {100 * idle:.1f} % where nothing is written"
    stop.set()
    writing.join()
    say("live run of 24 layers and 16 heads: main thread", shares)


def opened(browser: Any, url: str, part: str) -> str:
    """Return the median and the longest time until ``part`` of a page was painted."""
    times = []
    for _ in range(OPENED):
        context = browser.new_context()
        page = context.new_page()
        page.add_init_script(PAINTED)
        page.goto(url)
        while not (time_taken := page.evaluate(f"marks.{part}")):  # the page's policy forbids waiting inside it
            page.wait_for_timeout(20)
        times.append(time_taken / 1000)
        context.close()
    return f"{np.median(times):.2f} s, at most {max(times):.2f} s"


def _go_on(writer: RunWriter, stop: threading.Event) -> None:
    step = 500
    while not stop.wait(0.2):
        add(writer, range(step, step + 1))
        step += 1


def main() -> None:
    """Print all figures."""
    argparse.ArgumentParser(prog="python -m stabmon.server.bench", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, many = Path(made) / "runs", Path(made) / "many"
        write(folder / "large", STEPS).close(RunState.FINISHED)
        live = write(folder / "live", 500)
        with served(folder) as address:
            bench_api(address, "large")
            try:
                from playwright.sync_api import sync_playwright
            except ImportError:
                say("page", "not measured: playwright is not installed")
            else:
                with sync_playwright() as driver:
                    path = shutil.which("chromium") or shutil.which("chromium-browser")
                    browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
                    bench_page(address, "large", live, browser)
                    browser.close()
        bench_end(folder, "live")
        live.close(RunState.FINISHED)
        write(many / "run-0", 50).close(RunState.FINISHED)
        for count in (300, 1000):
            for index in range(count):
                if not (many / f"run-{index}").exists():
                    shutil.copytree(many / "run-0", many / f"run-{index}")
            with served(many) as address:
                bench_list(address, count)


if __name__ == "__main__":
    main()
