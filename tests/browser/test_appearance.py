"""How the pages look: direction of writing, dark and light, a narrow screen."""

from __future__ import annotations

import re

import pytest

PAGES = ("", "compare", "map", "documents", "about")
ARABIC = "هل يشترط رضا الزوجين في الزواج؟"
HEBREW = "האם החינוך חייב להיות חינם?"

_LOOKS_RIGHT_TO_LEFT = """element => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const lines = [...range.getClientRects()].filter(box => box.width > 20);
  const box = element.getBoundingClientRect();
  const first = lines[0];
  return {rtl: element.matches(':dir(rtl)'), right: box.right - first.right, left: first.left - box.left};
}"""

_LUMINANCE = """selector => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = colours => {  // painted one upon the other, as on the screen
    for (const colour of ['white', ...colours]) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map(value => channel(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const grounds = [];
  for (let each = document.querySelector(selector); each; each = each.parentElement)
    grounds.unshift(getComputedStyle(each).backgroundColor);
  return [light([...grounds, getComputedStyle(document.querySelector(selector)).color]), light(grounds)];
}"""


def contrast(page, selector):
    """Contrast of an element's text with its ground after WCAG, 1 to 21, and how light the ground is."""
    text, ground = page.page.evaluate(_LUMINANCE, selector)
    return (max(text, ground) + 0.05) / (min(text, ground) + 0.05), ground


@pytest.mark.parametrize(("tag", "question"), [("ar", ARABIC), ("he", HEBREW)], ids=["Arabic", "Hebrew"])
def test_text_from_right_to_left(page, tag, question):
    page.open(q=question, language=tag)
    assert not page.errors
    card = page.cards.first.locator(".f2-text")
    assert card.get_attribute("lang") == tag
    seen = card.evaluate(_LOOKS_RIGHT_TO_LEFT)
    assert seen["rtl"]
    assert seen["right"] < 2  # lines begin at the right edge
    assert page.cards.first.locator(".f2-score").evaluate("element => !element.matches(':dir(rtl)')")
    box = page.keyed("q").locator("input")
    assert box.evaluate("element => getComputedStyle(element).unicodeBidi") == "plaintext"
    page.shoot(f"search-rtl-{tag}")


def test_text_from_left_to_right_stays_where_it_was(page):
    page.open(q=ARABIC, language="en")
    seen = page.cards.first.locator(".f2-text").evaluate(_LOOKS_RIGHT_TO_LEFT)
    assert not seen["rtl"]
    assert seen["left"] < 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page, app, scheme):
    page = open_page(app, color_scheme=scheme)
    page.open(q="Must education be free of charge?")
    for selector in ("article .f2-text", "article mark", "h1", "article .f2-score"):
        ratio, ground = contrast(page, selector)
        assert ratio >= 4.5, (selector, ratio)
    _, ground = contrast(page, "h1")
    assert ground < 0.1 if scheme == "dark" else ground > 0.9
    page.shoot(f"search-{scheme}")


def test_all_pages_are_dark_where_the_system_is(open_page, app):
    page = open_page(app, color_scheme="dark")
    for path in PAGES[1:]:
        page.open(path, **({"q": "Can I change my religion?"} if path in ("compare", "map") else {}))
        assert not page.errors
        ratio, ground = contrast(page, "h1")
        assert ratio >= 4.5
        assert ground < 0.1
        page.shoot(f"{path}-dark")


@pytest.mark.parametrize("path", PAGES)
def test_a_narrow_screen_needs_no_scrolling_sideways(open_page, app, path):
    page = open_page(app, width=390, height=844, has_touch=True)
    page.open(path, **({"q": "Can I change my religion?"} if path in ("", "compare", "map") else {}))
    assert not page.errors
    assert page.sideways() == 0
    outside = page.page.evaluate(
        """() => [...document.querySelectorAll('[data-testid="stMain"] article, [data-testid="stMain"] h1, '
          + '[data-testid="stMain"] button, [data-testid="stMain"] input, [data-testid="stMain"] canvas')]
          .filter(element => element.checkVisibility() && !element.closest('[data-testid="stButtonGroup"]'))
          .map(element => [element.tagName, element.getBoundingClientRect().right])
          .filter(([, right]) => right > window.innerWidth + 1)"""
    )
    assert not outside
    page.shoot(f"{path or 'search'}-narrow")


def test_the_controls_open_on_a_narrow_screen(open_page, app):
    page = open_page(app, width=390, height=844, has_touch=True)
    page.open(q="Can I change my religion?")
    page.page.get_by_test_id("stExpandSidebarButton").click()
    page.choose("dimensions", "64")
    assert re.search(r"dimensions=64", page.page.url)
