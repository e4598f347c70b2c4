"""Documents in a real browser: uploaded, searched, replaced, deleted; and what a hostile one can do."""

from __future__ import annotations

import json
import re
import uuid

import pytest
from playwright.sync_api import expect

LIGHTHOUSE = "The lighthouse keeper of Skerryvore counts the ships.\n\nOn stormy nights he lights a second lamp.\n"
HOSTILE = (
    'A hostile note <script>window.broken = 1</script> <img src=x onerror="window.broken = 1"> '
    "<svg onload=window.broken=1> [a link](javascript:window.broken=1) **bold** $x^2$ :red[red] &amp; <b>done</b>"
)


@pytest.fixture
def collection():
    return f"browser-{uuid.uuid4().hex[:8]}"


def take_target(page, name):
    box = page.keyed("target").locator("input")
    box.fill(name)
    with page.rerun():
        box.press("Enter")


def upload(page, collection, *files):
    page.open("documents")
    with page.rerun():
        page.keyed("upload").locator('input[type="file"]').set_input_files(
            [{"name": name, "mimeType": kind, "buffer": content.encode()} for name, kind, content in files]
        )
    take_target(page, collection)
    page.click(page.keyed("index").get_by_role("button"))
    expect(page.page.get_by_text(re.compile("Chunks: "))).to_be_visible()
    return page.settle()


def report(page):
    """Chunks added, updated, unchanged and removed."""
    return page.page.get_by_text(re.compile("Chunks: ")).inner_text().partition("Chunks: ")[2].strip(". ")


def test_files_are_uploaded_searched_replaced_and_deleted(page, collection):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ("Ein roter Apfel.", "Two green pears."))
    upload(page, collection, ("lighthouse.md", "text/markdown", LIGHTHOUSE), ("fruit.jsonl", "application/json", rows))
    assert not page.errors
    assert report(page) == "3 added, 0 updated, 0 unchanged, 0 removed"
    page.shoot("documents-indexed")
    page.open(collection=collection, q="Who looks after the lighthouse?")
    assert "lighthouse keeper" in page.texts[0]
    assert "lighthouse.md" in page.cards.first.inner_text()
    assert page.cards.count() == 3
    page.shoot("search-own-documents")

    upload(page, collection, ("lighthouse.md", "text/markdown", LIGHTHOUSE))
    assert report(page) == "0 added, 0 updated, 1 unchanged, 0 removed"
    upload(page, collection, ("lighthouse.md", "text/markdown", "The lighthouse keeper has retired."))
    page.open(collection=collection, q="Who looks after the lighthouse?")
    assert page.texts[0] == "The lighthouse keeper has retired."
    assert page.cards.count() == 3

    page.open("documents", collection=collection)
    row = page.page.locator('[class*="st-key-source-"]').filter(has_text="lighthouse.md")
    page.click(row.get_by_role("button", name="Delete"))
    page.shoot("documents-confirm")
    page.click(page.page.get_by_role("button", name="Delete for good"))
    expect(row).to_have_count(0)
    page.open(collection=collection, q="Who looks after the lighthouse?")
    assert page.cards.count() == 2
    assert not [text for text in page.texts if "lighthouse" in text]


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_indexed(page, collection):
    upload(
        page,
        collection,
        ("broken.pdf", "application/pdf", "no pdf at all"),
        ("good.txt", "text/plain", "A good text."),
    )
    assert report(page).startswith("1 added")
    assert page.page.get_by_text(re.compile("1 skipped")).is_visible()
    assert page.page.get_by_text(re.compile("broken.pdf")).first.is_visible()
    assert not page.errors
    page.shoot("documents-skipped")


def test_a_hostile_text_is_shown_as_text_on_every_page(page, collection):
    page.open("documents")
    page.page.get_by_role("tab", name="Paste text").click()
    title = page.keyed("paste_title").locator("input")
    title.fill('<img src=x onerror="window.broken = 1">')
    with page.rerun():
        title.press("Enter")
    text = page.keyed("paste").locator("textarea")
    text.fill(HOSTILE)
    with page.rerun():
        text.press("Control+Enter")
    take_target(page, collection)
    page.click(page.keyed("index").get_by_role("button"))
    expect(page.page.get_by_text(re.compile("Chunks: 1 added"))).to_be_visible()
    page.settle()
    assert page.page.locator('[class*="st-key-source-"]').get_by_text('<img src=x onerror="window.broken = 1">').count()
    page.shoot("documents-hostile")
    for path in ("", "compare", "map"):
        page.open(path, collection=collection, q="a hostile note")
        assert not page.errors
        if path != "map":
            assert page.texts[0] == HOSTILE
        assert page.page.evaluate("() => window.broken") is None
        assert page.page.locator("article script, article img, article svg, article b, article a").count() == 0
        page.shoot(f"{path or 'search'}-hostile")
