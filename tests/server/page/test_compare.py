"""Runs compared: settings, findings, where they part, heatmaps on one scale or as a ratio."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def table(page, title: str) -> list[list[str]]:
    rows = page.get_by_role("region", name=f"{title} of the runs").locator("tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def test_settings_findings_and_partings_stand_side_by_side(tab, page):
    tab.visit("?run=naive&with=fixed&metric=row_mass")
    tab.until(lambda: ["model.bias", "0", "-5.545"] in table(page, "Settings"))
    findings = {cells[0]: [cell.strip() for cell in cells[1:]] for cells in table(page, "Findings")}
    assert findings["ATT001 large initial attention norm"] == ["error: layers.0 to layers.3, since step 0", "–"]
    assert (
        "by more than 10 % from step 0 (row mass of layers.0: 1.19 against 133)"
        in page.locator(".partings").inner_text()
    )
    assert page.locator(".heats section").count() == 1
    page.get_by_label("Take fixed out").click()
    tab.until(lambda: page.locator(".compared:visible").count() == 0)
    assert "with=" not in page.url
    assert page.locator(".heats section").count() == 0


def test_heatmaps_share_a_scale_or_are_a_ratio(tab, page):
    tab.visit("?run=naive&with=fixed&metric=row_mass")
    other = "heatmap of fixed"
    assert tab.pixel(other, 100, 0.5) == pytest.approx([244, 242, 238, 255], abs=4), "near 1 on the scale of both"
    page.get_by_role("button", name="on one scale").click()
    page.wait_for_selector("text=fixed ÷ naive")
    red, _, blue, _ = tab.pixel(other, 100, 0.5)
    assert blue > red + 60, "far below naive"
    assert "compare=ratio" in page.url


def test_six_runs_can_be_compared_and_their_names_distinguished(tab, page, folder):
    for index in range(5):
        folder.finished(f"seed-{index}-of-a-long-name-that-says-a-lot")
    query = "?run=naive" + "".join(f"&with=seed-{index}-of-a-long-name-that-says-a-lot" for index in range(5))
    tab.visit(query)
    page.wait_for_selector("text=6 runs compared")
    strokes = page.locator("section[aria-label=loss] .stroke").evaluate_all(
        "all => all.map((one) => one.style.borderTop)"
    )
    assert len(set(strokes)) == 6
    for width in (1024, 390):
        page.set_viewport_size({"width": width, "height": 844})
        tab.until(lambda limit=width: page.evaluate("document.documentElement.scrollWidth") <= limit)
