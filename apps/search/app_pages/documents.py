"""The documents: add files and pasted text, see what the collections hold, delete what is not wanted any more.

Reading, splitting, embedding and storing are the library's (``f2rag.ingestion``) and go on in a job of their own,
whatever becomes of the browser. The bundled corpus can only be read.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import controls
import jobs
import resources
import streamlit as st
import ui

from f2rag import F2RagError, SearchEngine
from f2rag.chunking import MINIMUM_CHUNK_TOKENS, Chunker
from f2rag.corpus import UDHR_LANGUAGES
from f2rag.errors import CollectionNotFoundError
from f2rag.ingestion import IngestReport, ingest_text, remove_source, survey_uploads
from f2rag.readers import SUFFIXES, ReadOptions, Upload
from f2rag.store import CollectionInfo
from f2rag.types import IndexReport

# Sources, or skipped files, that are listed at once.
_SHOWN = 50

# So many sources need no box to find one.
_FEW = 10

_READING = "Reading what was given"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be indexed, and how.

    Attributes:
        target: Name of the collection.
        uploads: Files.
        reading: How those are read.
        text: That was pasted; blank for none.
        title: Its source.
        text_language: Its language.
        chunk_tokens: Most tokens of a chunk.
        overlap: Most tokens that a chunk repeats of the one before.
    """

    target: str
    uploads: tuple[Upload, ...]
    reading: ReadOptions
    text: str
    title: str
    text_language: str | None
    chunk_tokens: int
    overlap: int

    @property
    def lacks(self) -> str | None:
        """What has to be given yet, for people."""
        if not self.uploads and not self.text.strip():
            return "Choose files or paste a text first."
        if self.text.strip() and not self.title.strip():
            return "Give the text a title: it is shown with every hit, and what the text is replaced or deleted by."
        if not self.target.strip():
            return "Choose a collection, or type the name of a new one."
        return None

    @property
    def key(self) -> str:
        """The same for the same work, so that a second click watches the first one's job."""
        digest = hashlib.blake2b(repr(dataclasses.replace(self, uploads=())).encode(errors="surrogatepass"))
        for upload in self.uploads:
            digest.update(repr((upload.name, len(upload.content))).encode(errors="surrogatepass"))
            digest.update(upload.content)
        return f"ingest:{digest.hexdigest()}"


def page() -> None:
    """The page, from top to bottom."""
    st.title("Documents")
    controls.banner(controls.ready_model())
    space = resources.workspace()
    if target := st.session_state.pop("go_to", None):
        st.session_state.collection = target  # before the picker is drawn, which then shows it
    name = controls.chosen_collection(space)
    add(space, name)
    work = st.container()
    sources(space, name)
    all_collections(space)
    with work:  # last, because it waits: everything else is there meanwhile
        watch(space)


def add(space: resources.Workspace, name: str) -> None:
    """What is to be indexed, and where."""
    settings = space.model.settings
    files, text = st.tabs(["Upload files", "Paste text"])
    with files:
        st.file_uploader("Files", type=sorted(SUFFIXES), accept_multiple_files=True, key="upload")
        language_choice("Language of the files", key="upload_language")
    with text:
        st.text_input("Title", key="paste_title", max_chars=200)
        st.text_area("Text", key="paste", height=200)
        language_choice("Language of the text", key="paste_language")
    target_choice(space, name)
    with st.expander("How files are read and split", icon=":material/tune:"):
        st.number_input(
            "Tokens of a chunk",
            min_value=MINIMUM_CHUNK_TOKENS,
            value=settings.chunk_tokens,
            step=64,
            key="chunk_tokens",
            help="Most tokens of a piece that is embedded and found as one.",
        )
        st.number_input(
            "Overlap",
            min_value=0,
            value=settings.overlap,
            step=16,
            key="overlap",
            help="Most tokens that a chunk repeats of the one before, so that a thought on the border is whole in one.",
        )
        st.text_input(
            "Column of the text",
            value=ReadOptions().text_column,
            key="text_column",
            help="In .csv, .tsv and .jsonl files, whose rows become a document each.",
        )
    if st.button("Index", type="primary", key="index", icon=":material/upload:"):
        order = order_of_the_form(settings.language)
        if problem := order.lacks or not_writable(space, order.target):
            st.warning(ui.markdown(problem), icon=":material/edit_note:")
        else:
            start(space, order)


