"""The true shapes: parameter counts of all sizes without memory, and two whole checkpoints with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3Model

from f2rag import F2LLMEncoder
from f2rag.models import MODELS, ModelSpec, resolve
from f2rag.testing import write_checkpoint

REAL = [spec for spec in MODELS if spec.kind != "stand-in"]


@pytest.mark.parametrize("spec", REAL, ids=lambda spec: spec.name)
def test_parameter_counts_equal_those_of_the_architecture(spec: ModelSpec) -> None:
    config = Qwen3Config(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.attention_heads,
        num_key_value_heads=spec.key_value_heads,
        head_dim=spec.head_dim,
    )
    with torch.device("meta"):
        model = Qwen3Model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == spec.parameters
    assert len(model.state_dict()) == 11 * spec.layers + 2


@pytest.mark.parametrize("size", ["80M", "160M"])
def test_a_full_checkpoint_loads_embeds_and_reports_what_the_table_says(
    size: str, tmp_path: Path, qwen3_tokenizer_file: Path
) -> None:
    spec = resolve(size).spec
    assert spec is not None
    folder = write_checkpoint(
        tmp_path / "model", model=size, scale=None, dtype="bfloat16", tokenizer_file=qwen3_tokenizer_file
    )
    stored = (folder / "model.safetensors").stat().st_size
    assert spec.memory_bytes("bfloat16") < stored < spec.memory_bytes("bfloat16") + 100_000
    with F2LLMEncoder(folder, dtype="float32") as encoder:
        assert encoder.native_dimensions == spec.hidden_size
        assert encoder.max_length == spec.safe_length
        vectors = encoder.embed_documents(["One text.", "另一段文字。"], dimensions=64)
        query = encoder.embed_query("What is F2LLM used for?")
        assert encoder.self_test_result()[1]
        model = encoder._runtime()._chosen.forward._model
        assert sum(parameter.numel() for parameter in model.parameters()) == spec.parameters
        loaded = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        assert loaded == spec.memory_bytes("float32")
    assert vectors.shape == (2, 64)
    assert query.shape == (spec.hidden_size,)
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)
