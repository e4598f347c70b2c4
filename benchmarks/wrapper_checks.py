"""What ``wrapper_correctness.py`` asks of every package. The first line of each check is its row in the table."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib.util
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.wrapper_contestants import Embeddings, NotApplicableError, Store

QUERY = "Where can I sleep tonight?"
DOCUMENT = "def hotel():\n    return 'by the lake'"
TEXTS = ["Das Hotel ist am See.", "Il fait chaud.", "The door is locked."]
HALF = 16
"""One of the trained sizes of the checkpoint, which has 40 dimensions."""

TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """One cell: whether the check passed (``None``: does not apply) and what was measured."""

    passed: bool | None
    detail: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """The checkpoint, another of the same shape, and sentence-transformers on the first."""

    model: str
    other: str

    @functools.cached_property
    def encoder(self) -> Any:
        """Sentence-transformers."""
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(self.model, device="cpu")


Check = Callable[[Any, Reference], Verdict]


def judge(check: Check, contestant: Any, reference: Reference) -> Verdict:
    """Run one check; an exception is a failure, and said."""
    try:
        return check(contestant, reference)
    except NotApplicableError as error:
        return Verdict(None, str(error))
    except Exception as error:
        return Verdict(passed=False, detail=f"raises {type(error).__name__}")


# -- embeddings ---------------------------------------------------------------------------------------------------


def default_query(it: Embeddings, reference: Reference) -> Verdict:
    """A query, no argument given, has the reference's query vector."""
    return _like(it.query(it.make(reference.model), QUERY), reference.encoder.encode_query(QUERY))


def default_document(it: Embeddings, reference: Reference) -> Verdict:
    """A document has the reference's document vector, its newlines kept."""
    return _like(it.documents(it.make(reference.model), [DOCUMENT])[0], reference.encoder.encode_document(DOCUMENT))


def truncated_length(it: Embeddings, reference: Reference) -> Verdict:
    """Truncated vectors have unit length."""
    length = float(np.linalg.norm(it.documents(it.make(reference.model, dimensions=HALF), TEXTS)[0]))
    return Verdict(abs(length - 1) < TOLERANCE, f"length {length:.4f}")


def truncated_query(it: Embeddings, reference: Reference) -> Verdict:
    """A truncated query points where the reference's does."""
    made = it.make(reference.model, dimensions=HALF)
    return _like(it.query(made, QUERY), reference.encoder.encode_query(QUERY)[:HALF])


def impossible_dimensions(it: Embeddings, reference: Reference) -> Verdict:
    """More dimensions than the model has are refused."""
    return _refused(lambda: f"gave {len(it.query(it.make(reference.model, dimensions=999), QUERY))}")


def roles_in_the_cache(it: Embeddings, reference: Reference) -> Verdict:
    """With the framework's cache, a query gets its own vector after a document of the same words."""
    plain, cached = it.make(reference.model), it.cached(reference.model)
    for _ in range(2):
        it.documents(cached, [QUERY])
        cosine = _cosine(it.query(cached, QUERY), reference.encoder.encode_query(QUERY))
    if _cosine(it.query(plain, QUERY), it.documents(plain, [QUERY])[0]) > 1 - TOLERANCE:
        return Verdict(passed=False, detail=f"cosine {cosine:.3f}; equal without a cache already")
    return Verdict(cosine > 1 - TOLERANCE, f"cosine {cosine:.3f}")


def dictionary_form(it: Embeddings, reference: Reference) -> Verdict:
    """`from_dict(to_dict())` gives the same vectors."""
    made = it.make(reference.model)
    return _like(it.query(it.round_trip(made), QUERY), it.query(made, QUERY))


def keys_of_dimensions(it: Embeddings, reference: Reference) -> Verdict:
    """The ingestion cache tells two sizes apart."""
    keys = {it.ingestion_key(it.make(reference.model, dimensions=size)) for size in (HALF, 2 * HALF)}
    return Verdict(len(keys) == 2, f"{len(keys)} keys for 2 sizes")


def pickle_size(it: Embeddings, reference: Reference) -> Verdict:
    """A pickle holds the settings and not the weights."""
    made = it.make(reference.model)
    it.query(made, QUERY)
    weights = (Path(reference.model) / "model.safetensors").stat().st_size
    size = len(pickle.dumps(made))
    return Verdict(size < weights / 10, f"{size / weights:.1%} of the weights' size")


def generator(it: Embeddings, reference: Reference) -> Verdict:
    """A generator of documents is taken."""
    made = it.make(reference.model)
    return _like(np.ravel(it.documents(made, (text for text in TEXTS))), np.ravel(it.documents(made, TEXTS)))


def one_string(it: Embeddings, reference: Reference) -> Verdict:
    """One string in place of a list of documents is refused."""
    return _refused(lambda: f"gave {len(it.documents(it.make(reference.model), 'hotel'))} vectors for 'hotel'")


EMBEDDING_CHECKS: tuple[Check, ...] = (
    default_query,
    default_document,
    truncated_length,
    truncated_query,
    impossible_dimensions,
    roles_in_the_cache,
    dictionary_form,
    keys_of_dimensions,
    pickle_size,
    generator,
    one_string,
)


