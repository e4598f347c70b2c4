"""The map: a collection in two dimensions, and where a question falls among its documents.

The two dimensions are the directions in which the documents differ most (``f2rag.project``). They are computed in a
job of their own, once for each state of a collection; this file only colours and draws them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import altair as alt
import controls
import jobs
import numpy as np
import resources
import streamlit as st
import ui

from f2rag import Document, Hit, Projection, SearchEngine, project

# Most documents on the map: more would lie on top of one another, and a browser would take seconds to draw them.
SAMPLE = 5_000

# Languages or sources with a colour of their own; with the grey of the others the legend has twenty entries.
GROUPS = 19

OTHERS = "all others"

Field: TypeAlias = Literal["language", "source"]

# Of Okabe and Ito: told apart with any kind of colour vision, on white and on black. Each comes in four shapes.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")

_SHAPES = ("circle", "square", "triangle-up", "diamond")

# The vermilion of the same palette, for the question and its hits alone.
_ASKED = "#D55E00"

_GREY = "#999999"

_STAR = "M0,-1L.235,-.324L.951,-.309L.38,.124L.588,.809L0,.4L-.588,.809L-.38,.124L-.951,-.309L-.235,-.324Z"

# Characters of a text that are shown where the pointer is.
_PREVIEW = 200

# Where more languages are equally frequent than there are colours, these get one first.
_WIDELY_READ = ("en", "zh", "hi", "es", "ar", "fr", "bn", "pt", "ru", "ur", "id", "de", "ja", "mr", "vi", "te", "ko")


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A question on the map.

    Attributes:
        query: Its text.
        place: Where it falls, (x, y).
        hits: What was found, best first.
        places: Where those lie, (x, y), by document id.
    """

    query: str
    place: Sequence[float]
    hits: Sequence[Hit]
    places: Mapping[str, Sequence[float]]


def page() -> None:
    """The page, from top to bottom."""
    st.title("Map")
    query = controls.question()
    model = controls.ready_model()
    controls.banner(model)
    space = resources.workspace()
    name = controls.chosen_collection(space)
    engine = controls.ready(space, name)
    field = colour_control()
    count = engine.store.count()
    if not count:
        st.info("This collection holds no documents yet. Add some on the page Documents.", icon=":material/inbox:")
        return
    found = projection(name, engine, count)
    asked = ask(query, engine, found, limit=model.settings.limit) if query else None
    st.altair_chart(chart(found, field, asked), key="map", alt=in_words(found, asked))
    for words in captions(found, asked, dimensions=engine.store.dimensions):
        st.caption(words)


def colour_control() -> Field:
    """What the colours stand for."""
    chosen = st.segmented_control(
        "Colour by",
        ["language", "source"],
        default="language",
        required=True,
        key="colour",
        bind="query-params",
    )
    return "source" if chosen == "source" else "language"


def projection(name: str, engine: SearchEngine, count: int) -> Projection:
    """The collection's map; computed again once it holds another number of documents."""
    key = f"map:{name}"
    job = jobs.find(key)
    if job is None or job.failed or (job.succeeded and job.wait().total != count):
        job = jobs.start(key, lambda report: compute(engine, count, report))
    place = st.empty()
    try:
        found: Projection = job.wait(place.progress)
    finally:
        place.empty()
    return found


def compute(engine: SearchEngine, count: int, report: jobs.Report) -> Projection:
    """Project a collection; runs in a job and draws nothing."""
    total = min(count, SAMPLE)

    def told(done: int) -> None:
        report(done, total, f"Making the map: {done:,} of {total:,} documents")

    told(0)
    return project(engine.store, sample=SAMPLE, on_progress=told)


def ask(query: str, engine: SearchEngine, found: Projection, *, limit: int) -> Asked:
    """Search, and place the question and its hits."""
    store = engine.store
    with st.spinner("Searching…"):
        vector = engine.encoder.embed_query(query, dimensions=store.dimensions)
        hits = store.search(vector, text=query, limit=limit)
        # By their vectors, so that hits outside the sample are on the map as well.
        vectors = store.vectors([hit.id for hit in hits])
    place, *places = found.place(np.stack([vector, *vectors.values()])).tolist()
    return Asked(query=query, place=place, hits=hits, places=dict(zip(vectors, places, strict=True)))


def chart(found: Projection, field: Field, asked: Asked | None) -> alt.LayerChart:
    """The map as a chart; from the back: the documents without a colour, those with one, the hits, the star."""
    values = [document.language if field == "language" else document.source for document in found.documents]
    coloured = groups(values, field)
    rows = [
        {**row(document, place), "group": name if (name := group_name(value, field)) in coloured else OTHERS}
        for document, place, value in zip(found.documents, found.coordinates.tolist(), values, strict=True)
    ]
    rows.sort(key=lambda row: bool(row["group"] != OTHERS))
    layers = [documents_layer(rows, coloured if rows[0]["group"] != OTHERS else [*coloured, OTHERS])]
    if asked is not None:
        layers += [hits_layer(asked), star_layer(asked)]
    # On a canvas thousands of points stay quick; without the menu nobody is sent to an editor on the internet.
    options = {"embedOptions": {"renderer": "canvas", "actions": False}}
    drawn: alt.LayerChart = alt.layer(*layers).properties(height=600, usermeta=options).configure_view(stroke=None)
    return drawn


