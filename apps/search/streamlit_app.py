"""The search page: ask in one language, find in all of them.

    streamlit run apps/search/streamlit_app.py

It draws what ``f2rag`` returns and knows no torch and no database. The page is always in one of four states: home,
loading, no result, error. What was asked stands in the address, which can be passed on.
"""

from __future__ import annotations

import resources
import streamlit as st
import ui
from examples import EXAMPLES

from f2rag import F2RagError, SearchEngine, SearchResult
from f2rag.corpus import UDHR_LANGUAGES
from f2rag.demo import DEMO_LANGUAGES

QUESTIONS = {question.text: question for question in EXAMPLES}


def page() -> None:
    """The page, from top to bottom."""
    st.title("Multilingual search")
    st.text_input(
        "Question",
        key="q",
        bind="query-params",
        placeholder="Ask in any language",
        icon=":material/search:",
        label_visibility="collapsed",
        max_chars=2000,
    )
    query = st.session_state.q or ""
    asked = bool(query.strip())
    st.pills(
        "Examples",
        QUESTIONS,
        key="example",
        format_func=ui.isolate,
        on_change=take_example,
        wrap=not asked,  # in one row, which scrolls, where the results need the room
        label_visibility="collapsed",
    )
    with st.spinner("Loading the model…", show_time=True):
        model = resources.running_model()
    banner(model, briefly=asked)
    dimensions, languages, instruction = controls(model)
    engine = ready_engine(dimensions)
    if asked:
        limit = model.settings.limit
        with st.spinner("Searching…"):
            result = engine.search(query, limit=limit, language=languages or None, instruction=instruction)
        show(result)
    else:
        home(model, engine)


def take_example() -> None:
    """Put the example that was clicked into the search box."""
    if st.session_state.example is not None:
        st.session_state.q = st.session_state.example
        st.session_state.example = None


def banner(model: resources.Model, *, briefly: bool) -> None:
    """Say so where the stand-in runs."""
    if not model.encoder.is_stand_in:
        return
    text = "**This is the stand-in, not F2LLM-v2**, which finds a good deal more."
    if not briefly:
        text += (
            f" It runs because {ui.markdown(model.reason)}. It is a small model that ships with f2rag to show how "
            "everything works without a download."
        )
    st.warning(text, icon=":material/info:")


def controls(model: resources.Model) -> tuple[int, list[str], str | None]:
    """The sidebar: vector size, languages, instruction (``None`` where the model takes none)."""
    with st.sidebar:
        languages = language_filter()
        choices = model.dimension_choices
        dimensions = st.selectbox(
            "Dimensions",
            choices,
            index=choices.index(model.encoder.dimensions),
            key="dimensions",
            bind="query-params",
            help=f"The model's own size is {model.encoder.native_dimensions}. Shorter vectors need less memory, are "
            "searched faster, and find a little less.",
        )
        instruction = instruction_control(model.encoder.instruction)
        st.html(ui.facts([model.description]))
    return dimensions, languages, instruction


def language_filter() -> list[str]:
    """The languages of the results; none stands for all.

    The address holds their tags. ``bind`` would write what the options are called.
    """
    if "language" not in st.session_state:
        st.session_state.language = [tag for tag in st.query_params.get_all("language") if tag in DEMO_LANGUAGES]
    languages = st.multiselect(
        "Languages of the results",
        sorted(DEMO_LANGUAGES, key=lambda tag: UDHR_LANGUAGES[tag].name),
        key="language",
        format_func=ui.language_name,
        placeholder="All languages",
    )
    if languages:
        st.query_params["language"] = languages
    else:
        st.query_params.pop("language", None)
    return languages


def instruction_control(default: str) -> str | None:
    """Whether the query gets an instruction, and which."""
    if not default:
        st.caption("Queries go in bare: no instruction belongs to this model.")
        return None
    used = st.toggle(
        "Instruction",
        value=True,
        key="instructed",
        help="F2LLM-v2 is told what a query looks for. Switch it off to see what it does to the results.",
    )
    text = st.text_area("What the query looks for", value=default, key="instruction", disabled=not used)
    return text.strip() if used else ""


def ready_engine(dimensions: int) -> SearchEngine:
    """The engine over the Declaration; a progress bar while it is being indexed."""
    place = st.empty()
    try:
        engines = resources.declaration().engines(place.progress)
    finally:
        place.empty()
    return engines[dimensions]


def home(model: resources.Model, engine: SearchEngine) -> None:
    """Nothing was asked yet."""
    st.markdown(
        "Ask the Universal Declaration of Human Rights a question in your language, or take one from above. "
        f"It is searched by meaning, in {len(DEMO_LANGUAGES)} languages at once."
    )
    st.html(
        ui.facts(
            [
                model.encoder.model_name,
                f"{engine.store.count():,} articles",
                f"{engine.store.dimensions} of {model.encoder.native_dimensions} dimensions",
            ]
        )
    )


def show(result: SearchResult) -> None:
    """The hits and their evidence."""
    question = QUESTIONS.get(result.query)
    if question is not None and question.english:
        st.caption(f"In English: {ui.markdown(question.english)}")
    st.html(
        ui.facts(
            [
                f"encode {result.timings.encode_ms:.0f} ms",
                f"search {result.timings.search_ms:.1f} ms",
                f"{result.dimensions} dimensions",
                result.model,
            ]
        )
    )
    if not result.hits:
        st.info("Nothing was found. Take another language, or all of them.", icon=":material/search_off:")
    for hit in result.hits:
        with st.container(border=True):
            st.html(ui.card(hit, answer=question.article if question else None))


def failed(error: F2RagError) -> None:
    """Something that a person can mend: the library says what it is."""
    st.error(ui.markdown(str(error)), icon=":material/error:")
    st.button("Try again", icon=":material/refresh:")


st.set_page_config(page_title="f2rag search", page_icon=":material/travel_explore:")
st.html(ui.STYLE)
try:
    page()
except F2RagError as problem:
    failed(problem)