# -- vector stores ------------------------------------------------------------------------------------------------


def any_id(it: Store, reference: Reference) -> Verdict:
    """Any string is an id, and comes back."""
    client, embedding, store = _opened(it, reference)
    it.add(store, embedding, TEXTS[:1], ids=["any id/1"])
    found, _, _ = it.best(store, embedding, QUERY)
    return Verdict(found == "any id/1", f"{_count(client)} stored, id {found!r}")


def added_twice(it: Store, reference: Reference) -> Verdict:
    """Adding the same texts twice, with no ids given, stores them once."""
    client, embedding, store = _opened(it, reference)
    for _ in range(2):
        it.add(store, embedding, TEXTS)
    return Verdict(_count(client) == len(TEXTS), f"{_count(client)} points of {len(TEXTS)} texts")


def generator_of_texts(it: Store, reference: Reference) -> Verdict:
    """A generator of texts is stored."""
    client, embedding, store = _opened(it, reference)
    it.add_stream(store, embedding, TEXTS)
    stored = _count(client) if client.collection_exists("documents") else 0
    return Verdict(stored == len(TEXTS), f"{stored} of {len(TEXTS)}")


def metadata_untouched(it: Store, reference: Reference) -> Verdict:
    """Metadata comes back as it was given."""
    given = {"language": "de", "page": 3, "nested": {"a": [1, 2.5]}, "none": None}
    _, embedding, store = _opened(it, reference)
    it.add(store, embedding, TEXTS[:1], ids=["0d9a3a52-6f2d-4a0a-9d9e-2f6b0f5c7a11"], metadatas=[given])
    _, _, found = it.best(store, embedding, QUERY)
    added = sorted(set(found) - set(given))
    return Verdict(found == given, "equal" if found == given else f"added {', '.join(added)}" if added else "changed")


def other_model(it: Store, reference: Reference) -> Verdict:
    """Another model of the same width is refused on a filled collection."""
    client, embedding, store = _opened(it, reference)
    it.add(store, embedding, TEXTS)

    def search() -> str:
        other = it.embeddings.make(reference.other)
        it.best(it.open(client, other), other, QUERY)
        return "searched without a word"

    return _refused(search)


def asynchronous(it: Store, reference: Reference) -> Verdict:
    """An asynchronous search works on the same client."""
    _, embedding, store = _opened(it, reference)
    it.add(store, embedding, TEXTS)
    found = asyncio.run(it.abest(store, embedding, QUERY))
    return Verdict(found in TEXTS, "works")


def standard_suite(it: Store, reference: Reference) -> Verdict:  # noqa: ARG001 - the suite has its own vectors
    """langchain-tests' own suite for vector stores passes."""
    if it.suite is None:
        raise NotApplicableError("LlamaIndex has none")
    if importlib.util.find_spec("langchain_tests") is None:
        raise NotApplicableError("langchain-tests is not installed")
    code = (
        "import pytest\n"
        "from langchain_tests.integration_tests import VectorStoreIntegrationTests\n\n\n"
        "class TestStore(VectorStoreIntegrationTests):\n"
        f"    @pytest.fixture()\n    def vectorstore(self):{it.suite}"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test_suite.py"
        file.write_text(code, encoding="utf-8")
        settings = Path(folder) / "pytest.ini"
        settings.write_text("[pytest]\nasyncio_mode = auto\n", encoding="utf-8")
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(settings), str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?)", run.stdout)}
    if not counts:
        raise NotApplicableError("the suite did not run")
    return Verdict(set(counts) == {"passed"}, f"{counts.get('passed', 0)} of {sum(counts.values())}")


STORE_CHECKS: tuple[Check, ...] = (
    any_id,
    added_twice,
    generator_of_texts,
    metadata_untouched,
    other_model,
    asynchronous,
    standard_suite,
)


# -- measuring ----------------------------------------------------------------------------------------------------


def _opened(it: Store, reference: Reference) -> tuple[Any, Any, Any]:
    """A new client in memory, the embedding and the store on them."""
    from qdrant_client import QdrantClient

    client, embedding = QdrantClient(":memory:"), it.embeddings.make(reference.model)
    return client, embedding, it.open(client, embedding)


def _count(client: Any) -> int:
    return int(client.count("documents").count)


def _cosine(left: Any, right: Any) -> float:
    return float(np.dot(left, right) / np.linalg.norm(left) / np.linalg.norm(right))


def _like(found: Any, wanted: Any) -> Verdict:
    if len(found) != len(wanted):
        return Verdict(passed=False, detail=f"{len(found)} values for {len(wanted)}")
    cosine = _cosine(found, wanted)
    return Verdict(cosine > 1 - TOLERANCE, f"cosine {cosine:.3f}")


def _refused(work: Callable[[], str]) -> Verdict:
    """Whether ``work`` raises; else what it says that it did."""
    try:
        return Verdict(passed=False, detail=work())
    except Exception as error:
        return Verdict(passed=True, detail=type(error).__name__)