def language_choice(label: str, *, key: str) -> None:
    """A language, which need not be given."""
    st.selectbox(
        label,
        sorted(UDHR_LANGUAGES, key=ui.language_sort_key),
        index=None,
        key=key,
        format_func=ui.language_name,
        accept_new_options=True,
        placeholder="Not given",
        help="Hits can be filtered by it. Of a language that is not listed, type the BCP 47 tag, for example pt-BR.",
    )


def target_choice(space: resources.Workspace, name: str) -> None:
    """The collection that takes the documents: one that there is, or a new one."""
    there = [entry.name for entry in space.collections() if entry.problem is None and entry.name != space.bundled]
    if "target" not in st.session_state and name != space.bundled:
        st.session_state.target = name
    st.selectbox(
        "Collection",
        sorted({*there, name} - {space.bundled}),
        index=None,
        key="target",
        accept_new_options=True,
        placeholder="Choose one, or type a new name",
        help="A new one is made for this model, with every trained vector size and with words for hybrid search.",
    )


def order_of_the_form(language: str | None) -> Order:
    """What the form asks for.

    Args:
        language: Of files where the form names none.
    """
    given = st.session_state
    return Order(
        target=(given.target or "").strip(),
        uploads=tuple(Upload(file.name, file.getvalue()) for file in given.upload or ()),
        reading=ReadOptions(
            text_column=given.text_column or ReadOptions().text_column, language=given.upload_language or language
        ),
        text=given.paste or "",
        title=(given.paste_title or "").strip(),
        text_language=given.paste_language or language,
        chunk_tokens=given.chunk_tokens,
        overlap=given.overlap,
    )


def not_writable(space: resources.Workspace, target: str) -> str | None:
    """Why nothing can be added to a collection, for people; ``None`` where the library decides."""
    if target in (space.bundled, resources.BUNDLED_TITLE):
        return "The bundled corpus can only be read. Choose another collection, or type the name of a new one."
    return next((entry.problem for entry in space.collections() if entry.name == target and entry.info.contract), None)


def start(space: resources.Workspace, order: Order) -> None:
    """Start the job, or watch the one that does the same."""
    board = jobs.board()

    def work(report: jobs.Report) -> list[IngestReport]:
        try:
            return index(space, order, report)
        finally:
            space.refresh()
            board.forget(f"map:{order.target}")
            board.forget(order.key)  # it holds the files

    st.session_state.pop("outcome", None)
    st.session_state.ingestion = (order.target, board.start(order.key, work))


def index(space: resources.Workspace, order: Order, report: jobs.Report) -> list[IngestReport]:
    """Index what was given; runs in a job and draws nothing.

    Raises:
        F2RagError: The text, the collection or the model cannot be used. Files that cannot be read are no error: they
            are named in the report.
    """
    report(0, 0, _READING)
    tokenizer = space.model.encoder.tokenizer_file()
    chunker = Chunker(tokenizer, chunk_tokens=order.chunk_tokens, overlap=order.overlap)

    def told(done: int, total: int) -> None:
        report(done, total, f"Indexing: {done:,} of {total:,} chunks")

    reports = []
    if order.uploads:
        survey = survey_uploads(order.uploads, chunker=chunker, reading=order.reading)
        if survey.chunks or any(entry.name == order.target and entry.info.points for entry in space.collections()):
            told(0, survey.chunks)
            reports.append(survey.store(space.engine(order.target, create=True), on_progress=told))
        else:  # no collection is made for nothing
            nothing = IndexReport(added=0, updated=0, unchanged=0, truncated=0, seconds=0)
            reports.append(IngestReport(**dataclasses.asdict(nothing), removed=0, skipped=survey.skipped, files=0))
    if order.text.strip():
        engine = space.engine(order.target, create=True)
        language = order.text_language
        reports.append(
            ingest_text(engine, order.text, title=order.title, chunker=chunker, language=language, on_progress=told)
        )
    return reports


