"""The table of all runs: two answers a run, its progress, its settings; searched and sorted."""

import re

import pytest

from stabmon.records import RunState

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def names(page) -> list[str]:
    return page.locator("table.home .run-name").all_inner_texts()


def test_a_run_has_process_health_progress_and_the_settings_that_differ(tab, page):
    tab.visit("")
    page.wait_for_selector("table.home")
    row = page.locator("table.home tr", has=page.locator(".run-name:text-is('naive')")).inner_text()
    for part in (
        "finished",
        "Unhealthy since step 0",
        "large initial attention norm in layers.0 to layers.3",
        "300 of 300",
    ):
        assert part in row, part
    heads = page.locator("table.home thead th").all_inner_texts()
    assert heads == ["run", "process", "health", "progress", "loss", "worst row mass", "model.bias", "updated"]
    fixed = page.locator("table.home tr", has=page.locator(".run-name:text-is('fixed')"))
    assert "-5.545" in fixed.inner_text()
    assert fixed.locator("svg.spark").count() == 2


def test_the_table_is_searched_and_sorted_and_the_address_keeps_both(tab, page):
    tab.visit("?sort=name")
    tab.until(lambda: names(page) == ["fixed", "naive"])
    page.get_by_role("button", name=re.compile("^run")).click()
    tab.until(lambda: names(page) == ["naive", "fixed"])
    assert "sort=-name" in page.url
    page.get_by_role("button", name="health").click()
    tab.until(lambda: names(page) == ["naive", "fixed"])
    page.get_by_label("Search the runs").fill("bias=-5")
    tab.until(lambda: names(page) == ["fixed"])
    assert page.get_by_role("status").last.inner_text() == "1 of 2 runs"
    page.reload()
    tab.until(lambda: names(page) == ["fixed"])
    assert page.get_by_label("Search the runs").input_value() == "bias=-5"
    page.get_by_label("Search the runs").fill("nothing of the kind")
    page.wait_for_selector("text=No run matches the search.")


def test_a_name_leads_to_the_run(tab, page):
    tab.visit("")
    page.get_by_role("link", name="naive").click()
    page.wait_for_selector("#status .title:text('naive')")
    assert page.locator("table.home").count() == 0


def test_a_row_of_a_live_run_moves_on_and_says_how_it_ended(tab, page, folder):
    writer = folder.start("live")
    folder.write(writer, range(30))
    tab.visit("")
    row = page.locator("table.home tr", has=page.locator(".run-name:text-is('live')"))
    tab.until(lambda: "30 of 300" in row.inner_text())
    assert "running" in row.inner_text()
    folder.write(writer, range(30, 60))
    tab.until(lambda: "60 of 300" in row.inner_text())
    writer.close(RunState.FAILED, dropped=3)
    tab.until(lambda: "failed, 3 of 63 samples lost" in row.inner_text())


def test_the_table_fits_a_small_screen(tab, page):
    page.set_viewport_size({"width": 390, "height": 800})
    tab.visit("?sort=health")
    tab.until(lambda: page.evaluate("document.documentElement.scrollWidth") <= 390)
    health = page.locator("table.home tr", has=page.locator(".run-name:text-is('naive')")).locator(".health-cell")
    box = health.bounding_box()
    assert 0 <= box["x"] < box["x"] + box["width"] <= 390


def test_runs_in_folders_are_groups_and_an_archive_is_folded(tab, page, folder, make_store):
    make_store(folder.directory / "sweep").finished("lr-1")
    make_store(folder.directory / "archive").finished("old")
    tab.visit("")
    tab.until(lambda: "lr-1" in names(page))
    assert "old" not in names(page)
    page.get_by_role("button", name="archive").click()
    tab.until(lambda: "old" in names(page))
    page.get_by_role("button", name="sweep").click()
    tab.until(lambda: "lr-1" not in names(page))
    page.get_by_label("Search the runs").fill("sweep")
    tab.until(lambda: names(page) == ["lr-1"])
    page.get_by_role("link", name="lr-1").click()
    page.wait_for_selector("#status .title:text('sweep/lr-1')")
    tab.until(lambda: tab.heatmap()["columns"] == 300)


def test_runs_chosen_in_the_table_are_compared(tab, page):
    tab.visit("")
    page.get_by_label("Choose naive to compare").check()
    assert page.get_by_role("button", name="Compare").count() == 0
    page.get_by_label("Choose fixed to compare").check()
    page.get_by_role("button", name="Compare 2 runs").click()
    page.wait_for_selector("text=2 runs compared")
