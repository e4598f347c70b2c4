"""The tests' own page: what becomes of one for which the browser does not get everything."""

from __future__ import annotations

import itertools
import subprocess

import pytest


def change_network(inside, number):
    """A pair of devices with an address, as of a container that starts."""
    name = f"changed{number}"
    for command in (
        f"ip link add {name} type veth peer name {name}p",
        f"ip address add 10.77.{number}.1/24 dev {name}",
        f"ip link set {name} up",
    ):
        subprocess.run([*inside, *command.split()], check=True)


def test_a_page_that_a_change_of_the_network_broke_is_loaded_again(apart):
    page, inside = apart
    page.patience_ms = 30_000
    numbers = itertools.count()

    def change_until_something_is_given_up(request):
        if not any("net::ERR_NETWORK_CHANGED" in complaint for complaint in page.complaints):
            change_network(inside, next(numbers))

    page.page.on("request", change_until_something_is_given_up)
    with pytest.warns(UserWarning, match="The network changed") as told:
        page.open()
    assert len(told) == 1
    assert "net::ERR_NETWORK_CHANGED" in str(told[0].message)
    assert page.page.get_by_role("heading", name="Multilingual search").is_visible()
    assert page.keyed("q").locator("input").is_visible()


def test_a_page_that_never_gets_going_fails_with_all_that_is_known(open_page, app):
    page = open_page(app)
    page.patience_ms = 3_000
    page.page.route("**/static/js/index.*.js", lambda route: route.abort())
    with pytest.raises(AssertionError, match="did not settle") as failure:
        page.open()
    assert "net::ERR" in str(failure.value)
    if app.running:  # not one that somebody else started, of which nothing is known
        assert "Uvicorn server started" in str(failure.value)
        assert "most recent call first" in str(failure.value)
