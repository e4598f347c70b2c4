"""The tests' own page: what becomes of one that the browser does not get going."""

from __future__ import annotations

import pytest
from app_server import AppServer


def test_a_page_whose_script_never_began_is_loaded_once_more(open_page, app):
    page = open_page(app)
    page.begun_ms = 3_000
    page.page.route("**/static/js/index.*.js", lambda route: route.abort(), times=1)
    with pytest.warns(UserWarning, match="never began") as told:
        page.open()
    assert "index." in str(told[0].message)
    assert "net::ERR" in str(told[0].message)
    assert page.page.get_by_role("heading", name="Multilingual search").is_visible()


def test_a_page_is_not_loaded_again_while_the_app_draws_for_nobody(open_page, app, monkeypatch):
    page = open_page(app)
    page.begun_ms = page.patience_ms = 3_000
    page.page.route("**/static/js/index.*.js", lambda route: route.abort(), times=1)
    monkeypatch.setattr(page, "_app_draws", lambda: False)
    with pytest.raises(AssertionError, match="did not settle"):
        page.open()


def test_whether_the_app_draws_is_asked_of_the_app_itself(open_page, app):
    page = open_page(app)
    assert page._app_draws()
    page.app = AppServer(app.folder)  # on a port where nobody answers
    assert not page._app_draws()


def test_a_page_that_never_gets_going_fails_with_all_that_is_known(open_page, app):
    page = open_page(app)
    page.begun_ms = page.patience_ms = 3_000
    page.page.route("**/static/js/index.*.js", lambda route: route.abort())
    with (
        pytest.warns(UserWarning, match="never began"),
        pytest.raises(AssertionError, match="did not settle") as failure,
    ):
        page.open()
    assert "net::ERR" in str(failure.value)
    if app.running:  # not one that somebody else started, of which nothing is known
        assert "Uvicorn server started" in str(failure.value)
        assert "most recent call first" in str(failure.value)
