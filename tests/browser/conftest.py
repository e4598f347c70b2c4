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
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from app_server import AppServer, visit
from filelock import FileLock
from servers import ROOT, until

pytest.importorskip("streamlit", reason="the app needs the extra: pip install 'f2rag[app]'")
pytest.importorskip("playwright", reason="Playwright comes with the extra dev")

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Playwright,
    Request,
    WebSocket,
    expect,
    sync_playwright,
)
from playwright.sync_api import TimeoutError as PageTimeoutError
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import WebSocketException

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000
"""How long a page may take; the machine may be busy with other tests."""

INDEXING_SECONDS = 480
_SETTLED_MS = 300

_DEFAULTS = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "reduced_motion": "reduce"}
_SETTINGS = {"F2RAG_MODEL": "stand-in"}

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these want a browser; the first one may have to wait for the index."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(INDEXING_SECONDS + 300))


class AppPage:
    """A page of the app in a browser.

    Attributes:
        page: What Playwright drives.
        strangers: Addresses outside the app that the page asked for; the browser resolves none of them.
        failures: What went wrong in the page's own scripts.
        complaints: What the browser wrote to its console, and requests that failed.
        waiting: Requests that have no answer yet.
        begun_ms: After how long it is looked whether the page's script has begun at all.
        patience_ms: How long the page may take, and once more if it was loaded again.
    """

    def __init__(self, page: Page, app: AppServer) -> None:
        self.page = page
        self.app = app
        self.strangers: list[str] = []
        self.failures: list[str] = []
        self.complaints: list[str] = []
        self.waiting: set[str] = set()
        self.begun_ms = 20_000
        self.patience_ms = PATIENCE_MS
        page.set_default_timeout(PATIENCE_MS)
        self._runs = self._settled = self._heard = 0
        # Not page.route: it would switch the browser's cache off, and the app's scripts are several megabytes.
        self._listeners: dict[str, Callable[..., None]] = {
            "pageerror": lambda error: self.failures.append(str(error)),
            "console": lambda message: self.complaints.append(f"{message.type}: {message.text}"),
            "request": self._see,
            "requestfinished": lambda request: self.waiting.discard(request.url),
            "requestfailed": self._miss,
            "websocket": self._connect,
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]

    def open(self, path: str = "", **query: str) -> AppPage:
        """Go to an address of the app and wait until the page is drawn."""
        self.page.goto(f"{self.app.url}/{path}{'?' if query else ''}{urlencode(query)}", wait_until="domcontentloaded")
        return self.settle()

    def settle(self) -> AppPage:
        """Wait until the script has run and everything that it drew is there.

        A page whose script never began is loaded once more, with a warning, if the app draws a page for somebody else
        meanwhile: then the browser and Streamlit's server have not found each other, and the app is not at fault.
        """
        self._settled += 1
        try:
            self._wait(self.begun_ms)
        except PageTimeoutError:
            again = bool(self.page.evaluate(_NEVER_BEGAN)) and self._app_draws()
            if again:
                self._load_again()
            try:
                self._wait(self.patience_ms if again else max(self.patience_ms - self.begun_ms, 1))
            except PageTimeoutError as error:
                raise AssertionError(f"The page did not settle.\n{self._state()}") from error
        return self

    @contextlib.contextmanager
    def rerun(self) -> Iterator[None]:
        """Do something that makes the script run again, and wait until everything that it drew is there."""
        before = self._runs
        yield

        def has_run() -> bool:
            self.page.wait_for_timeout(20)
            return self._runs > before

        until(has_run, seconds=PATIENCE_MS / 1000)
        self.settle()

    def ask(self, question: str) -> AppPage:
        """Type a question and wait for its hits."""
        box = self.keyed("q").locator("input")
        box.fill(question)
        with self.rerun():
            box.press("Enter")
        return self

    def click(self, target: Locator) -> AppPage:
        """Click on something that makes the script run again."""
        with self.rerun():
            target.click()
        return self

    def choose(self, key: str, option: str) -> AppPage:
        """Choose an option of a select box or a multiselect by words that it holds."""
        box = self.keyed(key).locator("input")
        box.click()
        if box.is_editable():
            box.fill(option)  # a long list draws only what is in sight
        self.click(self.page.get_by_role("option", name=option).first)
        if self.page.get_by_role("listbox").count():
            self.page.keyboard.press("Escape")  # of a multiselect it stays open
            expect(self.page.get_by_role("listbox")).to_have_count(0)
        return self

    def keyed(self, key: str) -> Locator:
        """The widget of a key."""
        return self.page.locator(f".st-key-{key}")

    @property
    def cards(self) -> Locator:
        """The hits."""
        return self.page.locator("article")

    @property
    def texts(self) -> list[str]:
        """The words of the hits, from the best one on."""
        return self.page.locator("article .f2-text").all_inner_texts()

    @property
    def errors(self) -> list[str]:
        """What the page says has gone wrong."""
        return self.page.locator('[data-testid="stAlertContentError"], [data-testid="stException"]').all_inner_texts()

    def sideways(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate(_TOO_WIDE))

    def shoot(self, name: str) -> Path:
        """Keep a picture of the whole page."""
        folder = Path(os.environ.get("F2RAG_SCREENSHOTS") or ROOT / "build" / "screenshots")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.png"
        size = self.page.viewport_size
        assert size is not None
        # The page scrolls in a box of its own, which a picture of the full page does not unroll: a tall window does.
        height = int(self.page.evaluate(_HEIGHT))
        self.page.set_viewport_size({"width": size["width"], "height": min(max(height + 40, size["height"]), 2000)})
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=file, animations="disabled")
        self.page.set_viewport_size(size)
        return file

    def leave(self) -> None:
        """Let go of the tab, and of what the app has kept in it: its next user is somebody else."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        if self.page.url.startswith(self.app.url):
            self.page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
        self.page.context.clear_cookies()
        self.page.goto("about:blank")

    def check(self) -> None:
        """What must hold of every page: no script failed, and nobody else was asked for anything."""
        assert not self.failures, self.failures
        assert not self.strangers, self.strangers

    def _wait(self, milliseconds: float) -> None:
        self.page.wait_for_function(_IS_QUIET, arg=[self._settled, _SETTLED_MS], polling=30, timeout=milliseconds)

    def _app_draws(self) -> bool:
        with contextlib.suppress(OSError, EOFError, WebSocketException):  # TimeoutError is an OSError
            return bool(visit(self.app.url, "", lambda drawn: False, seconds=self.begun_ms / 1000))
        return False

    def _load_again(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # it is to be read, not to fail the test
            warnings.warn(f"The app's script never began; the page is loaded again.\n{self._state()}", stacklevel=3)
        self.page.reload(wait_until="domcontentloaded")

    def _state(self) -> str:
        """All that is known of a page that never became what a test waits for, and of the app behind it."""
        known = {
            "address": self.page.url,
            "shows": self.page.locator("body").inner_text(),
            "states": self.page.evaluate(_STATES),
            "messages from the app": self._heard,
            "script failures": self.failures,
            "console and failed requests": self.complaints,
            "unanswered requests": sorted(self.waiting),
            "threads of the app": self.app.stacks(),
            "log of the app": self.app.log,
        }
        return "\n".join(f"{name}: {value}" for name, value in known.items())

    def _connect(self, socket: WebSocket) -> None:
        if not self._is_ours(socket.url):
            self.strangers.append(socket.url)
        socket.on("framereceived", self._hear)
        socket.on("socketerror", lambda error: self.complaints.append(f"{socket.url}: {error}"))

    def _hear(self, frame: bytes | str) -> None:
        """Count the runs that the app's server says have come to their end."""
        self._heard += 1
        if isinstance(frame, bytes):
            message = ForwardMsg.FromString(frame)
            self._runs += message.WhichOneof("type") == "script_finished" and (
                message.script_finished == ForwardMsg.ScriptFinishedStatus.FINISHED_SUCCESSFULLY
            )

    def _is_ours(self, url: str) -> bool:
        return urlsplit(url).netloc == urlsplit(self.app.url).netloc or not url.startswith(("http", "ws"))

    def _miss(self, request: Request) -> None:
        self.waiting.discard(request.url)
        self.complaints.append(f"{request.url}: {request.failure}")

    def _see(self, request: Request) -> None:
        self.waiting.add(request.url)
        if not self._is_ours(request.url):
            self.strangers.append(request.url)


