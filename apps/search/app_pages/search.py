"""The search page: one box, hits in all languages, and a way to go on from each of them.

The address says it all: ``q``, ``collection``, ``language``, ``dimensions``, ``mode``, ``instructed``, ``instruction``,
``similar`` (the document whose neighbours are shown instead), and ``first`` (the language in which a known question was
asked before it was asked in another one).
"""

from __future__ import annotations

from collections.abc import Sequence

import controls
import resources
import streamlit as st
import ui
from controls import Way
from examples import Known, known_question
from resources import Workspace
from streamlit.delta_generator import DeltaGenerator

from f2rag import Highlight, Hit, SearchEngine, SearchResult, best_sentences, compare


def page() -> None:
    """The page, from top to bottom."""
    st.title("Multilingual search")
    query = controls.question(on_change=start_anew)
    similar = st.query_params.get("similar")
    chips = st.container()
    model = controls.ready_model()
    controls.banner(model, briefly=bool(query or similar))
    space = resources.workspace()
    name = controls.chosen_collection(space)
    if name == space.bundled:
        with chips:
            controls.example_chips(asked=bool(query or similar), on_change=start_anew)
    engine = controls.ready(space, name)
    with st.sidebar:
        languages = controls.chosen_languages(space, name)
        way = controls.chosen_way(engine, model, asks=not similar)
        st.html(ui.facts([model.description]))
    if similar:
        neighbours(engine, similar, languages, way)
    elif query:
        known = known_question(query) if name == space.bundled else None
        answers(engine, query, languages, way, known)
    else:
        home(space, name, engine)


def start_anew() -> None:
    """Another question was typed: what belonged to the one before is left behind."""
    forget("similar")
    forget("first")


def home(space: Workspace, name: str, engine: SearchEngine) -> None:
    """Nothing was asked yet."""
    count = engine.store.count()
    if not count:
        controls.empty()
        return
    spoken = len(space.languages(name))
    if name == space.bundled:
        st.markdown(
            "Ask the Universal Declaration of Human Rights a question in your language, or take one from above. "
            f"It is searched by meaning, in {spoken} languages at once."
        )
    else:
        st.markdown(f"Ask the collection {ui.markdown(ui.isolate(name))} a question in any language.")
    st.html(
        ui.facts(
            [
                space.model.encoder.model_name,
                f"{count:,} {'article' if name == space.bundled else 'document'}{'' if count == 1 else 's'}",
                f"{engine.store.dimensions} of {space.model.encoder.native_dimensions} dimensions",
            ]
        )
    )


def answers(engine: SearchEngine, query: str, languages: list[str], way: Way, known: tuple[Known, str] | None) -> None:
    """The hits of a question, and the same question in other languages."""
    evidence, picker = st.columns([3, 2], vertical_alignment="center")
    stability = st.empty()
    if known is not None:
        with picker:
            translation(*known)
    with evidence:
        result = search(engine, query, languages, way)
        if known is not None and known[1] != "en":
            st.caption(f"In English: {ui.markdown(known[0].english)}")
        st.html(ui.facts(evidence_of(result)))
    cards = draw(engine, result, answer=known[0].article if known else None)
    if known is not None:
        compared(engine, result, languages, way, known, stability)
    mark(engine, result, way, cards, answer=known[0].article if known else None)


def search(engine: SearchEngine, query: str, languages: list[str], way: Way) -> SearchResult:
    """Search as the controls say."""
    with st.spinner("Searching…"):
        return engine.search(
            query,
            limit=limit(),
            language=languages or None,
            instruction=way.instruction,
            mode=way.mode,
        )


def neighbours(engine: SearchEngine, document: str, languages: list[str], way: Way) -> None:
    """The documents that are nearest to one of them."""
    with st.container(horizontal=True, vertical_alignment="center"):
        words = st.empty()
        st.button(
            "Back to the search", key="similar_close", icon=":material/close:", on_click=forget, args=("similar",)
        )
    with st.spinner("Searching…"):
        result = engine.similar(document, limit=limit(), language=languages or None, mode=way.mode)
    words.markdown(f"Similar to: {ui.markdown(ui.isolate(ui.shorten(result.query)))}")
    st.html(ui.facts(evidence_of(result)))
    cards = draw(engine, result)
    mark(engine, result, way, cards)


