"""``f2rag evaluate`` and ``f2rag advise``: how good a collection's answers are, and what smaller vectors would cost."""

from __future__ import annotations

import contextlib
import json as json_format
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from f2rag.cli import options
from f2rag.cli.output import print_json, progress_bar, show_note, stderr, stdout, table

if TYPE_CHECKING:
    from f2rag.advice import Advice, Choice
    from f2rag.engine import SearchEngine
    from f2rag.evaluation import Estimate, Evaluation, Run
    from f2rag.settings import Settings
    from f2rag.store import Layout

_PICTURES = (".png", ".svg", ".pdf")
_NARROW = 3
"""Columns of intervals that fit beside each other; of more, the means are shown."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(evaluate)
    app.command()(advise)


def evaluate(
    queries: Annotated[Path, typer.Argument(help="Queries, .jsonl with _id, text, language.", show_default=False)],
    judgements: Annotated[
        Path, typer.Argument(help="Judgements: .tsv as BEIR has them, TREC's columns, .jsonl.", show_default=False)
    ],
    *,
    corpus: Annotated[
        Path | None, typer.Option(help="Index this corpus.jsonl first, each line as one document.")
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="How to search: auto, exact, hnsw, funnel ...; may be repeated.", show_default="auto"),
    ] = None,
    dimensions: Annotated[
        list[int] | None,
        typer.Option("--dimensions", "-d", help="Also search vectors cut to this size, exactly; may be repeated."),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("--k", "-k", min=1, help="Hits for recall; may be repeated.", show_default="10, 100"),
    ] = None,
    exclude_same_id: Annotated[
        bool, typer.Option("--exclude-same-id", help="A document is no hit of the query with its id.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.", show_default=False)] = None,
    model: options.Model = None,
    revision: options.Revision = None,
    task: options.Task = None,
    instruction: options.Instruction = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weight_dtype: options.WeightDtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
    location: options.Location = None,
    collection: options.Collection = None,
    json: options.Json = False,
) -> None:
    """Measure a collection's answers against judgements: nDCG@10, recall and MRR@10, with 95 % intervals.

    Queries and judgements are those of BEIR or TREC, by the ids of the documents.
    """
    settings = options.settings_from(
        model=model,
        revision=revision,
        task=task,
        instruction=instruction,
        device=device,
        dtype=dtype,
        weight_dtype=weight_dtype,
        offline=offline,
        cache_folder=cache_folder,
        location=location,
        collection=collection,
    )
    if corpus is not None and "collection" not in settings.model_fields_set:
        message = (
            "Name a collection for the corpus: --collection NAME. It would be mixed with other documents otherwise."
        )
        raise typer.BadParameter(message)
    _check_target(output, (), "--output")
    found = _measure(
        queries,
        judgements,
        settings=settings,
        corpus=corpus,
        modes=mode,
        sizes=dimensions,
        cutoffs=k,
        exclude_same_id=exclude_same_id,
        seed=seed,
    )
    if output is not None:
        _write(output, json_format.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if json:
        print_json(found.to_dict())
    else:
        _show_evaluation(found)


def _measure(
    queries: Path,
    judgements: Path,
    *,
    settings: Settings,
    corpus: Path | None,
    modes: list[str] | None,
    sizes: list[int] | None,
    cutoffs: list[int] | None,
    exclude_same_id: bool,
    seed: int,
) -> Evaluation:
    from f2rag import evaluation

    _check_extra("ir_measures", "scipy")
    # Mistakes in files are told before a model is loaded.
    asked, judged = evaluation.read_queries(queries), evaluation.read_judgements(judgements)
    with _engine(settings, corpus) as engine, _progress() as report:
        return evaluation.evaluate(
            engine,
            asked,
            judged,
            modes=modes or [settings.mode],  # type: ignore[arg-type]  # unknown names are refused there
            dimensions=sizes or (),
            cutoffs=cutoffs or (10, 100),
            exclude_same_id=exclude_same_id,
            seed=seed,
            on_progress=report,
        )


def advise(
    collection: Annotated[str, typer.Argument(help="Name of the collection, or an alias.", show_default=False)],
    *,
    queries: Annotated[
        Path | None, typer.Option(help="Typical queries, .jsonl; first sentences of documents if not given.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Hits that matter.")] = 10,
    target: Annotated[float, typer.Option(help="Recall that is to be kept.")] = 0.98,
    sample: Annotated[int, typer.Option(min=1, help="Most documents that are compared.")] = 100_000,
    query_count: Annotated[int, typer.Option(min=1, help="Queries to make where none are given.")] = 200,
    plot: Annotated[Path | None, typer.Option(help="Draw the choices into this .png, .svg or .pdf file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the queries that are made, and of the intervals.")] = 0,
    model: options.Model = None,
    revision: options.Revision = None,
    task: options.Task = None,
    instruction: options.Instruction = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weight_dtype: options.WeightDtype = None,
    offline: options.Offline = None,
    cache_folder: options.CacheFolder = None,
    location: options.Location = None,
    json: options.Json = False,
) -> None:
    """Say which vector size and compression a collection needs, measured on its own documents and queries."""
    from f2rag import advice, evaluation

    settings = options.settings_from(
        model=model,
        revision=revision,
        task=task,
        instruction=instruction,
        device=device,
        dtype=dtype,
        weight_dtype=weight_dtype,
        offline=offline,
        cache_folder=cache_folder,
        location=location,
        collection=collection,
    )
    _check_target(plot, _PICTURES, "--plot")
    _check_extra("scipy", *(["matplotlib"] if plot else []))
    asked = None if queries is None else evaluation.read_queries(queries)
    with _engine(settings, None) as engine, _progress() as report:
        found = advice.advise(
            engine,
            asked,
            limit=k,
            target=target,
            sample=sample,
            query_count=query_count,
            seed=seed,
            on_progress=report,
        )
        layout = engine.store.layout
    if plot is not None:
        from f2rag.plots import plot_advice

        plot_advice(found, plot)
    if json:
        print_json(found.to_dict())
    else:
        _show_advice(found, layout)


@contextlib.contextmanager
def _engine(settings: Settings, corpus: Path | None) -> Iterator[SearchEngine]:
    """The collection with the model that filled it; with a corpus, it is made or completed first."""
    from f2rag.cli.indexing import as_filled, layout_for
    from f2rag.engine import SearchEngine
    from f2rag.evaluation import read_corpus
    from f2rag.store import QdrantStore

    where = settings.location_for_store()
    with contextlib.ExitStack() as stack:
        if corpus is None:
            store = stack.enter_context(QdrantStore.open(where, collection=settings.collection, create=False))
            encoder = stack.enter_context(options.make_encoder(as_filled(settings, store.contract)))
            encoder.contract()  # wrong settings are told before a model is loaded
            engine = SearchEngine(encoder, store)
            with stderr().status("Loading the model …"):
                encoder.warm_up()
        else:
            with stderr().status("Reading …"):
                total = sum(1 for _ in read_corpus(corpus))  # a wrong line is found before anything is embedded
            encoder = stack.enter_context(options.make_encoder(settings))
            layout = layout_for(settings, dimensions=encoder.dimensions)
            engine = stack.enter_context(
                SearchEngine.open(encoder, where, collection=settings.collection, layout=layout)
            )
            with _progress() as report:
                engine.index(read_corpus(corpus), on_progress=lambda count: report("indexing", count, total))
        yield engine


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step."""
    with progress_bar(stderr()) as bar:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step.capitalize())
            bar.update(tasks[step], completed=done, total=total)

        yield report