def watch(space: resources.Workspace) -> None:
    """Show how far the indexing is, or what became of it."""
    if "ingestion" in st.session_state:
        target, job = st.session_state.ingestion
        place = st.empty()
        try:
            st.session_state.outcome = (target, job.wait(place.progress))
            st.session_state.go_to = target if target in {entry.name for entry in space.collections()} else None
        except F2RagError as error:
            st.session_state.outcome = (target, error)
        finally:
            place.empty()
            if not job.running:  # also after an error that is none of the library's
                del st.session_state.ingestion
        st.rerun()  # the lists below have changed
    if "outcome" in st.session_state:
        target, outcome = st.session_state.outcome
        if isinstance(outcome, F2RagError):
            st.error(ui.markdown(str(outcome)), icon=":material/error:")
        else:
            tell(target, outcome)


def tell(target: str, reports: Sequence[IngestReport]) -> None:
    """What was indexed, and what was not."""
    words = ("added", "updated", "unchanged", "removed")
    counts = {word: sum(getattr(report, word) for report in reports) for word in words}
    numbers = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    skipped = [one for report in reports for one in report.skipped]
    if any(counts.values()):
        seconds = sum(report.seconds for report in reports)
        text = f"Indexed into {ui.isolate(target)} in {seconds:.1f} s. Chunks: {numbers}."
        st.success(ui.markdown(text), icon=":material/check:")
        st.page_link("app_pages/search.py", label=f"Search {ui.markdown(target)}", icon=":material/search:")
    else:
        st.warning("Nothing was indexed.", icon=":material/block:")
    if truncated := sum(report.truncated for report in reports):
        st.warning(f"Longer than the model reads: {counted(truncated, 'chunk')}. Of such only the beginning is found.")
    if skipped:
        lines = [f"- {ui.markdown(f'{ui.isolate(one.where)}: {one.reason}')}" for one in skipped[:_SHOWN]]
        more = [f"- and {len(skipped) - _SHOWN:,} more"] if len(skipped) > _SHOWN else []
        st.warning("\n".join([f"{len(skipped):,} skipped:", "", *lines, *more]), icon=":material/block:")


def sources(space: resources.Workspace, name: str) -> None:
    """The sources of the collection that the sidebar shows, each with a way to delete it."""
    st.subheader("Sources", help="Of the collection that is chosen at the side: its files and titles.")
    try:
        engine = controls.ready(space, name)
        delete_confirmed(space, name, engine)
        counts = engine.store.facet("source")
        nameless = engine.store.count() - sum(counts.values())
    except CollectionNotFoundError as error:
        st.info(ui.markdown(str(error)), icon=":material/inbox:")
        return
    except F2RagError as error:
        controls.failed(error)
        return
    if not counts and not nameless:
        st.info("This collection holds no documents yet.", icon=":material/inbox:")
        return
    st.caption(f"{counted(len(counts), 'source')} in {ui.markdown(ui.isolate(title_of(space, name)))}")
    read_only = name == space.bundled
    for number, (source, chunks) in enumerate(found(counts).items()):
        source_row(name, source, chunks, number=number, read_only=read_only)
    if nameless:
        st.caption(f"No source: {counted(nameless, 'chunk')}, to be deleted with the collection alone.")
    if read_only:
        st.caption("This is the corpus that comes with f2rag: it can only be read.")


def found(counts: Mapping[str, int]) -> dict[str, int]:
    """The sources to list: all where there are few, else those whose name holds what is typed."""
    wanted = ""
    if len(counts) > _FEW:
        wanted = st.text_input("Find a source", key="find_source", icon=":material/search:").strip().casefold()
    matching = {source: chunks for source, chunks in counts.items() if wanted in source.casefold()}
    if len(matching) > _SHOWN:
        st.caption(f"The {_SHOWN} of {len(matching):,} with the most chunks.")
    if not matching:
        st.info("No source has that in its name.", icon=":material/search_off:")
    return dict(list(matching.items())[:_SHOWN])


