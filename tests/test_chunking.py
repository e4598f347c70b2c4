"""Chunks fit the model, cover the text, and break where a reader would."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from f2rag.chunking import Chunk, Chunker
from f2rag.corpus import UDHR_LANGUAGES, load_udhr
from f2rag.errors import InputError, TokenizerError
from f2rag.types import Document

# Languages that close a sentence with a mark; Thai and Lao use blanks, Tibetan closes clauses.
SENTENCE_ENDS = {
    "en": ".", "zh": "。", "ja": "。", "hi": "।", "ar": ".", "am": "።", "hy": "։", "km": "។", "ur": "۔",
    "ru": ".", "el": ".", "ka": ".", "ko": ".", "bn": "।", "ta": ".", "he": ".",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer_file(qwen3_tokenizer_file):
    return qwen3_tokenizer_file


@pytest.fixture(scope="module")
def chunker(tokenizer_file):
    """Chunkers by size; reading the real vocabulary takes a second each."""

    @functools.cache
    def make(chunk_tokens, overlap):
        return Chunker(tokenizer_file, chunk_tokens=chunk_tokens, overlap=overlap)

    return make


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file):
    return Tokenizer.from_file(str(tokenizer_file))


def uncovered(text, chunks):
    covered = bytearray(len(text))
    for chunk in chunks:
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    return [character for character, there in zip(text, covered, strict=True) if not there]


def check(text, chunks):
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text.strip()
        assert chunk.text == chunk.text.rstrip()
    assert not "".join(uncovered(text, chunks)).strip()
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(starts)


@pytest.mark.parametrize("language", UDHR_LANGUAGES)
def test_chunks_of_every_language_fit_and_cover(language, chunker, tokenizer):
    text = "\n\n".join(document.text for document in load_udhr([language])[:8])
    chunks = chunker(64, 8).split(text)
    check(text, chunks)
    assert max(len(tokenizer.encode(chunk.text).ids) for chunk in chunks) <= 64  # EOS included


@pytest.mark.parametrize("language", SENTENCE_ENDS)
def test_chunks_end_with_sentences_where_these_fit(language, chunker):
    text = " ".join(document.text.replace("\n", " ") for document in load_udhr([language])[:12])
    chunks = chunker(400, 0).split(text)
    assert len(chunks) > 1
    ends = [chunk.text.rstrip("»”\"'")[-1] for chunk in chunks]
    assert ends.count(SENTENCE_ENDS[language]) >= len(chunks) - 1


def test_paragraphs_are_kept_together(chunker):
    text = "One two three. Four five six.\n\nSeven eight nine. Ten eleven twelve.\n\nIt is late. Good night to all."
    chunks = chunker(16, 0).split(text)
    assert chunks == [
        Chunk("One two three. Four five six.", 0, 29),
        Chunk("Seven eight nine. Ten eleven twelve.", 31, 67),
        Chunk("It is late. Good night to all.", 69, 99),
    ]


def test_overlap_repeats_the_end_of_the_chunk_before(chunker):
    text = " ".join(f"word{number}" for number in range(100))
    apart = chunker(64, 0).split(text)
    shared = chunker(64, 8).split(text)
    assert all(before.end <= after.start for before, after in itertools.pairwise(apart))
    assert all(before.end > after.start for before, after in itertools.pairwise(shared))
    check(text, shared)


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000"])
def test_blank_texts_have_no_chunk(text, chunker):
    assert chunker(64, 8).split(text) == []


def test_a_short_text_is_one_chunk_without_the_blanks_around_it(chunker):
    assert chunker(64, 8).split("  Hello.\n") == [Chunk("Hello.", 2, 8)]


@pytest.mark.parametrize(
    "grapheme",
    ["a" + "\u0301" * 100, "👩‍👩‍👧‍👦" * 1 + "\u200d👶" * 30, "क" + "\u094dक" * 60, "🏴" + "\U000e0067" * 40],
    ids=["accents", "family", "conjunct", "tags"],
)
def test_a_visible_character_is_never_broken(grapheme, chunker):
    text = f"{grapheme} and {grapheme}"
    chunks = chunker(16, 0).split(text)
    check(text, chunks)
    assert all(chunk.text.count(grapheme[-1]) % grapheme.count(grapheme[-1]) == 0 for chunk in chunks)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(max_size=300), chunk_tokens=st.sampled_from([16, 64]), overlap=st.sampled_from([0, 8]))
def test_any_text_is_covered(text, chunk_tokens, overlap, chunker):
    check(text, chunker(chunk_tokens, overlap).split(text))


def test_documents_keep_what_they_are_and_learn_where_they_lie(chunker):
    text = "Alpha beta gamma delta epsilon zeta eta theta. " * 4
    long = Document(text=text, id="a.txt", language="en", source="a.txt", metadata={"topic": "letters"})
    short = Document(text=" Short. ", id="b", metadata={"row": 3})
    chunks = list(chunker(16, 0).split_documents([long, short]))
    assert [chunk.id for chunk in chunks] == ["a.txt#1", "a.txt#2", "a.txt#3", "a.txt#4", "b"]
    assert chunks[1].language == "en"
    assert chunks[1].source == "a.txt"
    assert chunks[1].metadata["topic"] == "letters"
    assert chunks[1].metadata["chunk"] == 2
    assert chunks[1].text == text[chunks[1].metadata["start"] : chunks[1].metadata["end"]]
    assert chunks[4] == Document(text="Short.", id="b", metadata={"row": 3})


def test_documents_without_an_id_get_one_from_their_content(chunker):
    first, second = (list(chunker(16, 0).split_documents([Document(text="one two " * 20)])) for _ in range(2))
    assert first == second
    assert len({chunk.id for chunk in first}) == len(first) > 1


def test_documents_are_split_as_they_come(chunker):
    def endless():
        while True:
            yield Document(text="again")

    assert next(iter(chunker(64, 8).split_documents(endless()))).text == "again"


@pytest.mark.parametrize(("tokens", "overlap"), [(15, 0), (0, 0), (32, 31), (32, -1), (32, 40)])
def test_impossible_sizes_are_refused(tokens, overlap, tmp_path):
    with pytest.raises(InputError, match="was given"):
        Chunker(tmp_path, chunk_tokens=tokens, overlap=overlap)


def test_construction_reads_nothing_and_a_wrong_tokenizer_is_named(tmp_path):
    file = tmp_path / "tokenizer.json"
    chunker = Chunker(file)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        chunker.split("text")
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"Give the tokenizer\.json of a checkpoint"):
        chunker.split("text")


def test_a_tokenizer_that_truncates_does_not_hide_lengths(tmp_path, tokenizer_file, chunker):
    cutting = Tokenizer.from_file(str(tokenizer_file))
    cutting.enable_truncation(8)
    cutting.enable_padding(length=8)
    file = tmp_path / "tokenizer.json"
    cutting.save(str(file))
    text = "one two three four five " * 20
    chunks = Chunker(file, chunk_tokens=16, overlap=0).split(text)
    assert chunks == chunker(16, 0).split(text)
    assert len(chunks) > 1
