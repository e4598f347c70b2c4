"""A server that is not there: the page says so, and works when it comes."""

from __future__ import annotations

from servers import CURRENT, free_ports

from f2rag import Document, F2LLMEncoder, SearchEngine


def test_the_page_says_that_the_server_is_away_and_recovers_when_it_comes(
    make_app, open_page, make_server, server_binary
):
    server = make_server(CURRENT)
    with F2LLMEncoder("stand-in") as encoder, SearchEngine.open(encoder, server.url, collection="notes") as engine:
        engine.index([Document(text="The lighthouse keeper counts the ships.", language="en")])
    server.stop()
    app = make_app(F2RAG_LOCATION=server.url, F2RAG_COLLECTION="notes", F2RAG_TIMEOUT="2")
    page = open_page(app)
    page.open(q="lighthouse")
    assert len(page.errors) == 1
    assert server.url.removeprefix("http://") in page.errors[0]
    assert "Traceback" not in page.page.locator("body").inner_text()
    assert page.cards.count() == 0
    page.shoot("search-error")
    for path in ("compare", "map", "documents"):
        page.open(path)
        assert page.errors, path
        assert "redacted" not in " ".join(page.errors)
        page.shoot(f"{path}-error")
    page.open(q="lighthouse")

    server.start()
    page.click(page.keyed("retry").get_by_role("button"))
    assert not page.errors
    assert page.texts == ["The lighthouse keeper counts the ships."]

    server.stop()
    page.ask("ships")
    assert len(page.errors) == 1
    server.start()
    page.click(page.keyed("retry").get_by_role("button"))
    assert page.texts == ["The lighthouse keeper counts the ships."]


def test_about_needs_no_server(make_app, open_page):
    page = open_page(make_app(F2RAG_LOCATION=f"http://127.0.0.1:{free_ports(1)[0]}", F2RAG_TIMEOUT="1"))
    page.open("about")
    assert not page.errors
    assert "stand-in" in page.page.get_by_test_id("stMain").inner_text()


def test_a_wrong_setting_is_told_in_the_librarys_words(make_app, open_page):
    page = open_page(make_app(F2RAG_DIMENSIONS="100000"))
    page.open()
    assert len(page.errors) == 1
    assert "100000" in page.errors[0].replace(",", "")
    assert "Traceback" not in page.page.locator("body").inner_text()