def groups(values: Sequence[str | None], field: Field) -> list[str]:
    """Names of the languages or sources that get a colour, the most frequent first."""
    counts = Counter(values)
    first = {tag: rank for rank, tag in enumerate(_WIDELY_READ)}

    def order(value: str | None) -> tuple[int, int, str]:
        return -counts[value], first.get(value or "", len(first)), value or ""

    return [group_name(value, field) for value in sorted(counts, key=order)[:GROUPS]]


def group_name(value: str | None, field: Field) -> str:
    """What the legend calls a language or a source."""
    if not value:
        return f"no {field} given"
    return ui.language_name(value) if field == "language" else value


def documents_layer(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> alt.Chart:
    """The documents; a click on a name in the legend brings its group out."""
    colours = [_GREY if name == OTHERS else _COLOURS[rank % len(_COLOURS)] for rank, name in enumerate(names)]
    shapes = [_SHAPES[0 if name == OTHERS else rank // len(_COLOURS)] for rank, name in enumerate(names)]
    columns = f"min({len(names)}, max(2, floor(width / 190)))"
    legend = alt.Legend(
        orient="bottom",
        title=None,
        columns=alt.ExprRef(columns),
        labelLimit=alt.ExprRef(f"width / {columns} - 30"),
        symbolLimit=0,
        symbolOpacity=1,
    )
    brought_out = alt.selection_point(name="brought_out", fields=["group"], bind="legend")
    grey = alt.datum.group == OTHERS
    opacity = alt.when(brought_out & grey).then(alt.value(0.5)).when(brought_out).then(alt.value(0.85))
    points: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True)
        .encode(
            **place_on_map(),
            color=alt.Color("group:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
            shape=alt.Shape("group:N", scale=alt.Scale(domain=names, range=shapes), legend=legend),
            size=alt.when(grey).then(alt.value(18)).otherwise(alt.value(40)),
            opacity=opacity.otherwise(alt.value(0.06)),
            tooltip=shown("text", "language", "source"),
        )
    )
    return points.add_params(brought_out)


def hits_layer(asked: Asked) -> alt.Chart:
    """A ring around each hit."""
    rows = [
        {**row(hit, asked.places[hit.id]), "rank": rank}
        for rank, hit in enumerate(asked.hits, start=1)
        if hit.id in asked.places
    ]
    rings: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(shape="circle", filled=False, size=260, strokeWidth=2.5, color=_ASKED, opacity=1)
        .encode(**place_on_map(), tooltip=shown("rank", "text", "language", "source"))
    )
    return rings


def star_layer(asked: Asked) -> alt.Chart:
    """The question."""
    x, y = asked.place
    star: alt.Chart = (
        alt.Chart(alt.InlineData(values=[{"x": x, "y": y, "question": shortened(asked.query)}]))
        .mark_point(shape=_STAR, fill=_ASKED, stroke="white", strokeWidth=1, size=420, opacity=1)
        .encode(**place_on_map(), tooltip=shown("question"))
    )
    return star


def row(found: Document | Hit, place: Sequence[float]) -> dict[str, Any]:
    """A point, and what is shown where the pointer is; the browser shows that as text, whatever is in it."""
    return {
        "x": place[0],
        "y": place[1],
        "text": shortened(found.text),
        "language": group_name(found.language, "language"),
        "source": group_name(found.source, "source"),
    }


def place_on_map() -> dict[str, Any]:
    """Where a point lies. The axes have no unit, so they are not drawn."""
    scale = alt.Scale(zero=False, nice=False, padding=12)
    return {"x": alt.X("x:Q", axis=None, scale=scale), "y": alt.Y("y:Q", axis=None, scale=scale)}


def shown(*fields: str) -> list[alt.Tooltip]:
    """What is shown where the pointer is."""
    return [alt.Tooltip(field, type="nominal", title=field.capitalize()) for field in fields]


def shortened(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW else f"{line[:_PREVIEW].rstrip()}…"


def in_words(found: Projection, asked: Asked | None) -> str:
    """What the map shows, for those who do not see it."""
    words = f"Map of {len(found.documents):,} documents, each a point; near points are similar texts."
    if asked is not None:
        words += " A star marks the question, rings its best hits."
    return words


def captions(found: Projection, asked: Asked | None, *, dimensions: int) -> list[str]:
    """How to read the map, and what it does not show."""
    texts = []
    if asked is not None:
        texts.append(
            f"The star is the question, the rings are its best hits. They were searched with all "
            f"{dimensions:,} dimensions, so a hit may lie far from the star."
        )
    part = f", a sample of all {found.total:,}" if found.total > len(found.documents) else ""
    texts.append(
        f"Each point is one of {len(found.documents):,} documents{part}; texts of like meaning lie near each other. "
        f"The map shows {sum(found.explained):.0%} of what tells the documents apart. Point at one to read it; click a "
        "name in the legend to bring it out."
    )
    return texts


page()
