"""The other pages in a real browser: compare, map, about, and the way between them."""

from __future__ import annotations

import re

from playwright.sync_api import expect


def test_one_goes_from_page_to_page_and_the_question_comes_along(page):
    page.open(q="Can I change my religion?")
    for name in ("Compare", "Map", "Documents", "About", "Search"):
        page.click(page.page.get_by_role("link", name=name, exact=True))
        assert not page.errors
        if name in ("Compare", "Map", "Search"):
            assert page.keyed("q").locator("input").input_value() == "Can I change my religion?", name


def test_compare_sets_two_sizes_side_by_side(page):
    page.open("compare", q="Can I change my religion?")
    assert not page.errors
    assert page.cards.count() == 20
    shared = int(re.search(r"overlap@10: (\d+)%", page.page.locator("body").inner_text())[1])
    left, right = page.texts[:10], page.texts[10:]
    assert shared == 10 * len(set(left) & set(right))
    assert 0 < shared < 100
    page.shoot("compare")
    page.choose("right_dimensions", "256")
    assert "overlap@10: 100%" in page.page.locator("body").inner_text()
    assert page.texts[:10] == page.texts[10:]


def test_the_recall_curve_is_drawn_on_demand(page):
    page.open("compare")
    page.keyed("curve").get_by_role("button").click()
    chart = page.page.get_by_test_id("stVegaLiteChart")
    expect(chart.locator("canvas, svg").first).to_be_visible(timeout=240_000)
    page.settle()
    assert not page.errors
    page.shoot("compare-curve")


def test_the_map_shows_the_collection_and_the_question(page):
    page.open("map", q="Can I change my religion?")
    assert not page.errors
    chart = page.page.get_by_test_id("stVegaLiteChart")
    expect(chart.locator("canvas, svg").first).to_be_visible()
    box = chart.first.bounding_box()
    assert box["width"] > 400
    assert box["height"] > 250
    page.shoot("map")


def test_hovering_the_map_tells_the_text(page):
    page.open("map", q="Can I change my religion?")
    canvas = page.page.get_by_test_id("stVegaLiteChart").locator("canvas").first
    box = canvas.bounding_box()
    tooltip = page.page.locator("#vg-tooltip-element.visible")
    for step in range(1, 400):
        across, down = 0.05 + 0.9 * (step * 0.618 % 1), 0.1 + 0.5 * (step * 0.414 % 1)
        page.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        page.page.wait_for_timeout(20)
        if tooltip.count():
            break
    assert len(tooltip.inner_text()) > 20


def test_about_says_what_runs_and_what_it_cannot_do(page):
    page.open("about")
    text = page.page.get_by_test_id("stMain").inner_text()
    assert "This is the stand-in, not F2LLM-v2" in text
    for word in ("Revision", "Device", "Attention", "Licence", "Apache-2.0", "8,192", "Qwen3-Embedding"):
        assert word in text
    page.shoot("about")
