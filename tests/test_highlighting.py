"""The best sentence of each text: against numpy, and by meaning with the stand-in."""

from __future__ import annotations

import doctest
from collections.abc import Iterator

import numpy as np
import pytest

import f2rag.highlighting
from f2rag import F2LLMEncoder
from f2rag.corpus import load_udhr
from f2rag.errors import DimensionsError, InputError, TextTypeError
from f2rag.highlighting import Highlight, best_sentences
from f2rag.sentences import sentences
from f2rag.testing import FakeEncoder

TEXTS = [
    "Red houses stand there. The blue sea is near. It rains today.",
    "One sentence alone.",
    "",
    "It rains today. The green hills are far away.",
]


@pytest.fixture
def encoder():
    return FakeEncoder(dimensions=32)


def marked(texts, highlights):
    return [None if each is None else text[each.start : each.end] for text, each in zip(texts, highlights, strict=True)]


def test_it_equals_numpy(encoder):
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(30)]
    texts = [
        " ".join(" ".join(rng.choice(words, 6)).capitalize() + "." for _ in range(int(count)))
        for count in rng.integers(2, 8, size=20)
    ]
    query = " ".join(words[:5])
    for text, found in zip(texts, best_sentences(encoder, query, texts), strict=True):
        spans = sentences(text)
        cosines = encoder.embed_documents([text[a:b] for a, b in spans]) @ encoder.embed_query(query)
        best = int(cosines.argmax())
        assert (found.start, found.end) == spans[best]
        assert found.score == pytest.approx(float(cosines[best]), abs=1e-6)


def test_where_there_is_nothing_to_choose(encoder):
    found = best_sentences(encoder, "the blue sea", TEXTS)
    assert marked(TEXTS, found) == ["The blue sea is near.", None, None, "The green hills are far away."]


def test_one_batch_and_equal_sentences_once(encoder):
    found = best_sentences(encoder, "it rains today", [*TEXTS, TEXTS[0]])
    assert encoder.document_calls == [4]  # of seven sentences
    assert found[0] == found[4]
    assert [each.score for each in found if each] == pytest.approx([found[0].score] * 3)


def test_nothing_is_embedded_where_every_text_is_one_sentence(encoder):
    encoder.close()
    assert best_sentences(encoder, "q", ["one", ""]) == [None, None]
    assert best_sentences(encoder, "q", []) == []


def test_the_first_of_equals(encoder):
    text = "It rains today.\n\nIt rains today.\n\nIt rains today."
    assert best_sentences(encoder, "q", [text])[0].start == 0


def test_dimensions_and_instruction_are_the_searchs(encoder):
    options = [{"dimensions": 8}, {"instruction": ""}, {"instruction": "Find another thing"}]
    for given in options:
        (found,) = best_sentences(encoder, "the blue sea", TEXTS[:1], **given)
        sentence = encoder.embed_documents(["The blue sea is near."], dimensions=given.get("dimensions"))[0]
        expected = float(encoder.embed_query("the blue sea", **given) @ sentence)
        assert found == Highlight(start=24, end=45, score=pytest.approx(expected, abs=1e-6))
    with pytest.raises(DimensionsError):
        best_sentences(encoder, "q", TEXTS, dimensions=65)


def test_a_listing_of_a_thousand_words_is_not_embedded_whole(encoder, monkeypatch):
    seen = []
    embed = encoder.embed_documents
    monkeypatch.setattr(
        encoder, "embed_documents", lambda texts, **options: seen.extend(texts) or embed(texts, **options)
    )
    listing = "entry " * 10_000
    (found,) = best_sentences(encoder, "the blue sea", [f"The blue sea is near.\n\n{listing}"])
    assert (found.start, found.end) == (0, 21)
    assert max(map(len, seen)) <= 500


@pytest.mark.parametrize("texts", ["one string", ["a", 1], None])
def test_texts_that_are_none(encoder, texts):
    with pytest.raises(TextTypeError):
        best_sentences(encoder, "q", texts)


def test_half_a_surrogate_pair(encoder):
    with pytest.raises(InputError, match="surrogate"):
        best_sentences(encoder, "q", ["One sentence here. \ud800 is another one."])


def test_the_documented_example():
    assert doctest.testmod(f2rag.highlighting) == (0, 4)


@pytest.fixture(scope="module")
def stand_in() -> Iterator[F2LLMEncoder]:
    with F2LLMEncoder("stand-in", device="cpu", dtype="float32") as opened:
        yield opened


@pytest.mark.parametrize(
    ("question", "article", "beginnings"),
    [
        (
            "Dürfen Eltern die Art der Bildung ihrer Kinder wählen?",
            26,
            {
                "en": "Parents have",
                "fr": "Les parents",
                "ru": "Родители",
                "zh": "父母",
                "ja": "親は",
                "it": "I genitori",
            },
        ),
        (
            "La famille est-elle protégée par l'État ?",
            16,
            {
                "en": "The family",
                "de": "Die Familie",
                "ru": "Семья",
                "zh": "家庭",
                "ja": "家庭",
                "ar": "الأسرة",
                "he": "המשפחה",
            },
        ),
        (
            "Gibt es geheime Wahlen?",
            21,
            {
                "en": "The will of the people",
                "fr": "La volonté du peuple",
                "es": "La voluntad del pueblo",
                "zh": "人民的意志",
            },
        ),
        (
            "Un salaire égal pour un travail égal ?",
            23,
            {
                "en": "Everyone, without any",
                "de": "Jeder, ohne",
                "es": "Toda persona tiene derecho, sin",
                "it": "Ogni individuo, senza",
            },
        ),
        (
            "Can my nationality be taken away?",
            15,
            {
                "fr": "Nul ne peut être",
                "es": "A nadie",
                "ru": "Никто не",
                "hi": "किसी को भी",
                "zh": "任何人的国籍",
                "el": "Κανείς δεν",
            },
        ),
    ],
    ids=["parents", "family", "elections", "pay", "nationality"],
)
def test_a_question_marks_its_sentence_in_other_languages(stand_in, question, article, beginnings):
    documents = [each for each in load_udhr(list(beginnings)) if each.metadata["article"] == article]
    texts = [each.text for each in documents]
    found = marked(texts, best_sentences(stand_in, question, texts))
    assert all(len(sentences(text)) > 1 for text in texts)
    for document, sentence in zip(documents, found, strict=True):
        assert sentence.startswith(beginnings[document.language])