def source_row(name: str, source: str, chunks: int, *, number: int, read_only: bool) -> None:
    """A source with its number of chunks; deleting it takes a second click."""
    with st.container(horizontal=True, vertical_alignment="center", key=f"source-{number}"):
        st.markdown(ui.markdown(ui.isolate(source)), width="stretch")
        st.caption(counted(chunks, "chunk"), width="content")
        if not read_only:
            # What a button deletes is bound to it: the list may have changed by the time it is clicked.
            st.button("Delete", key=f"delete-{number}", on_click=remember, args=("to_delete", (name, source)))
    if st.session_state.get("to_delete") == (name, source):
        with st.container(horizontal=True, vertical_alignment="center", border=True):
            st.markdown(ui.markdown(f"Delete all of {ui.isolate(source)} for good?"), width="stretch")
            st.button(
                "Delete for good",
                type="primary",
                key=f"confirm-{number}",
                on_click=remember,
                args=("deleting", (name, source)),
            )
            st.button("Keep", key=f"keep-{number}", on_click=remember, args=("to_delete", None))


def remember(key: str, value: object) -> None:
    """Keep something for the run that follows a click."""
    st.session_state[key] = value


def delete_confirmed(space: resources.Workspace, name: str, engine: SearchEngine) -> None:
    """Delete the source whose deletion was confirmed, if it is of this collection.

    Raises:
        StoreError: The collection failed.
    """
    collection, source = st.session_state.pop("deleting", None) or ("", "")
    if collection != name:
        return
    st.session_state.pop("to_delete", None)
    st.session_state.pop("outcome", None)
    chunks = remove_source(engine.store, source)
    space.refresh()
    st.success(ui.markdown(f"Deleted {ui.isolate(source)}: {counted(chunks, 'chunk')}."), icon=":material/check:")


def all_collections(space: resources.Workspace) -> None:
    """Every collection of the home with what its vectors are."""
    st.subheader("Collections")
    if told := st.session_state.pop("dropped", None):
        st.success(ui.markdown(told), icon=":material/check:")
    st.caption(f"Kept in {ui.markdown(space.location)}.")
    for number, entry in enumerate(space.collections()):
        with st.container(border=True, key=f"collection-{number}"):
            st.markdown(f"**{ui.markdown(entry.title)}**")
            st.html(ui.facts(contract_facts(entry.info)))
            if entry.problem:
                st.warning(ui.markdown(entry.problem), icon=":material/block:")
            if entry.info.contract is not None and entry.name != space.bundled:
                drop_control(space, entry.name, number=number)
    st.caption(
        "What a collection stores is decided when it is made. `f2rag reindex` copies one into a new one with other "
        "levels, compression or words, without embedding a text again."
    )


def contract_facts(info: CollectionInfo) -> list[str]:
    """What a collection holds, in short."""
    facts = ["cannot be opened now" if info.points is None else counted(info.points, "document")]
    if info.contract is None or info.layout is None:
        return [*facts, "no contract: f2rag did not fill it"]
    contract, layout = info.contract, info.layout
    levels = ", ".join(map(str, layout.levels))
    return [
        *facts,
        contract.model,
        f"revision {contract.revision.removeprefix('sha256:')[:12]}",
        f"{contract.dimensions:,} of {contract.native_dimensions:,} dimensions",
        f"levels {levels}" if levels else "no levels",
        f"compressed: {layout.quantization}" if layout.quantization else "not compressed",
        "with words" if layout.lexical else "without words",
    ]


def drop_control(space: resources.Workspace, name: str, *, number: int) -> None:
    """Delete a whole collection, once its name has been typed."""
    with st.popover("Delete", icon=":material/delete:"), st.form(f"drop-form-{number}", border=False):
        typed = st.text_input(
            f"Type {ui.markdown(name)} to delete it with all its documents", key=f"drop-name-{number}"
        )
        if not st.form_submit_button("Delete for good", key=f"drop-{number}"):
            return
        if typed.strip() != name:
            st.error("That is not its name. Nothing was deleted.", icon=":material/error:")
            return
        try:
            space.drop(name)
        except F2RagError as error:
            st.error(ui.markdown(str(error)), icon=":material/error:")
            return
        jobs.forget(f"map:{name}")
        for key in ("outcome", "to_delete", "target"):
            st.session_state.pop(key, None)
        st.session_state.dropped = f"Deleted the collection {name}."
        st.rerun()


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def title_of(space: resources.Workspace, name: str) -> str:
    """What people read for a collection."""
    return next((entry.title for entry in space.collections() if entry.name == name), name)


page()