# The page watches itself; to be asked thirty times a second from outside would cost more than the app's own work.
_IS_QUIET = """([turn, milliseconds]) => {
  const app = document.querySelector('[data-testid="stApp"]');
  const quiet = app !== null
    && app.getAttribute('data-test-script-state') === 'notRunning'
    && app.getAttribute('data-test-connection-state') === 'CONNECTED'
    && !document.querySelector('[data-stale="true"], [data-testid="stSkeleton"], [data-testid="stSpinner"]');
  const known = window.quietSince;
  const now = performance.now();
  if (!quiet || !known || known.turn !== turn) window.quietSince = quiet ? {turn, now} : null;
  return quiet && now - window.quietSince.now > milliseconds;
}"""

_NEVER_BEGAN = """() => ['initial', undefined].includes(
  document.querySelector('[data-testid="stApp"]')?.getAttribute('data-test-script-state'))"""

# How far Streamlit's own script is, in the words of its attributes; without an element of its own it has drawn nothing.
_STATES = """() => Object.fromEntries(
  [...(document.querySelector('[data-testid="stApp"]')?.attributes ?? [])]
    .filter(attribute => attribute.name.startsWith('data-')).map(attribute => [attribute.name, attribute.value]))"""

_HEIGHT = """() => Math.max(...[...document.querySelectorAll(
  '[data-testid="stMain"], [data-testid="stSidebarContent"]')].map(element => element.scrollHeight))"""

_TOO_WIDE = """() => Math.max(0, ...[document.scrollingElement, document.querySelector('[data-testid="stMain"]')]
  .map(element => element.scrollWidth - element.clientWidth))"""


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
    """Chromium, without a window; it finds nobody but this machine."""
    nobody = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    launched = playwright.chromium.launch(executable_path=chromium, args=[nobody])
    yield launched
    launched.close()


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
