"""The search app in a browser, first paint and a search end to end: ``make bench-app``.

    chunks ─► folder ─► streamlit run ─► Chromium ─► first paint; Enter ─► hits on the screen

The stand-in runs, so that what is measured is the app and the store; a real model adds the time that it takes for a
query. The page's own clock counts, from the start of the navigation or from the key press on, until what was waited for
is painted: neither Playwright nor its driver is in the numbers.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

import f2rag
from f2rag import Document, F2LLMEncoder, SearchEngine
from f2rag.corpus import UDHR_LANGUAGES, load_udhr
from f2rag.sentences import sentences
from f2rag.store import Layout, Lexical

RESULTS = Path(__file__).parent / "results"
MODEL = "stand-in"
COLLECTION = "benchmark"
MODES = ("auto", "exact", "hybrid")
WARM_UP = 3
PATIENCE_MS = 120_000

QUESTIONS = (
    "Can a government take away my nationality?",
    "¿La educación debe ser gratuita?",
    "工人有休息和带薪休假的权利吗？",
    "هل يشترط رضا الزوجين في الزواج؟",
    "Puis-je changer de religion ?",
    "Можно ли держать человека в рабстве?",
    "自分の意見を自由に言えますか？",
    "Darf ein Mensch ohne Grund festgenommen werden?",
    "다른 나라로 망명할 수 있나요?",
    "Tenho o direito de votar?",
)

# Both run in the page. The first notes when the question box is painted. The second notes, from the next press of Enter
# on, when the hits are others than before and painted, and when the page is complete: marks drawn, script finished.
_WATCH_PAINT = """
  const seen = setInterval(() => {
    const box = document.querySelector('.st-key-q input');
    if (box && box.checkVisibility()) {
      clearInterval(seen);
      requestAnimationFrame(() => setTimeout(() => { window.boxPainted = performance.now(); }));
    }
  }, 5);
"""
_WATCH_SEARCH = """() => {
  const hits = () => [...document.querySelectorAll('article .f2-text')].map(hit => hit.innerText).join('\\n');
  const idle = () => document.querySelector('[data-testid="stApp"]').dataset.testScriptState === 'notRunning';
  window.searched = {};
  document.addEventListener('keydown', event => {
    if (event.key !== 'Enter') return;
    const started = performance.now(), before = hits(), found = window.searched = {};
    const observer = new MutationObserver(() => {
      if (found.hits === undefined && hits() && hits() !== before) {
        found.hits = 0;
        requestAnimationFrame(() => setTimeout(() => { found.hits = performance.now() - started; }));
      }
      if (found.hits !== undefined && idle()) {
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => { found.complete = performance.now() - started; }));
      }
    });
    observer.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
  }, true);
}"""
_COMPLETE = "() => document.querySelector('[data-testid=\"stApp\"]')?.dataset.testScriptState === 'notRunning'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured, in milliseconds.

    Attributes:
        what: Until when.
        where: Circumstances: the browser's cache, or the mode of the search.
        times: Each.
    """

    what: str
    where: str
    times: list[float]

    def percentile(self, share: float) -> float:
        """The time that a share of all stays below."""
        return float(np.percentile(self.times, share))


def chunks(count: int) -> Iterator[Document]:
    """Sentences of the Universal Declaration in all its languages, again with a number from the second round on."""
    made, turn = 0, 0
    while True:
        for article in load_udhr(tuple(UDHR_LANGUAGES)):
            for start, end in sentences(article.text):
                text = article.text[start:end].strip() + (f" ({turn})" if turn else "")
                yield Document(text=text, language=article.language, source=article.source, metadata={"number": made})
                made += 1
                if made == count:
                    return
        turn += 1


def index(folder: Path, count: int, console: Console) -> None:
    """Store the chunks with the layout that the app gives its own collections."""
    with (
        F2LLMEncoder(MODEL, on_overflow="truncate") as encoder,
        SearchEngine.open(
            encoder, str(folder), collection=COLLECTION, layout=Layout(levels=(64, 128), lexical=Lexical())
        ) as engine,
    ):
        engine.index(chunks(count), on_progress=lambda done: console.print(f"{done:,} of {count:,}", end="\r"))


