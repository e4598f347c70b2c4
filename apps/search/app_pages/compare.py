"""The compare page: one question, two ways to search, side by side; and which vector size this collection needs.

Each side has its dimensions, mode and instruction in the address: ``left_dimensions``, ``right_mode`` and so on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt
import controls
import jobs
import resources
import streamlit as st
import ui
from controls import Way
from resources import Model

from f2rag import Comparison, F2RagError, SearchEngine, SearchResult, compare
from f2rag.advice import Advice, Choice, advise, readable_bytes
from f2rag.types import Timings

LIMIT = 10  # hits of each side: people compare the first ten
RUNS = 3
QUICK_MS = 200  # searches that take longer are not repeated

Setting: TypeAlias = Mapping[str, Any]  # what a preset puts into the controls, by key

_SERIES = {"prefix": "shorter vectors alone", "funnel": "shorter first pass, full second"}
_COLOURS = {"prefix": "#0e8f83", "funnel": "#d97706"}

_STEPS = {"embedding": "Embedding the queries", "comparing": "Comparing all vector sizes"}


def page() -> None:
    """The page, from top to bottom."""
    st.title("Compare two ways to search")
    query = controls.question()
    chips = st.container()
    model = controls.ready_model()
    controls.banner(model)
    space = resources.workspace()
    name = controls.chosen_collection(space)
    engine = controls.ready(space, name)
    languages = controls.chosen_languages(space, name)
    if name == space.bundled:
        with chips:
            controls.example_chips(asked=bool(query))
    presets(engine, model)
    columns = st.columns(2)
    ways = []
    for column, side in zip(columns, ("left_", "right_"), strict=True):
        with column, st.container(border=True, height="stretch"):
            ways.append(side_of(engine, model, side))
    if not engine.store.count():
        controls.empty()
        return
    if query:
        with st.spinner("Searching twice…"):
            left, right = search(engine, query, languages, ways)
        show(engine, compare(left, right, limit=LIMIT), ways)
    else:
        st.markdown(
            "Ask a question, or take one from above, and see what two ways to search have in common: fewer dimensions "
            "against all of them, one mode against another, with and without the instruction."
        )
    size_for(engine, name)


def presets(engine: SearchEngine, model: Model) -> None:
    """Comparisons that are worth a look, as far as this collection and this model offer them."""
    offered = preset_settings(engine, model)
    if not offered:
        return

    def take() -> None:
        if st.session_state.preset is not None:
            for key, value in offered[st.session_state.preset].items():
                st.session_state[key] = value
            st.session_state.preset = None

    st.pills("Presets", list(offered), key="preset", on_change=take, label_visibility="collapsed")


def preset_settings(engine: SearchEngine, model: Model) -> dict[str, Setting]:
    """What each preset puts into the controls."""
    width = engine.store.dimensions
    plain: dict[str, Any] = {
        **{f"{side}_dimensions": width for side in ("left", "right")},
        **{f"{side}_mode": "exact" for side in ("left", "right")},
        **({f"{side}_instructed": True for side in ("left", "right")} if model.encoder.instruction else {}),
    }
    found: dict[str, Setting] = {
        f"{width} against {size} dimensions": {**plain, "right_dimensions": size}
        for size in reversed(engine.store.layout.levels)
    }
    if model.encoder.instruction:
        found["with and without the instruction"] = {**plain, "right_instructed": False}
    for mode in controls.modes_at(engine, width):
        if mode not in ("auto", "exact"):
            found[f"exact against {mode}"] = {**plain, "right_mode": mode}
    return found


def side_of(engine: SearchEngine, model: Model, side: str) -> Way:
    """The controls of one side; the right one begins with the smallest stored size."""
    default = engine.store.dimensions if side == "left_" else controls.dimension_choices(engine)[0]
    return controls.chosen_way(engine, model, side=side, dimensions=default, editable=False)


def search(engine: SearchEngine, query: str, languages: list[str], ways: Sequence[Way]) -> list[SearchResult]:
    """Search as each side says, in turns; of quick searches the fastest counts, since chance would decide otherwise."""
    found: list[list[SearchResult]] = [[] for _ in ways]
    for _ in range(RUNS):
        for results, way in zip(found, ways, strict=True):
            results.append(
                engine.search(
                    query, limit=LIMIT, language=languages or None, instruction=way.instruction, mode=way.mode
                )
            )
        if max(results[-1].timings.total_ms for results in found) > QUICK_MS:
            break
    return [
        dataclasses.replace(
            results[0],
            timings=Timings(
                encode_ms=min(result.timings.encode_ms for result in results),
                search_ms=min(result.timings.search_ms for result in results),
            ),
        )
        for results in found
    ]


def show(engine: SearchEngine, found: Comparison, ways: list[Way]) -> None:
    """What both have in common, then the hits of each."""
    left, right = ways
    if left == right:
        st.caption("Both sides search in the same way. Change one of them, or take a preset.")
    st.html(ui.table(evidence(engine, found, ways), head=["", "Left", "Right"]))
    shared = sum(row.change is not None for row in found.rows)
    st.markdown(
        f"**overlap@{found.limit}: {found.overlap:.0%}** · {shared} hits are shared; equal numbers are equal hits."
    )
    if not found.rows:
        st.info("Nothing was found. Take another language, or all of them.", icon=":material/search_off:")
    for column, badges, result in zip(st.columns(2), sides(found), (found.left, found.right), strict=True):
        with column:
            for hit in result.hits[: found.limit]:
                with st.container(border=True):
                    st.html(ui.card(hit, mode=result.mode, badge=badges[hit.id]))


def sides(found: Comparison) -> tuple[dict[str, str], dict[str, str]]:
    """The badge of each hit, by document, on the left and on the right."""
    left, right = {}, {}
    for row in found.rows:
        shared = row.left_rank is not None and row.right_rank is not None
        if row.left_rank is not None:
            left[row.hit.id] = ui.pair(row.left_rank, None) if shared else ui.alone()
        if row.right_rank is not None:
            right[row.hit.id] = ui.pair(row.left_rank, row.change) if shared and row.left_rank else ui.alone()
    return left, right


def evidence(engine: SearchEngine, found: Comparison, ways: list[Way]) -> list[list[str]]:
    """What each side compared, how much memory that takes, and how long it took."""
    results = (found.left, found.right)
    return [
        ["Dimensions", *(f"{result.dimensions}" for result in results)],
        ["Mode", *(result.mode for result in results)],
        ["Instruction", *("the model's own" if result.instruction else "none" for result in results)],
        [
            "First pass, per million vectors",
            *(readable_bytes(engine.store.memory_per_million(way.mode)) for way in ways),
        ],
        ["Encode (fastest)", *(f"{result.timings.encode_ms:.0f} ms" for result in results)],
        ["Search (fastest)", *(f"{result.timings.search_ms:.1f} ms" for result in results)],
    ]


def size_for(engine: SearchEngine, name: str) -> None:
    """Which vector size and compression this collection needs, measured on demand in a job of its own."""
    st.subheader("Which size is enough for this collection?")
    key = f"curve:{name}"
    st.markdown(
        "Measured on its own documents: their first sentences are asked, and what shorter and compressed vectors find "
        "is held against an exact search at full width."
    )
    if st.button("Measure", key="curve", icon=":material/monitoring:"):
        jobs.start(key, lambda report: measure(engine, report))
    job = jobs.find(key)
    if job is None:
        return
    place = st.empty()
    try:
        advice: Advice = job.wait(place.progress)
    except F2RagError as error:
        st.error(ui.markdown(str(error)), icon=":material/error:")
        return
    finally:
        place.empty()
    recommend(advice)


def measure(engine: SearchEngine, report: jobs.Report) -> Advice:
    """Ask the library; runs in a job and draws nothing."""

    def told(step: str, done: int, total: int) -> None:
        report(done, total, f"{_STEPS.get(step, f'Timing the mode {step}')}: {done:,} of {total:,}")

    report(0, 1, "Reading documents")
    return advise(engine, on_progress=told)


def recommend(advice: Advice) -> None:
    """The advice in words, as a curve and as a table."""
    st.success(ui.markdown(advice.sentence), icon=":material/task_alt:")
    st.altair_chart(curve(advice), key="curve_chart", alt=in_words(advice))
    best = advice.recommended
    rows = [choice_row(choice) for choice in advice.choices]
    chosen = next((row for row, choice in enumerate(advice.choices) if choice is best), None)
    with st.expander("All choices"):
        st.html(
            ui.table(
                rows,
                head=["Vectors", f"Recall@{advice.limit}", "95 % interval", "Memory per million", "Disk per million"],
                chosen=chosen,
            )
        )
    if advice.measured:
        with st.expander("The modes of this collection, timed"):
            st.html(
                ui.table(
                    [
                        [each.mode, f"{each.recall.mean:.3f}", f"{each.search_ms:.1f} ms", f"{each.searches:,}"]
                        for each in advice.measured
                    ],
                    head=["Mode", f"Recall@{advice.limit}", "Median search", "Searches"],
                )
            )
    for note in advice.notes:
        st.caption(ui.markdown(note))
    st.caption(f"{advice.compared:,} of {advice.documents:,} documents, {advice.queries:,} queries.")


def choice_row(choice: Choice) -> list[str]:
    """One way to store vectors, as a row."""
    low, high = choice.recall.low, choice.recall.high
    return [
        choice.name,
        f"{choice.recall.mean:.3f}",
        "–" if low is None or high is None else f"{low:.3f} to {high:.3f}",
        readable_bytes(choice.memory),
        readable_bytes(choice.disk) if choice.disk else "–",
    ]


def curve(advice: Advice) -> alt.LayerChart | alt.FacetChart:
    """Recall by vector size, with its 95 % interval as a band, and the target as a line."""
    rows = [
        {
            "dimensions": choice.dimensions,
            "how": _SERIES[choice.kind],
            "recall": choice.recall.mean,
            "low": choice.recall.mean if choice.recall.low is None else choice.recall.low,
            "high": choice.recall.mean if choice.recall.high is None else choice.recall.high,
            "memory": readable_bytes(choice.memory),
        }
        for choice in advice.choices
        if choice.kind in _SERIES
    ]
    sizes = sorted({choice.dimensions for choice in advice.choices if choice.kind in _SERIES})
    x = alt.X(
        "dimensions:Q",
        title="dimensions",
        scale=alt.Scale(type="log", base=2, domain=[sizes[0], sizes[-1]]),
        axis=alt.Axis(values=sizes, labelOverlap=False, format="d"),
    )
    scale = alt.Scale(zero=False, domainMax=1.0)
    colour = alt.Color(
        "how:N",
        title=None,
        scale=alt.Scale(domain=list(_SERIES.values()), range=list(_COLOURS.values())),
        legend=alt.Legend(orient="bottom", labelLimit=400, symbolOpacity=1),
    )
    tooltip = [
        alt.Tooltip("how:N", title="how"),
        alt.Tooltip("dimensions:Q", title="dimensions"),
        alt.Tooltip("recall:Q", title="recall", format=".3f"),
        alt.Tooltip("low:Q", title="at least", format=".3f"),
        alt.Tooltip("high:Q", title="at most", format=".3f"),
        alt.Tooltip("memory:N", title="memory per million"),
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, color=colour)
    target = (
        alt.Chart(alt.InlineData(values=[{"target": advice.target}]))
        .mark_rule(strokeDash=[4, 4], color="#888888")
        .encode(y="target:Q", tooltip=[alt.Tooltip("target:Q", title="target")])
    )
    band = base.mark_area(opacity=0.2).encode(
        y=alt.Y("low:Q", title=f"recall@{advice.limit} of exact search at full width", scale=scale), y2="high:Q"
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=60, filled=True)).encode(
        y=alt.Y("recall:Q", scale=scale), tooltip=tooltip
    )
    # Without the menu nobody is sent to an editor on the internet.
    options = {"embedOptions": {"actions": False}}
    return alt.layer(band, line, target).properties(height=360, usermeta=options)


def in_words(advice: Advice) -> str:
    """What the curve shows, for those who do not see it."""
    points = [
        f"{choice.dimensions} dimensions {choice.recall.mean:.3f}"
        for choice in advice.choices
        if choice.kind == "prefix"
    ]
    return f"Recall@{advice.limit} by vector size: {', '.join(points)}. The target is {advice.target:g}."


page()
