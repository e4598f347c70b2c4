from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from f2rag.errors import DimensionsError, EncoderClosedError
from f2rag.models import MODELS
from f2rag.testing import FakeEncoder, write_checkpoint
from f2rag.vectors import truncate


def test_fake_vectors_are_unit_rows_and_the_same_every_time() -> None:
    vectors = FakeEncoder().embed_documents(["red house", "blue sea", ""])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors, FakeEncoder().embed_documents(["red house", "blue sea", ""]))


def test_fake_vectors_depend_on_role_and_instruction_and_shared_words() -> None:
    encoder = FakeEncoder()
    document = encoder.embed_documents(["red house"])[0]
    query = encoder.embed_query("red house")
    assert 0.5 < float(query @ document) < 0.99
    assert float(query @ encoder.embed_query("red house", instruction="Other.")) < 0.999
    assert float(document @ encoder.embed_documents(["red sea"])[0]) > float(
        document @ encoder.embed_documents(["deep ocean"])[0]
    )


def test_fake_vectors_are_matryoshka_like() -> None:
    encoder = FakeEncoder(dimensions=16, native_dimensions=128)
    full = encoder.embed_documents(["a text"], dimensions=128)
    assert np.allclose(encoder.embed_documents(["a text"]), truncate(full, 16), atol=1e-6)
    with pytest.raises(DimensionsError, match=r"1\.\.128"):
        encoder.embed_query("x", dimensions=129)


def test_the_fake_encoder_streams_and_closes() -> None:
    with FakeEncoder() as encoder:
        assert [len(part) for part in encoder.iter_documents(iter("abcde"), window=2)] == [2, 2, 1]
        assert encoder.document_calls == [2, 2, 1]
    with pytest.raises(EncoderClosedError):
        encoder.embed_query("x")


@pytest.mark.parametrize("spec", [spec for spec in MODELS if spec.kind != "stand-in"], ids=lambda spec: spec.name)
def test_scaled_checkpoints_keep_the_ratios(spec, tmp_path: Path) -> None:
    config = json.loads((write_checkpoint(tmp_path, model=spec.name) / "config.json").read_text())
    assert config["hidden_size"] == spec.hidden_size // 8
    heads = config["num_attention_heads"] / config["num_key_value_heads"]
    assert heads == spec.attention_heads / spec.key_value_heads


def test_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known shape"):
        write_checkpoint(tmp_path, model="someone/finetune")
