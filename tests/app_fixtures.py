"""The search app for tests: its own modules on a clean environment, with a fake encoder and a small corpus.

``conftest.py`` takes the fixtures from here. Streamlit is imported where it is needed: most tests do without.
"""

from __future__ import annotations

import html
import os
import re
import sys
import time
from pathlib import Path

import pytest

from f2rag import Document
from f2rag.device import DevicePlan
from f2rag.testing import FakeEncoder

APP = Path(__file__).parents[1] / "apps" / "search"
SCRIPT = str(APP / "streamlit_app.py")
MODULES = ("resources", "jobs", "controls", "ui", "examples")

EVIL = 'evil <script>alert("x")</script> <img src=x onerror=alert(1)> & "quotes". Second sentence <b>here</b>.'
ARABIC = "لا يعرَّض أي إنسان للتعذيب (ISO 27001)."
UDHR = "Universal Declaration of Human Rights"
CORPUS = [
    Document(
        id="en",
        text="Everyone may leave any country. No one shall be held in slavery.",
        language="en",
        source=UDHR,
        metadata={"article": 4},
    ),
    Document(id="fr", text="nul ne sera tenu en esclavage", language="fr", source=UDHR, metadata={"article": 4}),
    Document(id="ar", text=ARABIC, language="ar", source="<b>source</b>", metadata={"article": 5}),
    Document(id="evil", text=EVIL, language='xx"><script>', source="<script>s</script>", metadata={"article": "<i>"}),
]


class Options:
    model = "stand-in"


class AppEncoder(FakeEncoder):
    """The fake encoder with what the app asks of the real one beside."""

    is_stand_in = True
    max_length = 512
    options = Options()
    device_plan = DevicePlan(device="cpu", dtype="float32", token_budget=1024, reason="no <AMX>")

    def fetch(self):
        return None

    def warm_up(self):
        return f"{self.model_name} on cpu"

    def self_test_result(self):
        return 1e-7, True


def make_encoder(**options):
    return AppEncoder(native_dimensions=256, dimensions=256)


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """The app's own modules, with the fake encoder and the small corpus; yields ``resources``."""
    st = pytest.importorskip("streamlit", reason="the app needs the extra: pip install 'f2rag[app]'")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("F2RAG_", "QDRANT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("F2RAG_LOCATION", str(tmp_path / "store"))
    monkeypatch.setenv("F2RAG_MODEL", "stand-in")
    monkeypatch.syspath_prepend(str(APP))
    # Streamlit makes the script the main module; processes that later tests spawn would import it.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    import resources

    monkeypatch.setattr(resources, "F2LLMEncoder", make_encoder)
    monkeypatch.setattr(resources, "load_udhr", lambda languages: CORPUS)
    yield resources
    st.cache_resource.clear()
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def app(modules):
    """The app at its router, which shows the search page."""
    return new_session()


def new_session(**address):
    """Another browser, at an address."""
    from streamlit.testing.v1 import AppTest

    session = AppTest.from_file(SCRIPT, default_timeout=30)
    session.query_params.update(address)
    return session


def at_page(page, **address):
    """A browser that is on another page than the first one."""
    session = new_session(**address)
    session.switch_page(f"app_pages/{page}.py")
    return session


def html_of(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def cards_of(app):
    return [element.proto.body for element in app.main.get("html") if "<article>" in element.proto.body]


def ids_of(app):
    """The corpus' documents that are shown, by their texts."""
    return [next(each.id for each in CORPUS if each.text in text_of(card)) for card in cards_of(app)]


def text_of(card):
    return html.unescape(re.sub(r"<[^>]+>", "", card))


def address_of(app, name):
    """What the address says under a name, as a list."""
    found = app.query_params.get(name, [])
    return [found] if isinstance(found, str) else list(found)


def keyed(elements, key):
    """The one element of a kind that has this key; of none ``None``."""
    return next((element for element in elements if element.key == key), None)


def ask(app, query):
    return app.text_input(key="q").set_value(query).run()


def plain(markdown):
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)


def until(condition, seconds=10):
    """Wait for another thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