def paints(browser: Browser, url: str, *, rounds: int) -> Iterator[Row]:
    """First paint with an empty cache, as for a new visitor, and with a full one."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(WARM_UP + rounds):
        context = browser.new_context()
        context.add_init_script(_WATCH_PAINT)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        for where in ("empty cache", "full cache"):
            page.goto(url)
            page.wait_for_function("() => window.boxPainted !== undefined")
            page.wait_for_function(_COMPLETE)
            if number >= WARM_UP:
                first = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime")
                found.setdefault(("first contentful paint", where), []).append(first)
                found.setdefault(("question box", where), []).append(page.evaluate("() => window.boxPainted"))
        context.close()
    for (what, where), times in found.items():
        yield Row(what=what, where=where, times=times)


def searches(browser: Browser, url: str, *, count: int) -> Iterator[Row]:
    """Questions one after the other, from the press of Enter until hits and page are there."""
    for mode in MODES:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{url}/?mode={mode}")
        page.wait_for_selector(".st-key-q input")
        page.wait_for_function(_COMPLETE)
        page.evaluate(_WATCH_SEARCH)
        found: dict[str, list[float]] = {}
        for number in range(WARM_UP + count):
            # A number makes each question new; the app keeps nothing of what was asked before.
            times = ask(page, f"{QUESTIONS[number % len(QUESTIONS)]} {number}")
            for what, milliseconds in times.items() if number >= WARM_UP else ():
                found.setdefault(what, []).append(milliseconds)
        context.close()
        for what, each in found.items():
            yield Row(what=what, where=mode, times=each)


def ask(page: Page, question: str) -> dict[str, float]:
    """Type a question, press Enter, and read the page's clock."""
    box = page.locator(".st-key-q input")
    box.fill(question)
    box.press("Enter")
    page.wait_for_function("() => window.searched.complete !== undefined")
    seen = page.evaluate("() => window.searched")
    facts = page.locator(".f2-facts").all_inner_texts()
    told = re.search(r"encode ([\d.]+) ms\s+search ([\d.]+) ms", " ".join(facts))
    if told is None:
        raise RuntimeError(f"The page does not say how long the search took: {facts}")
    return {
        "encode, as the page says": float(told[1]),
        "search, as the page says": float(told[2]),
        "Enter to hits": seen["hits"],
        "Enter to complete page": seen["complete"],
    }


def machine_facts(**given: Any) -> dict[str, Any]:
    """What a reader needs to judge the times."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "f2rag": f2rag.__version__,
        **{name: importlib.metadata.version(name) for name in ("streamlit", "torch", "qdrant-edge-py")},
        **given,
    }


def as_markdown(content: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        "# The search app in a browser",
        "",
        f"Made by `make bench-app`: the stand-in, {content['machine']['chunks']:,} chunks in a folder, Chromium",
        "and the app on one machine. The page's own clock counts, from the start of the navigation or the key press,",
        "until what was waited for is painted. Times hold for the machine below; what a real model takes for a query",
        "comes on top.",
        "",
        "| what | where | median ms | 95 % below ms | rounds |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in (Row(**each) for each in content["rows"]):
        cells = f"{row.percentile(50):,.1f} | {row.percentile(95):,.1f} | {len(row.times)}"
        lines.append(f"| {row.what} | {row.where} | {cells} |")
    return "\n".join([*lines, "", "```json", json.dumps(content["machine"], indent=1), "```", ""])


def main(
    chunk_count: Annotated[int, typer.Option("--chunks", help="Chunks in the collection.")] = 10_000,
    rounds: Annotated[int, typer.Option(help="Page loads, each with an empty and a full cache.")] = 20,
    queries: Annotated[int, typer.Option(help="Searches of each mode.")] = 50,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Measure the app's first paint and its searches, and write the table."""
    chromium = os.environ.get("F2RAG_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise typer.BadParameter("There is no Chromium: 'make browser' installs it as root.")
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from app_server import AppServer  # type: ignore[import-not-found,unused-ignore]  # a module of the tests

    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="f2rag-bench-") as name, sync_playwright() as driver:
        folder = Path(name)
        index(folder / "store", chunk_count, console)
        environment = {
            "F2RAG_MODEL": MODEL,
            "F2RAG_LOCATION": str(folder / "store"),
            "F2RAG_COLLECTION": COLLECTION,
            "OMP_NUM_THREADS": str(os.cpu_count()),
        }
        app = AppServer(folder / "app", environment=environment).start()
        browser = driver.chromium.launch(executable_path=chromium)
        try:
            rows = [*paints(browser, app.url, rounds=rounds), *searches(browser, app.url, count=queries)]
            version = browser.version
        finally:
            browser.close()
            app.stop()
    content = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "machine": machine_facts(chromium=version, chunks=chunk_count),
    }
    if json_only:
        print(json.dumps(content))
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "app_speed.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "app_speed.md").write_text(as_markdown(content), encoding="utf-8")
    _show(rows)


def _show(rows: list[Row]) -> None:
    table = Table(title="The search app in a browser")
    for name in ("what", "where"):
        table.add_column(name)
    for name in ("median ms", "95 % below ms"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.what, row.where, f"{row.percentile(50):,.1f}", f"{row.percentile(95):,.1f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
