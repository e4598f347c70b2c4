"""The shipped texts are complete, aligned and described rightly."""

from __future__ import annotations

import collections
import unicodedata

import pytest

from f2rag import corpus
from f2rag.errors import DocumentError

# Paragraphs in these languages are not divided as the English ones are; their articles are complete.
OTHERWISE_DIVIDED = {"aii", "dv", "ky", "ml", "mn", "ne", "pa", "so", "ti", "yo", "zh-Hant"}

# The first word of a character's Unicode name, where it is not the script's English name in capitals.
UNICODE_NAMES = {"Japanese": {"HIRAGANA", "KATAKANA", "CJK"}, "Han": {"CJK"}}


@pytest.fixture(scope="module")
def articles():
    return corpus.load_udhr()


def test_every_language_has_the_thirty_articles_in_order(articles):
    numbers = collections.defaultdict(list)
    for document in articles:
        numbers[document.language].append(document.metadata["article"])
    assert list(numbers) == sorted(corpus.UDHR_LANGUAGES)
    assert len(numbers) == 117
    assert all(found == list(range(1, 31)) for found in numbers.values())


def test_articles_have_ids_sources_and_metadata():
    (first, *_) = corpus.load_udhr(["en"])
    assert first.id == "udhr:en:1"
    assert first.source == "Universal Declaration of Human Rights"
    assert first.text.startswith("All human beings are born free and equal in dignity and rights.")
    assert first.metadata == {
        "article": 1,
        "title": "Article 1",
        "language_name": "English",
        "autonym": "English",
        "script": "Latin",
        "direction": "ltr",
    }


def test_articles_are_the_paragraphs_on_lines_of_their_own():
    paragraphs = collections.defaultdict(list)
    for document in corpus.load_udhr_paragraphs(["fr", "ar"]):
        paragraphs[document.language, document.metadata["article"]].append(document)
    for article in corpus.load_udhr(["fr", "ar"]):
        parts = paragraphs[article.language, article.metadata["article"]]
        assert article.text == "\n".join(part.text for part in parts)
        assert [part.id for part in parts] == [f"{article.id}:{n}" for n in range(1, len(parts) + 1)]


def test_paragraphs_are_divided_as_in_english():
    counts = collections.defaultdict(collections.Counter)
    for document in corpus.load_udhr_paragraphs():
        counts[document.language][document.metadata["article"]] += 1
    assert counts["en"].total() == 50
    assert {language for language in counts if counts[language] != counts["en"]} == OTHERWISE_DIVIDED


def test_ids_are_unique_and_no_text_repeats_within_a_language(articles):
    paragraphs = corpus.load_udhr_paragraphs()
    assert len({document.id for document in paragraphs}) == len(paragraphs)
    assert len({(document.language, document.text) for document in articles}) == len(articles)


def test_texts_are_clean_unicode(articles):
    for document in articles:
        assert unicodedata.is_normalized("NFC", document.text), document.id
        assert document.text == document.text.strip()
        assert not any(unicodedata.category(character) in {"Co", "Cn", "Cs"} for character in document.text)


@pytest.mark.parametrize("language", corpus.UDHR_LANGUAGES.values(), ids=lambda language: language.tag)
def test_text_is_written_in_the_script_that_the_table_names(language):
    letters = collections.Counter()
    for document in corpus.load_udhr([language.tag]):
        letters.update(unicodedata.name(c, "?").split()[0] for c in document.text if c.isalpha())
    expected = UNICODE_NAMES.get(language.script, {language.script.upper()})
    assert sum(letters[name] for name in expected) > 0.95 * letters.total()


def test_scripts_and_directions():
    rtl = {tag for tag, language in corpus.UDHR_LANGUAGES.items() if language.direction == "rtl"}
    assert rtl == {"aii", "ar", "dv", "fa", "he", "ps", "ug", "ur", "yi"}
    assert len({language.script for language in corpus.UDHR_LANGUAGES.values()}) >= 25
    with pytest.raises(TypeError):
        corpus.UDHR_LANGUAGES["xx"] = corpus.UDHR_LANGUAGES["en"]


def test_languages_are_chosen_by_tag_in_the_order_given():
    assert [document.language for document in corpus.load_udhr(["zh", "en"])[::30]] == ["zh", "en"]
    assert len(corpus.load_udhr("sw")) == 30  # a lone string means that language
    assert corpus.load_udhr([]) == []


def test_an_unknown_language_is_named_with_those_that_there_are():
    with pytest.raises(DocumentError, match=r"'tlh', 'EN'.*UDHR_LANGUAGES.*zu"):
        corpus.load_udhr(["en", "tlh", "EN"])


def test_everyday_sentences_are_parallel_and_distinct():
    sentences = corpus.load_everyday()
    assert set(sentences) == {"en", "de", "fr", "es", "it", "pt", "ru", "zh", "ja", "ar", "ko", "hi", "tr"}
    for language, texts in sentences.items():
        assert len(texts) == len(set(texts)) == 24, language
        assert all(unicodedata.is_normalized("NFC", text) for text in texts)
    assert sentences["de"][11] == "Wir haben die Küchenwände gelb gestrichen."


def test_loaded_data_is_not_shared_between_callers():
    corpus.load_everyday()["en"].clear()
    corpus.load_udhr(["en"])[0].metadata["title"] = "changed"
    assert len(corpus.load_everyday()["en"]) == 24
    assert corpus.load_udhr(["en"])[0].metadata["title"] == "Article 1"
