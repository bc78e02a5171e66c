"""Rules and words as pages."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_rules_are_listed_and_one_shows_its_limits_sources_and_plot(tab, page):
    tab.visit("?run=naive")
    page.get_by_role("button", name="Rules").click()
    page.wait_for_selector(".rules li")
    assert page.locator(".rules li").count() > 20
    page.get_by_role("link", name="large initial attention norm").click()
    page.wait_for_selector(".book .lead")
    assert page.url.endswith("?rules=ATT001")
    table = page.get_by_role("region", name="Limits").inner_text()
    assert "att.row_mass_max" in table
    assert "measured: 0.8 to 1.7" in table
    tab.until(lambda: page.locator(".book img").evaluate("image => image.naturalWidth > 0"))
    page.go_back()
    page.go_back()
    page.wait_for_selector("#status .title:text('naive')")


def test_a_finding_leads_to_its_rule_and_a_metric_to_its_word(tab, page):
    tab.visit("?run=naive&finding=GRD001%3A%3A147")
    page.locator("summary", has_text="About GRD001").click()
    page.get_by_role("button", name="GRD001 with its limits").click()
    page.wait_for_selector(".book h1:has-text('gradient spike')")
    tab.visit("?rules=glossary")
    page.wait_for_selector("#word-row_mass")
    assert "near 1" in page.locator(".glossary").inner_text()