def _check_extra(*packages: str) -> None:
    """Miss a package before a model is loaded."""
    from f2rag.evaluation.measures import optional

    for package in packages:
        optional(package)


def _check_target(file: Path | None, suffixes: Sequence[str], option: str) -> None:
    """Refuse a file that could not be written at the end."""
    if file is None:
        return
    if not file.parent.is_dir():
        message = f"{option} {file}: there is no folder {file.parent}."
        raise typer.BadParameter(message)
    if suffixes and file.suffix.lower() not in suffixes:
        message = f"{option} {file}: give a file that ends in {' or '.join(suffixes)}."
        raise typer.BadParameter(message)


def _write(file: Path, text: str) -> None:
    from f2rag.errors import InputError

    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror}. Give another file."
        raise InputError(message) from error


def _show_evaluation(found: Evaluation) -> None:
    console = stdout()
    first = found.runs[0]
    result = table("mode", "size", *first.overall, "search", right=("size", "search"))
    _align(result, first.overall)
    for run in found.runs:
        took = "–" if run.search_ms is None else f"{run.search_ms:.1f} ms"
        result.add_row(_mode(run), str(run.dimensions), *map(_interval, run.overall.values()), took)
    console.print(result)
    if first.by_language:
        measure = next(iter(first.overall))
        titles = [f"{run.mode} {run.dimensions}" for run in found.runs]
        by_language = table(
            "language", "queries", *titles, right=("queries",), title=f"{measure} by language of the query"
        )
        _align(by_language, titles)
        for tag, found_there in first.by_language.items():
            estimates = [run.by_language[tag][measure] for run in found.runs]
            cells = [_interval(one) if len(estimates) <= _NARROW else f"{one.mean:.3f}" for one in estimates]
            by_language.add_row(escape(tag), f"{found_there[measure].count:,}", *cells)
        console.print(by_language)
    facts = f"{found.queries:,} queries over {found.documents:,} documents · 95 % intervals over queries"
    console.print(f"{escape(found.model)} · {facts}", style="dim")
    if found.unjudged:
        show_note(f"{found.unjudged:,} queries have no relevant document in the judgements and were left out.")


