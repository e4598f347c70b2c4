"""A real browser before the real app: Chromium, driven by Playwright, and Streamlit's server on loopback.

The tests that one process of pytest's runs here share one app with the stand-in and the bundled corpus, which is
indexed once for all processes. A test's ``page`` has a session of its own in the app, in a tab that the tests of a file
use one after the other: a tab that has drawn the app before needs a quarter of the time. Whoever asks for a window of
another kind, or for several people, gets fresh browser contexts from ``open_page``.

The pages leave screenshots in ``build/screenshots``, or where ``F2RAG_SCREENSHOTS`` says. ``F2RAG_TEST_APP`` names an
app that runs already, with the stand-in and its corpus indexed: whoever works on the tests need not wait for that.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from app_server import COMMAND, AppServer, visit
from filelock import FileLock

pytest.importorskip("streamlit", reason="the app needs the extra: pip install 'f2rag[app]'")
pytest.importorskip("playwright", reason="Playwright comes with the extra dev")

from app_page import PATIENCE_MS, AppPage, launch
from own_network import own_network
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from servers import free_ports

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
INDEXING_SECONDS = 480

_DEFAULTS = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "reduced_motion": "reduce"}
_SETTINGS = {"F2RAG_MODEL": "stand-in"}

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these want a browser; the first one may have to wait for the index."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(INDEXING_SECONDS + 300))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's program; ``F2RAG_TEST_CHROMIUM`` names another one."""
    found = os.environ.get("F2RAG_TEST_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        reason = "There is no Chromium. 'make browser' installs it as root; or name one in F2RAG_TEST_CHROMIUM."
        if os.environ.get("CI") and shutil.which("apt-get"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def start_and_draw(app: AppServer) -> AppServer:
    """Start an app and have its first page drawn: loading the model may take longer than any page."""
    app.start()
    visit(app.url, "", lambda drawn: False, seconds=INDEXING_SECONDS)
    return app


@contextlib.contextmanager
def drawn_once(folder: Path) -> Iterator[AppServer]:
    """The app in a folder, running, its first page drawn: its corpus is indexed then."""
    running = AppServer(folder, environment=_SETTINGS)
    try:
        yield start_and_draw(running)
    finally:
        running.stop()


@pytest.fixture(scope="session")
def indexed(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the app has indexed its corpus, a minute's work: whichever process comes first does it."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root
    folder = root / "indexed"
    with FileLock(root / "indexed.lock"):
        if not folder.exists():
            with drawn_once(root / "indexing"):
                pass
            (root / "indexing").rename(folder)
    return folder


@pytest.fixture(scope="session")
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """The app with the stand-in, its corpus indexed."""
    folder = tmp_path_factory.mktemp("app")
    if url := os.environ.get("F2RAG_TEST_APP"):
        yield AppServer(folder, port=urlsplit(url).port)
        return
    shutil.copytree(request.getfixturevalue("indexed"), folder, dirs_exist_ok=True)
    with drawn_once(folder) as running:
        yield running


@pytest.fixture
def make_app(chromium: str, tmp_path: Path) -> Iterator[Callable[..., AppServer]]:
    """Start an app with settings of its own, its model loaded: ``make_app(F2RAG_LOCATION=...)``."""
    made: list[AppServer] = []

    def make(**environment: str) -> AppServer:
        folder = tmp_path / f"app-{len(made)}"
        made.append(AppServer(folder, environment={**_SETTINGS, **environment}))
        return start_and_draw(made[-1])

    yield make
    for running in made:
        running.stop()


# Playwright keeps an event loop in the thread that uses it. It must be gone before asynchronous tests run there, so it
# lives no longer than a file of tests.
@pytest.fixture(scope="module")
def playwright(chromium: str) -> Iterator[Playwright]:
    """Playwright's driver."""
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    """Chromium, without a window."""
    with contextlib.closing(launch(playwright, chromium)) as launched:
        yield launched


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., AppPage]]:
    """Open the app in a fresh browser context: ``open_page(app, width=..., color_scheme=..., ...)``."""
    contexts: list[BrowserContext] = []
    pages: list[AppPage] = []

    def make(app: AppServer, *, width: int = 1280, height: int = 900, **options: object) -> AppPage:
        given = {**_DEFAULTS, "viewport": {"width": width, "height": height}, **options}
        context = browser.new_context(**given)  # type: ignore[arg-type]
        contexts.append(context)
        pages.append(AppPage(context.new_page(), app))
        return pages[-1]

    yield make
    for context in contexts:
        context.close()
    for page in pages:
        page.check()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    """A tab for one test after the other."""
    with contextlib.closing(browser.new_context(**_DEFAULTS)) as context:  # type: ignore[arg-type]
        yield context.new_page()


@pytest.fixture
def page(app: AppServer, tab: Page) -> Iterator[AppPage]:
    """The app in a tab that is as good as new."""
    made = AppPage(tab, app)
    yield made
    made.leave()
    made.check()


@pytest.fixture
def apart(
    playwright: Playwright, chromium: str, indexed: Path, tmp_path: Path
) -> Iterator[tuple[AppPage, tuple[str, ...]]]:
    """The app and a browser in a network of their own, and what a command begins with that changes it."""
    port = free_ports(1)[0]
    folder = shutil.copytree(indexed, tmp_path / "app")
    program = tmp_path / "chromium"
    with contextlib.ExitStack() as stack:
        inside = stack.enter_context(own_network(port))
        program.write_text(f'#!/bin/sh\nexec {shlex.join([*inside, chromium])} "$@"\n')
        program.chmod(0o755)
        app = AppServer(folder, environment=_SETTINGS, command=[*inside, *COMMAND], port=port)
        stack.callback(app.stop)
        browser = stack.enter_context(contextlib.closing(launch(playwright, program)))
        made = AppPage(browser.new_page(), start_and_draw(app))
        yield made, inside
        made.check()
