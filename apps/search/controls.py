"""The controls that pages share: model, collection, question, languages, and how to search.

What is chosen stands in the address. Most widgets write it themselves (``bind``); those whose options are called
otherwise than their values, collection and languages, are written here. An address that names what is not there is the
same as one that names nothing.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable

import resources
import streamlit as st
import ui
from examples import EXAMPLES
from resources import Model, Workspace

from f2rag import F2RagError, SearchEngine
from f2rag.store import Diverse, Exact, Funnel, Hnsw, Hybrid, Prefix, Quantized
from f2rag.store.modes import Mode, ModeName

_COSTS = {kind.__name__.lower(): kind for kind in (Exact, Hnsw, Quantized, Funnel, Prefix, Hybrid, Diverse)}

_AT_LEVELS = ("auto", "exact", "hybrid")
"""Modes that have a meaning where a stored level alone is compared."""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How to search.

    Attributes:
        dimensions: That are compared: the collection's own, or a stored level.
        mode: As ``SearchEngine.search`` takes it.
        instruction: ``None`` for the model's own, ``""`` for none.
    """

    dimensions: int
    mode: Mode | ModeName
    instruction: str | None


def ready_model() -> Model:
    """The model; a progress bar while it is loading.

    Raises:
        F2RagError: It cannot be used.
    """
    place = st.empty()
    try:
        return resources.running_model(lambda share, words: place.progress(share, f"{words}…"))
    finally:
        place.empty()


def ready(workspace: Workspace, name: str) -> SearchEngine:
    """The engine over a collection; a progress bar while the bundled corpus is being indexed.

    Raises:
        F2RagError: It cannot be used.
    """
    place = st.empty()
    try:
        return workspace.ready(name, place.progress)
    finally:
        place.empty()


def banner(model: Model, *, briefly: bool = True) -> None:
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


def failed(error: F2RagError) -> None:
    """Something that a person can mend: the library says what it is."""
    st.error(ui.markdown(str(error)), icon=":material/error:")
    st.button("Try again", key="retry", icon=":material/refresh:")


def chosen_collection(workspace: Workspace) -> str:
    """The picker of the sidebar, ``?collection=``; those that this model cannot search are not offered.

    Raises:
        StoreError: The collections cannot be listed.
    """
    entries = {entry.name: entry for entry in workspace.collections()}
    offered = [name for name, entry in entries.items() if entry.problem is None or name == workspace.default]
    _take_from_address("collection", offered)
    if st.session_state.get("collection") not in offered:
        st.session_state.collection = workspace.default
    with st.sidebar:
        name: str = st.selectbox(
            "Collection",
            offered,
            key="collection",
            format_func=lambda name: entries[name].title if name in entries else name,
            on_change=_leave_collection,
            persist_state="session",
        )
    _write_to_address("collection", [] if name == workspace.default else [name])
    return name


def question(*, on_change: Callable[[], None] | None = None) -> str:
    """The box at the top of a page, ``?q=``; empty where nothing was asked.

    Args:
        on_change: Called before the page that follows another question.
    """
    if st.session_state.get("q") and "q" not in st.query_params:
        # Another page was opened. A question that came with the address, and was not typed, would be lost on the way.
        st.session_state.q = st.session_state.q
    query = st.text_input(
        "Question",
        key="q",
        bind="query-params",
        placeholder="Ask in any language",
        icon=":material/search:",
        label_visibility="collapsed",
        max_chars=2000,
        on_change=on_change,
    )
    return query.strip()


def example_chips(*, asked: bool, on_change: Callable[[], None] | None = None) -> None:
    """Questions to the bundled corpus, to be clicked.

    Args:
        asked: Whether results follow, which need the room: the chips then are in one row, which scrolls.
        on_change: Called when one was put into the box.
    """

    def take() -> None:
        if st.session_state.example is not None:
            st.session_state.q = st.session_state.example
            st.session_state.example = None
            if on_change is not None:
                on_change()

    st.pills(
        "Examples",
        [example.text for example in EXAMPLES],
        key="example",
        format_func=ui.isolate,
        on_change=take,
        wrap=not asked,
        label_visibility="collapsed",
    )


def empty() -> None:
    """Say that there is nothing to search."""
    st.info("This collection holds no documents yet. Add some on the page Documents.", icon=":material/inbox:")


def chosen_languages(workspace: Workspace, name: str) -> list[str]:
    """The languages of the results, ``?language=``, from those that the collection has; none stands for all.

    Raises:
        StoreError: The collection failed.
    """
    counts = workspace.languages(name)
    if not counts:
        return []
    _take_from_address("language", counts, several=True)
    st.session_state.language = [tag for tag in st.session_state.get("language") or [] if tag in counts]
    with st.sidebar:
        languages: list[str] = st.multiselect(
            "Languages of the results",
            sorted(counts, key=ui.language_sort_key),
            key="language",
            format_func=ui.language_name,
            placeholder=f"All {len(counts)} languages" if len(counts) > 1 else "All languages",
            persist_state="session",
        )
    _write_to_address("language", languages)
    return languages