def _mode(run: Run) -> str:
    return escape(run.mode) if run.mode == run.ran or run.mode == "numpy" else f"{escape(run.mode)}: {run.ran}"


def _show_advice(found: Advice, layout: Layout) -> None:
    console = stdout()
    names = (f"recall@{found.limit}", f"overlap@{found.limit}")
    result = table("", "compared", "in memory", "on disk", *names, "search", right=("in memory", "on disk", "search"))
    _align(result, names)
    for kinds in (("prefix",), ("funnel",), ("int8", "binary")):
        for choice in found.choices:
            if choice.kind in kinds:
                result.add_row(*_choice_cells(choice, best=choice == found.recommended))
        result.add_section()
    for mode in found.measured:
        cells = (_interval(mode.recall), _interval(mode.overlap), f"{mode.search_ms:.1f} ms")
        result.add_row("", f"as it is: {mode.mode}", "", "", *cells)
    console.print(result)
    console.print(escape(found.sentence), style="bold", soft_wrap=True)
    asked = "given queries" if found.given else "first sentences of documents, which are then no hits themselves"
    console.print(
        f"{found.queries:,} queries ({asked}) · {found.compared:,} of {found.documents:,} documents · sizes per "
        "million vectors, without graph and payload · –: computed, not searched, so without a time",
        style="dim",
    )
    for note in found.notes:
        show_note(note)
    if found.recommended is not None:
        changes = reindex_options(found.recommended, layout, width=found.dimensions)
        if changes:
            show_note(f"Make such a collection with: f2rag reindex {found.collection} --into NAME {changes}")
        else:
            show_note("The collection is stored like that already.")


def reindex_options(choice: Choice, layout: Layout, *, width: int) -> str:
    """The options by which ``f2rag reindex`` makes a collection of that choice; empty where it is one."""
    levels = (choice.dimensions,) if choice.kind == "funnel" else ()
    compression = choice.kind if choice.kind in ("int8", "binary") else None
    changes = []
    if choice.kind == "prefix" and choice.dimensions != width:
        changes.append(f"--dimensions {choice.dimensions}")
    if levels != layout.levels:
        changes.append("--levels " + (",".join(map(str, levels)) or "''"))
    if compression != layout.quantization:
        changes.append(f"--quantization {compression or 'none'}")
    return " ".join(changes)


def _choice_cells(choice: Choice, *, best: bool) -> Sequence[str]:
    from f2rag.advice import readable_bytes

    disk = readable_bytes(choice.disk) if choice.disk else ""
    cells = (choice.name, readable_bytes(choice.memory), disk, _interval(choice.recall), _interval(choice.overlap), "–")
    return ("[green]▶[/]", *(f"[green]{cell}[/]" for cell in cells)) if best else ("", *cells)


def _align(result: Any, names: Mapping[str, object] | Sequence[str]) -> None:
    """Figures stand to the right, and may wrap where there are many."""
    for column in result.columns:
        if column.header in names:
            column.justify = "right"


def _interval(one: Estimate) -> str:
    if one.low is None or one.high is None or one.low == one.high:
        return f"{one.mean:.3f}"
    return f"{one.mean:.3f} [dim]{_short(one.low)}–{_short(one.high)}[/]"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