def limit() -> int:
    """Hits per search."""
    return resources.running_model().settings.limit


def translation(known: Known, language: str) -> None:
    """The other languages that a known question can be asked in."""
    others = sorted((tag for tag in known.wordings if tag != language), key=ui.language_sort_key)
    st.selectbox(
        "The same question in another language",
        others,
        index=None,
        key="ask_in",
        format_func=ui.language_name,
        on_change=ask_in,
        args=(known, language),
        placeholder="Ask the same in another language",
        label_visibility="collapsed",
    )


def ask_in(known: Known, language: str) -> None:
    """Ask a known question in the language that was chosen; the first wording stays in the address."""
    chosen = st.session_state.ask_in
    if chosen is None:
        return
    st.session_state.ask_in = None
    st.session_state.q = known.wordings[chosen]
    forget("similar")
    first = st.query_params.get("first") or language
    if first == chosen:
        forget("first")
    else:
        st.query_params["first"] = first


def compared(
    engine: SearchEngine,
    result: SearchResult,
    languages: list[str],
    way: Way,
    known: tuple[Known, str],
    place: DeltaGenerator,
) -> None:
    """Say how many hits the first wording of a question had found, too."""
    question, language = known
    first = st.query_params.get("first")
    if first is None or first == language or first not in question.wordings:
        return
    wording = question.wordings[first]
    before = engine.search(
        wording, limit=limit(), language=languages or None, instruction=way.instruction, mode=way.mode
    )
    same = sum(row.change is not None for row in compare(before, result, limit=limit()).rows)
    place.caption(
        f"{same} of these {len(result.hits)} hits are the same as for {ui.markdown(ui.isolate(wording))} "
        f"({ui.markdown(ui.language_name(first))})."
    )


def draw(engine: SearchEngine, result: SearchResult, *, answer: int | None = None) -> list[DeltaGenerator]:
    """The hits; returns the places of the cards, to be drawn again with marks."""
    if not result.hits:
        if engine.store.count():
            st.info("Nothing was found. Take another language, or all of them.", icon=":material/search_off:")
        else:
            controls.empty()
    places = []
    for number, hit in enumerate(result.hits, start=1):
        with st.container(border=True, gap=None):
            place = st.empty()
            place.html(ui.card(hit, mode=result.mode, answer=answer))
            places.append(place)
            st.button(
                "Find similar",
                key=f"similar-{number}",
                type="tertiary",
                icon=":material/hub:",
                on_click=find_similar,
                args=(hit.id,),
            )
    return places


def evidence_of(result: SearchResult) -> list[str]:
    """What was searched, by what, and how long it took."""
    return [
        f"encode {result.timings.encode_ms:.0f} ms",
        f"search {result.timings.search_ms:.1f} ms",
        f"{result.dimensions} dimensions",
        result.mode,
        result.model,
    ]


def find_similar(document: str) -> None:
    """Show the neighbours of a document."""
    st.query_params["similar"] = document


def mark(
    engine: SearchEngine,
    result: SearchResult,
    way: Way,
    places: Sequence[DeltaGenerator],
    *,
    answer: int | None = None,
) -> None:
    """Draw the cards again with the best sentence of each marked: the hits need not wait for that."""
    found = best(engine, result.query, result.hits, way.dimensions, result.instruction)
    for place, hit, highlight in zip(places, result.hits, found, strict=True):
        if highlight is not None:
            place.html(ui.card(hit, mode=result.mode, answer=answer, highlight=highlight))


def best(
    engine: SearchEngine, query: str, hits: Sequence[Hit], dimensions: int, instruction: str
) -> list[Highlight | None]:
    """The best sentence of each hit; once for each page that is shown."""
    texts = tuple(hit.text for hit in hits)
    key = (engine.encoder.model_name, query, texts, dimensions, instruction)
    if st.session_state.get("marked_for") != key:
        st.session_state.marked = best_sentences(
            engine.encoder, query, texts, dimensions=dimensions, instruction=instruction
        )
        st.session_state.marked_for = key
    found: list[Highlight | None] = st.session_state.marked
    return found


def forget(name: str) -> None:
    """Take something out of the address."""
    if name in st.query_params:
        del st.query_params[name]


page()