def chosen_way(
    engine: SearchEngine,
    model: Model,
    *,
    side: str = "",
    dimensions: int | None = None,
    editable: bool = True,
    asks: bool = True,
) -> Way:
    """Dimensions, mode and instruction, each in the address.

    Args:
        engine: The collection that is searched.
        model: The model.
        side: Put before the keys, e.g. ``"left_"``.
        dimensions: The size that is taken unless another one is chosen; the full width when not given.
        editable: Whether the words of the instruction can be changed too.
        asks: Whether there is a query that an instruction could go before.

    Raises:
        StoreError: The collection failed.
    """
    # Side by side where two ways share a page, below each other in the sidebar.
    left, right = st.columns(2) if side else (st.container(), st.container())
    with left:
        size = _dimensions(engine, side=side, default=dimensions or engine.store.dimensions)
    with right:
        mode = _mode(engine, size, side=side, default=model.settings.mode)
    return Way(
        dimensions=size,
        mode=mode_for(mode, dimensions=size, width=engine.store.dimensions),
        instruction=_instruction(model, side=side, editable=editable, asks=asks),
    )


def mode_for(name: ModeName, *, dimensions: int, width: int) -> Mode | ModeName:
    """The mode that stands for a name at a vector size; at less than the full width, of the stored level alone."""
    if dimensions == width:
        return name
    if name == "hybrid":
        return Hybrid(dense=Prefix(dimensions))
    return Prefix(dimensions, exact=name == "exact")


def modes_at(engine: SearchEngine, dimensions: int) -> list[ModeName]:
    """The modes that a collection offers at a vector size, ``"auto"`` first.

    Raises:
        StoreError: The collection failed.
    """
    modes: list[ModeName] = ["auto", *(mode for mode in engine.store.modes() if mode != "prefix")]
    full = dimensions == engine.store.dimensions
    return [mode for mode in modes if full or mode in _AT_LEVELS]


def dimension_choices(engine: SearchEngine) -> list[int]:
    """The vector sizes that can be compared: the stored levels, and the full width last."""
    return [*engine.store.layout.levels, engine.store.dimensions]


def cost(mode: ModeName, engine: SearchEngine) -> str:
    """What a mode does and costs, in a sentence of the library's; of ``"auto"`` what it chose, and why.

    Raises:
        StoreError: The collection failed.
    """
    if mode == "auto":
        chosen, reason = engine.store.plan()
        return f"Takes “{chosen}” here: {reason}."
    sentence = (inspect.getdoc(_COSTS[mode]) or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r"``(.*?)``", r"\1", sentence)


def _leave_collection() -> None:
    """Another collection was chosen: what only the one before had is left behind."""
    for key in ("similar", "first"):
        if key in st.query_params:
            del st.query_params[key]


def _dimensions(engine: SearchEngine, *, side: str, default: int) -> int:
    choices = dimension_choices(engine)
    _repair(f"{side}dimensions", choices)
    dimensions: int = st.selectbox(
        "Dimensions",
        choices,
        index=choices.index(default),
        key=f"{side}dimensions",
        bind="query-params",
        help=f"The collection holds {choices[-1]}-dimensional vectors"
        + (f" and their first {', '.join(map(str, choices[:-1]))} dimensions. " if choices[:-1] else ". ")
        + "Shorter vectors need less memory, are searched faster, and find a little less.",
    )
    return dimensions


def _mode(engine: SearchEngine, dimensions: int, *, side: str, default: ModeName) -> ModeName:
    choices = modes_at(engine, dimensions)
    _repair(f"{side}mode", choices)
    index = choices.index(default) if default in choices else 0
    mode: ModeName = st.selectbox("Mode", choices, index=index, key=f"{side}mode", bind="query-params")
    level = dimensions < engine.store.dimensions
    sentence = f"Compares the first {dimensions} dimensions alone. " if level else ""
    if not (level and mode in ("auto", "exact")):
        sentence += cost(mode, engine)
    st.caption(ui.markdown(sentence.strip()))
    return mode


def _instruction(model: Model, *, side: str, editable: bool, asks: bool) -> str | None:
    default = model.encoder.instruction
    if not default:
        if editable:
            st.caption("Queries go in bare: no instruction belongs to this model.")
        return None
    used = st.toggle(
        "Instruction",
        value=True,
        key=f"{side}instructed",
        bind="query-params",
        disabled=not asks,
        help="F2LLM-v2 is told what a query looks for. Switch it off to see what it does to the results.",
    )
    if not editable:
        return None if used else ""
    text = st.text_area(
        "What the query looks for",
        value=default,
        key=f"{side}instruction",
        bind="query-params",
        disabled=not (used and asks),
        max_chars=1000,
    )
    return text.strip() if used else ""


def _repair(key: str, choices: Iterable[object]) -> None:
    """Forget a choice that is not offered any more, e.g. of another collection."""
    if key in st.session_state and st.session_state[key] not in choices:
        del st.session_state[key]


def _take_from_address(key: str, allowed: Iterable[str], *, several: bool = False) -> None:
    """Let a widget that is not bound begin with what the address says."""
    if key in st.session_state:
        return
    found = [value for value in st.query_params.get_all(key) if value in allowed]
    if several:
        st.session_state[key] = found
    elif found:
        st.session_state[key] = found[0]


def _write_to_address(key: str, values: list[str]) -> None:
    if st.query_params.get_all(key) == values:
        return
    if values:
        st.query_params[key] = values
    else:
        st.query_params.pop(key, None)
