"""A page of the search app in a real browser, as a test drives it with Playwright."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from app_server import AppServer
from playwright.sync_api import Browser, Locator, Page, Playwright, Request, WebSocket, expect
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import TimeoutError as PageTimeoutError
from servers import ROOT, until
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

PATIENCE_MS = 60_000
"""How long a page may take; the machine may be busy with other tests."""

_SETTLED_MS = 300
_LOADS = 3
_NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"


def launch(playwright: Playwright, program: str | Path) -> Browser:
    """Start Chromium without a window; it finds nobody but this machine."""
    nobody = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    return playwright.chromium.launch(executable_path=program, args=[nobody])


class AppPage:
    """A page of the app in a browser.

    Attributes:
        page: What Playwright drives.
        strangers: Addresses outside the app that the page asked for; the browser resolves none of them.
        failures: What went wrong in the page's own scripts.
        complaints: What the browser wrote to its console, and requests that failed.
        waiting: Requests that have no answer yet.
        dropped: Requests of the last load that the browser gave up because this machine's network changed.
        patience_ms: How long the page may take.
    """

    def __init__(self, page: Page, app: AppServer) -> None:
        self.page = page
        self.app = app
        self.strangers: list[str] = []
        self.failures: list[str] = []
        self.complaints: list[str] = []
        self.waiting: set[str] = set()
        self.dropped: list[str] = []
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
        """Go to an address of the app and wait until the page is drawn.

        An address that this machine gets or loses makes Chromium give up whatever waits for a connection, to loopback
        too. A page that lacks something for that reason is loaded again, with a warning.
        """
        address = f"{self.app.url}/{path}{'?' if query else ''}{urlencode(query)}"
        for loads_left in reversed(range(_LOADS)):
            self.dropped.clear()
            self._go(address)
            drawn = self._becomes_quiet(self.patience_ms / _LOADS)
            if not self.dropped or not loads_left:
                break
            self._warn(f"The network changed while a page was loaded, which is done again.\n{self._state()}")
        return self if drawn and not self.dropped else self.settle()

    def settle(self) -> AppPage:
        """Wait until the script has run and everything that it drew is there."""
        if not self._becomes_quiet(self.patience_ms):
            raise AssertionError(f"The page did not settle.\n{self._state()}")
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

    def _go(self, address: str) -> None:
        try:
            self.page.goto(address, wait_until="domcontentloaded")
        except BrowserError:
            if not self.dropped:
                raise

    def _becomes_quiet(self, milliseconds: float) -> bool:
        self._settled += 1
        try:
            self.page.wait_for_function(_IS_QUIET, arg=[self._settled, _SETTLED_MS], polling=30, timeout=milliseconds)
        except PageTimeoutError:
            return False
        return True

    def _warn(self, message: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # it is to be read, not to fail the test
            warnings.warn(message, stacklevel=3)

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
        if request.failure == _NETWORK_CHANGED:
            self.dropped.append(request.url)

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

# How far Streamlit's own script is, in the words of its attributes; without an element of its own it has drawn nothing.
_STATES = """() => Object.fromEntries(
  [...(document.querySelector('[data-testid="stApp"]')?.attributes ?? [])]
    .filter(attribute => attribute.name.startsWith('data-')).map(attribute => [attribute.name, attribute.value]))"""

_HEIGHT = """() => Math.max(...[...document.querySelectorAll(
  '[data-testid="stMain"], [data-testid="stSidebarContent"]')].map(element => element.scrollHeight))"""

_TOO_WIDE = """() => Math.max(0, ...[document.scrollingElement, document.querySelector('[data-testid="stMain"]')]
  .map(element => element.scrollWidth - element.clientWidth))"""
