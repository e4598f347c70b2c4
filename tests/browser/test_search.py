"""The search page in a real browser: ten scripts, addresses that are passed on, several people at once."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from f2rag.corpus import UDHR_LANGUAGES, load_udhr

# A question, the article that answers it, and another language in which the stand-in is to find that article.
QUESTIONS = {
    "Latin": ("L'éducation doit-elle être gratuite ?", 26, "zh"),
    "Han": ("工人有休息和带薪休假的权利吗？", 24, "en"),
    "Arabic": ("هل يشترط رضا الزوجين في الزواج؟", 16, "es"),
    "Devanagari": ("क्या मैं अपना धर्म बदल सकता हूँ?", 18, "en"),
    "Cyrillic": ("Имеют ли работники право на отдых и оплачиваемый отпуск?", 24, "es"),
    "Kana": ("教育は無料でなければなりませんか？", 26, "fr"),
    "Hebrew": ("האם החינוך חייב להיות חינם?", 26, "de"),
    "Hangul": ("교육은 무상이어야 하나요?", 26, "en"),
    "Greek": ("Πρέπει η εκπαίδευση να παρέχεται δωρεάν;", 26, "en"),
    "Thai": ("ฉันเปลี่ยนศาสนาได้หรือไม่", 18, "en"),
}


def article(language, number):
    """The words of an article in a language."""
    found = [document.text for document in load_udhr([language]) if document.metadata["article"] == number]
    return found[0].split()


def query_of(page):
    return parse_qs(urlsplit(page.page.url).query)


def test_the_start_page_says_what_can_be_asked(page):
    page.open()
    assert not page.errors
    assert page.cards.count() == 0
    assert (
        "2,490 articles" in page.page.locator(".f2-facts").all_inner_texts()[-1].replace("\n", " ")
        or page.page.get_by_text("2,490 articles").is_visible()
    )
    scripts = {unicodedata.name(letter).split()[0] for letter in page.keyed("example").inner_text() if letter.isalpha()}
    assert len(scripts) >= 10
    page.shoot("search-home")


@pytest.mark.parametrize("script", QUESTIONS)
def test_a_question_finds_the_right_article_first_in_another_language(page, script):
    question, number, language = QUESTIONS[script]
    page.open(language=language)
    page.ask(question)
    assert not page.errors
    assert page.texts[0].split() == article(language, number)
    assert UDHR_LANGUAGES[language].name in page.cards.first.locator(".f2-badge").first.inner_text()
    assert query_of(page)["q"] == [question]
    page.shoot(f"search-{script.lower()}")


def test_a_card_has_its_evidence(page):
    page.open(q="Must education be free of charge?")
    first = page.cards.first
    assert re.fullmatch(r"0\.\d{3}", first.locator(".f2-score").inner_text())
    assert first.locator(".f2-badge").first.is_visible()
    assert first.locator("mark").inner_text() in first.locator(".f2-text").inner_text()
    facts = " ".join(page.page.locator(".f2-facts").all_inner_texts())
    assert re.search(r"encode \d+ ms\s+search \d+\.\d ms", facts)
    scores = [float(score) for score in page.page.locator(".f2-score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)


def test_a_chip_is_asked_and_its_question_asked_again_in_another_language(page):
    page.open()
    page.click(page.keyed("example").get_by_text("¿La educación debe ser gratuita?"))
    assert page.cards.count() == 10
    spanish = page.texts
    page.choose("ask_in", "French")
    assert page.keyed("q").locator("input").input_value() == "L'éducation doit-elle être gratuite ?"
    assert page.page.get_by_text(re.compile(r"\d+ of these 10 hits are the same as for")).is_visible()
    assert set(page.texts) & set(spanish)


def test_an_address_shows_somebody_else_the_same(page, open_page, app):
    page.open()
    page.ask("Must education be free of charge?")
    page.choose("dimensions", "64")
    page.choose("language", "French")
    page.choose("language", "Russian")
    with page.rerun():
        page.keyed("instructed").locator("input").press("Space")
    assert page.cards.count() == 10
    assert query_of(page) == {
        "q": ["Must education be free of charge?"],
        "dimensions": ["64"],
        "language": ["fr", "ru"],
        "instructed": ["false"],
    }
    other = open_page(app)
    other.page.goto(page.page.url)
    other.settle()
    assert other.texts == page.texts
    assert other.page.locator(".f2-score").all_inner_texts() == page.page.locator(".f2-score").all_inner_texts()
    assert {badge.split(" · ")[-1] for badge in other.cards.locator(".f2-badge").all_inner_texts()} == {
        "French",
        "Russian",
    }
    assert not other.keyed("instructed").locator("input").is_checked()


def test_similar_documents_and_back(page):
    page.open(q="Must education be free of charge?")
    first = page.texts[0]
    page.click(page.keyed("similar-1").get_by_role("button"))
    assert "similar" in query_of(page)
    assert first not in page.texts
    assert page.cards.count() == 10
    page.shoot("search-similar")
    page.click(page.keyed("similar_close").get_by_role("button"))
    assert page.texts[0] == first


def test_a_document_that_is_not_there_is_an_error_in_the_librarys_words(page):
    page.open(similar="no such document")
    assert len(page.errors) == 1
    assert "no such document" in page.errors[0]
    assert page.cards.count() == 0


def test_two_people_ask_at_once(open_page, app):
    left, right = open_page(app), open_page(app)
    left.open(language="en")
    right.open(language="zh")
    boxes = [page.keyed("q").locator("input") for page in (left, right)]
    boxes[0].fill(QUESTIONS["Hangul"][0])
    boxes[1].fill(QUESTIONS["Latin"][0])
    with left.rerun(), right.rerun():
        for box in boxes:
            box.press("Enter")
    assert left.texts[0].split() == article("en", 26)
    assert right.texts[0].split() == article("zh", 26)
    assert query_of(left)["q"] != query_of(right)["q"]


def test_the_keyboard_is_enough(page):
    page.open(language="en")
    focused = "() => document.activeElement.closest('[class*=st-key-]')?.className ?? ''"
    for _ in range(40):
        page.page.keyboard.press("Tab")
        if "st-key-q" in page.page.evaluate(focused):
            break
    page.page.keyboard.type("Must education be free of charge?")
    with page.rerun():
        page.page.keyboard.press("Enter")
    assert page.texts[0].split() == article("en", 26)
    for _ in range(60):
        page.page.keyboard.press("Tab")
        if "st-key-similar-1" in page.page.evaluate(focused):
            break
    outline = page.page.evaluate(
        "() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.boxShadow; }"
    )
    assert outline != "nonenone"  # one sees where one is
    page.page.keyboard.press("Enter")
    expect(page.keyed("similar_close")).to_be_visible()
