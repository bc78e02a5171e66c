"""The picture of the page in the README: ``python -m stabmon.server.picture RUNS``, over the runs of ``stabmon demo``.

Needs playwright and Chromium.
"""

import argparse
import shutil
from pathlib import Path
from urllib.parse import urlencode

from stabmon.server.bench import served

PICTURE = Path(__file__).parent / "page.png"
SHOWN = {"run": "naive", "metric": "row_mass", "finding": "ATT001:layers.0:0", "theme": "light"}
"""The demo's naive run, with what was found first."""


def take(folder: Path, file: Path) -> None:
    """Write a picture of the page over the runs in ``folder`` to ``file``."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with served(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page.goto(f"{address}/?{urlencode(SHOWN)}")
        page.wait_for_selector("#panels[data-drawn]")
        page.wait_for_timeout(500)
        page.screenshot(path=file)
        browser.close()


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(prog="python -m stabmon.server.picture", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder that stabmon demo made")
    parser.add_argument("--to", type=Path, default=PICTURE, help="file to write")
    given = parser.parse_args()
    take(given.runs, given.to)


if __name__ == "__main__":
    main()
