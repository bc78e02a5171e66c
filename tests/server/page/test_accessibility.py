"""axe finds no violation in any view, in either theme; axe-core is that of axe-playwright-python."""

from importlib.resources import files

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]
VIEWS = {
    "home": "",
    "run": "?run=naive",
    "finding": "?run=naive&finding=ATT001%3Alayers.1%3A0",
    "layers": "?run=naive&view=layers&metric=row_mass&from=10&to=90",
    "compared": "?run=naive&with=fixed&metric=row_mass",
    "missing": "?run=lossy",
    "rules": "?rules=all",
    "rule": "?rules=ATT001",
    "glossary": "?rules=glossary",
}
RUN = """async () => (await axe.run()).violations.map(
    ({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 160))])"""


@pytest.fixture(scope="module")
def axe() -> str:
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (files(package) / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lossy(folder) -> None:
    from stabmon.records import Failure, RunState

    writer = folder.start("lossy")
    folder.write(writer, range(20))
    writer.failures([Failure(subject="learning rate", reason="it is no number", first_step=3, last_step=9, count=4)])
    writer.close(RunState.FAILED, dropped=12)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_no_violation(tab, page, axe, lossy, theme, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(reduced_motion="reduce")  # or colours are measured while they fade in
    found = {}
    for name, query in VIEWS.items():
        tab.visit(f"{query}{'&' if query else '?'}theme={theme}")
        page.evaluate(axe)
        found[name] = page.evaluate(RUN)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.evaluate("document.activeElement?.blur()")
    page.keyboard.press("?")
    found["keys"] = page.evaluate(RUN)
    page.keyboard.press("Escape")
    assert {name: problems for name, problems in found.items() if problems} == {}
