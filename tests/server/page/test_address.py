"""The address holds what is shown: a reload, Back and another tab each find it again."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_an_address_brings_everything_back_after_a_reload(tab, page):
    query = (
        "?run=naive&with=fixed&metric=row_mass&layer=layers.2&step=60&from=40&to=90"
        "&finding=ATT001%3Alayers.2%3A0&theme=dark"
    )
    tab.visit(query)
    page.reload()
    page.wait_for_selector(".detail")
    page.wait_for_selector("section[aria-label=loss] .value >> nth=1")
    assert page.url == f"{tab.address}/{query}"
    assert page.locator("select").input_value() == "row_mass"
    assert page.locator(".panel-note b").inner_text() == "layers.2"
    assert tab.flags() == ["60"] * 5
    assert tab.ranges() == [[40, 90]] * 5
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("section[aria-label=loss] .value span").all_inner_texts() == ["naive", "fixed"]
    assert page.get_by_label("Lay fixed over the chosen run").is_checked()


def test_back_and_forward_walk_through_runs_and_metrics(tab, page):
    tab.visit("?run=naive")
    page.get_by_label("Metric").select_option("row_mass")
    page.wait_for_url("**metric=row_mass**")
    page.get_by_role("link", name=re.compile("^fixed")).click()
    page.wait_for_selector("#status .title:text('fixed')")
    page.go_back()
    page.wait_for_selector("#status .title:text('naive')")
    tab.until(lambda: page.get_by_label("Metric").input_value() == "row_mass")
    page.go_back()
    tab.until(lambda: page.get_by_label("Metric").input_value() == "attention_norm")


def test_a_chosen_theme_is_kept_for_the_next_tab(browser, tab, page, address):
    tab.visit("?run=naive&theme=light")
    page.get_by_label("Light or dark (t)").click()
    page.wait_for_url("**theme=dark**")
    other = type(tab)(browser, address, tab.wait_until)
    other.visit("?run=fixed")
    assert other.page.evaluate("document.documentElement.dataset.theme") == "dark"
    other.page.close()


def test_the_brand_leads_to_the_table_of_all_runs_and_back_to_the_run(tab, page):
    tab.visit("?run=naive")
    page.locator("#brand").click()
    page.wait_for_selector("table.home")
    assert page.locator(".runs:visible, .findings:visible, .panel:visible").count() == 0
    page.go_back()
    page.wait_for_selector("#status .title:text('naive')")


def test_two_tabs_show_two_runs(browser, tab, address):
    tab.visit("?run=naive")
    other = type(tab)(browser, address, tab.wait_until)
    other.visit("?run=fixed&theme=dark")
    tab.visit("?run=naive&metric=row_mass")
    assert other.page.locator("#status .title").inner_text() == "fixed"
    assert tab.page.evaluate("document.documentElement.dataset.theme ?? ''") == ""
    other.page.close()


def test_a_drag_zooms_all_charts_and_f_shows_everything_again(tab, page):
    tab.visit("?run=naive")
    full = tab.ranges()[0]
    box = tab.area("loss")
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
    page.mouse.up()
    page.wait_for_url("**from=**")
    ranges = tab.ranges()
    assert all(limits == ranges[0] for limits in ranges)
    assert 70 <= ranges[0][0] <= 80
    assert 145 <= ranges[0][1] <= 155
    page.keyboard.press("f")
    page.wait_for_url(lambda url: "from=" not in url)
    tab.until(lambda: tab.ranges()[0] == full)


def test_keys_walk_along_findings_and_steps(tab, page):
    tab.visit("?run=naive")
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
