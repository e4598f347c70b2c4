"""Words of eight languages: a query must find the text that holds its word, and no other, in every engine."""

from __future__ import annotations

import builtins
import uuid

import numpy as np
import pytest

from f2rag.errors import UnsupportedFeatureError
from f2rag.store.client import ClientHome, memory_home
from f2rag.store.connection import connection_of
from f2rag.store.edge import EdgeHome
from f2rag.store.filters import EVERYTHING
from f2rag.store.homes import Batch
from f2rag.store.layout import Layout, Lexical
from f2rag.store.lexical import WordEncoder
from f2rag.store.stages import Nearest

TEXTS = {
    "zh": "他在北京大学学习计算机科学",
    "zh-other": "我们明天去上海看电影",
    "ja": "図書館で新しい辞書を借りました",
    "ja-other": "週末は家族と山に登ります",
    "th": "นักเรียนอ่านหนังสือในห้องสมุดทุกวัน",
    "th-other": "แม่ทำอาหารเย็นให้ครอบครัว",
    "ar": "قرأ الطالب والمعلم الكتاب في المدرسة",
    "ar-other": "سافرت العائلة إلى البحر في الصيف",
    "ko": "학생이 도서관에서 사전을 빌렸다",
    "ko-other": "우리는 내일 바다에 간다",
    "hi": "छात्र पुस्तकालय में किताब पढ़ता है",
    "hi-other": "हम कल समुद्र देखने जाएंगे",
    "vi": "Sinh viên mượn từ điển ở thư viện",
    "vi-other": "Ngày mai chúng tôi đi biển",
    "en": "The student borrowed Dictionary ISO-9001 in 2003 for €5.99",
    "en-other": "Tomorrow we travel to the sea",
}
NAMES = list(TEXTS)
QUERIES = [
    ("zh", "计算机"),
    ("zh", "北京"),
    ("ja", "辞書"),
    ("ja", "図書館"),
    ("th", "ห้องสมุด"),
    ("th", "นักเรียน"),
    ("ar", "معلم"),  # the text has it behind an attached "and" and the article
    ("ar", "مدرسة"),
    ("ko", "도서관"),  # the text has it before an attached particle
    ("ko", "사전"),
    ("hi", "किताब"),
    ("vi", "từ điển"),
    ("en", "DICTIONARY"),
    ("en", "9001"),
    ("en", "2003"),
    ("en", "٢٠٠٣"),
    ("en", "２００３"),
]


@pytest.fixture(scope="module")
def encoder():
    return WordEncoder(Lexical())


@pytest.fixture(scope="module", params=["memory", "edge", "server"])
def backend(request, tmp_path_factory, encoder):
    """The texts, in one collection for all queries of a module."""
    if request.param == "edge":
        home = EdgeHome(tmp_path_factory.mktemp("words"))
    elif request.param == "memory":
        home = memory_home()
    else:
        server = request.getfixturevalue("qdrant_server")
        home = ClientHome(connection_of(server.client(prefer_grpc=True), owned=True))
    name = f"words-{uuid.uuid4().hex}"
    home.create(name, {}, layout=Layout(lexical=Lexical()), dimensions=2)
    backend = home.open(name)
    backend.upsert(
        Batch(
            ids=[str(uuid.UUID(int=number)) for number in range(len(TEXTS))],
            vectors={"": np.tile(np.float32([1, 0]), (len(TEXTS), 1))},
            sparse={"bm25": [encoder.document(text) for text in TEXTS.values()]},
            payloads=[{} for _ in TEXTS],
            bytes=1000,
        )
    )
    yield backend
    backend.close()
    home.drop(name)
    home.close()


@pytest.mark.parametrize(("expected", "query"), QUERIES, ids=[f"{name}-{query!a}" for name, query in QUERIES])
def test_a_word_finds_its_text_alone(backend, encoder, expected, query):
    stage = Nearest(vector=encoder.query(query), using="bm25", limit=len(TEXTS))
    found = backend.search(stage, selection=EVERYTHING, score_threshold=None)
    assert [NAMES[uuid.UUID(row.id).int] for row in found] == [expected]


@pytest.mark.parametrize("query", ["المعلم", "والمعلم", "المدرسة"])
def test_an_arabic_article_counts_less_than_its_word(backend, encoder, query):
    """The article is a word of its own, which other texts have as well."""
    stage = Nearest(vector=encoder.query(query), using="bm25", limit=len(TEXTS))
    first, *others = backend.search(stage, selection=EVERYTHING, score_threshold=None)
    assert NAMES[uuid.UUID(first.id).int] == "ar"
    assert all(other.score < first.score / 2 for other in others)


@pytest.mark.parametrize("query", ["", "…!? — ", "zebra", "7"])
def test_what_no_text_holds_finds_nothing(backend, encoder, query):
    stage = Nearest(vector=encoder.query(query), using="bm25", limit=5)
    assert backend.search(stage, selection=EVERYTHING, score_threshold=None) == []


class TestVectors:
    def test_ids_ascend_and_are_there_once(self, encoder):
        text = "b a c a 7 7 東京 東京 " * 20
        for vector in (encoder.document(text), encoder.query(text)):
            assert vector.indices == sorted(set(vector.indices))
            assert len(vector.indices) == len(vector.values) >= 5
            assert all(type(value) is float and value > 0 for value in vector.values)

    def test_a_text_without_words_has_no_terms(self, encoder):
        for text in ("", " \n", "!?"):
            assert encoder.document(text).indices == encoder.query(text).values == []

    def test_the_weights_are_bm25s(self):
        lexical = Lexical(tokenizer="word", k=1.5, b=0.5, average_length=4.0)
        encoder = WordEncoder(lexical)
        document, query = encoder.document("sea sea sea sky"), encoder.query("sea sea")
        (index,) = query.indices
        assert query.values == [1.0]
        frequency, length = 3, 4
        norm = 1.5 * (1 - 0.5 + 0.5 * length / 4.0)
        weight = dict(zip(document.indices, document.values, strict=True))[index]
        assert weight == pytest.approx(frequency * 2.5 / (frequency + norm))

    def test_other_tokenizers_cut_at_spaces(self):
        for tokenizer in ("word", "whitespace"):
            assert len(WordEncoder(Lexical(tokenizer=tokenizer)).document("东京 in 2003").indices) == 3

    def test_the_same_settings_make_the_same_vectors(self, encoder):
        assert WordEncoder(Lexical()).document(TEXTS["ja"]) == encoder.document(TEXTS["ja"])
        assert encoder.document("The Sea") == encoder.document("the sea")

    def test_without_the_engine_there_is_a_way_out(self, monkeypatch):
        importing = builtins.__import__

        def refuse(name, *arguments, **options):
            if name == "qdrant_edge":
                raise ImportError(name)
            return importing(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(UnsupportedFeatureError, match=r"pip install qdrant-edge-py.*without a lexical half"):
            WordEncoder(Lexical())
