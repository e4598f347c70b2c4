from __future__ import annotations

import errno
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file

from f2rag import F2LLMEncoder, checkpoint, loading
from f2rag.errors import (
    CorruptCheckpointError,
    F2RagError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfMemoryError,
    TokenizerError,
)
from f2rag.models import resolve
from f2rag.testing import write_checkpoint


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def embed(folder: Path) -> np.ndarray:
    with F2LLMEncoder(folder, dtype="float32") as encoder:
        return encoder.embed_documents(["a text"])


# -- damaged and foreign checkpoints --------------------------------------------------------------------------------


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def tiny_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"abc")


def lfs_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lost_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def surplus_layer(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=2, layer_types=["full_attention"] * 2)


def other_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["norm.weight"] = torch.ones(7)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def lost_shard(folder: Path) -> None:
    index = {"weight_map": {"norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (cut_weights, CorruptCheckpointError, "its header promises"),
        (no_header, CorruptCheckpointError, "no readable header"),
        (tiny_file, CorruptCheckpointError, "no readable header"),
        (lfs_pointer, CorruptCheckpointError, "git lfs pull"),
        (pickled_only, ModelNotFoundError, r"pytorch_model\.bin, but pickled weights are never read"),
        (lost_tensor, CorruptCheckpointError, r"1 tensors are missing.*up_proj"),
        (surplus_layer, CorruptCheckpointError, "11 have no place .layers.2"),
        (lambda f: edit_json(f / "config.json", rms_norm_eps="x"), CorruptCheckpointError, "rms_norm_eps='x'"),
        (lambda f: edit_json(f / "config.json", hidden_act="x"), CorruptCheckpointError, "cannot be loaded"),
        (lambda f: edit_json(f / "config.json", quantization_config={}), CorruptCheckpointError, "quantised weights"),
        (
            lambda f: edit_json(f / "config.json", rope_scaling={"rope_type": "yarn", "factor": 4.0}),
            CorruptCheckpointError,
            "rotary scaling",
        ),
        (
            lambda f: edit_json(f / "config_sentence_transformers.json", prompts=["query"]),
            CorruptCheckpointError,
            "no JSON object",
        ),
        (other_shape, CorruptCheckpointError, "do not fit the config|cannot be loaded"),
        (lost_shard, ModelNotFoundError, "model-00001-of-00002"),
        (empty_folder, ModelNotFoundError, r"config\.json"),
        (lambda f: (f / "tokenizer.json").unlink(), TokenizerError, r"no tokenizer\.json"),
        (lambda f: (f / "config.json").write_text("{"), CorruptCheckpointError, "JSON"),
        (lambda f: (f / "config.json").write_text("[]"), CorruptCheckpointError, "object"),
        (lambda f: edit_json(f / "config.json", model_type="bert"), CorruptCheckpointError, "'bert'"),
        (lambda f: edit_json(f / "config.json", head_dim=None), CorruptCheckpointError, "head_dim"),
        (
            lambda f: edit_json(f / "config.json", layer_types=["full_attention"]),
            CorruptCheckpointError,
            "layer_types",
        ),
        (
            lambda f: edit_json(f / "config.json", layer_types=["sliding_attention"] * 3),
            CorruptCheckpointError,
            "sliding_attention",
        ),
        (lambda f: edit_json(f / "config.json", use_sliding_window=True), CorruptCheckpointError, "full attention"),
        (lambda f: edit_json(f / "config.json", vocab_size=50), TokenizerError, "table has 50 rows"),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted_is_refused(folder: Path, damage: Any, error: type, message: str) -> None:
    damage(folder)
    with pytest.raises(error, match=message) as raised:
        embed(folder)
    assert isinstance(raised.value, F2RagError)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="missing"):
        F2LLMEncoder(tmp_path / "missing")


def test_a_folder_without_config_is_named_when_it_disappears_later(folder: Path) -> None:
    encoder = F2LLMEncoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        encoder.embed_query("x")


def test_a_failed_load_leaves_nothing_behind_and_can_be_repeated(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    encoder = F2LLMEncoder(folder, dtype="float32")
    cut_weights(folder)
    with pytest.raises(CorruptCheckpointError):
        encoder.embed_query("x")
    (folder / "model.safetensors").write_bytes(whole)
    assert encoder.embed_query("x").shape == (40,)
    encoder.close()


def test_weights_that_do_not_fit_into_memory_are_an_own_error(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3Model

    def full(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 27.00 GiB")

    monkeypatch.setattr(Qwen3Model, "from_pretrained", full)
    with pytest.raises(OutOfMemoryError, match="does not fit into the memory of cpu"):
        F2LLMEncoder(tiny, dtype="float16").embed_query("x")


def test_another_rotary_base_than_the_configs_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.Checkpoint, "rope_theta", property(lambda self: 10_000.0))
    with pytest.raises(ModelLoadError, match="rotary frequencies"):
        F2LLMEncoder(tiny, dtype="float16").embed_query("x")


def test_rotary_frequencies_in_bfloat16_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loading._read

    def rounded(*arguments: Any, **options: Any) -> Any:
        model = original(*arguments, **options)
        model.rotary_emb.inv_freq = model.rotary_emb.inv_freq.bfloat16()
        return model

    monkeypatch.setattr(loading, "_read", rounded)
    with pytest.raises(ModelLoadError, match=r"rotary frequencies .torch.bfloat16"):
        F2LLMEncoder(tiny, dtype="float16").embed_query("x")


def test_a_model_that_was_loaded_in_mixed_dtypes_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loading._read

    def mixed(*arguments: Any, **options: Any) -> Any:
        model = original(*arguments, **options)
        model.layers[1].mlp.bfloat16()
        return model

    monkeypatch.setattr(loading, "_read", mixed)
    with pytest.raises(ModelLoadError, match=r"loaded with weights in torch.bfloat16 instead of float16"):
        F2LLMEncoder(tiny, dtype="float16").embed_query("x")


# -- what is read from good ones ------------------------------------------------------------------------------------


def test_a_wrong_pooling_width_is_overridden_and_reported(folder: Path) -> None:
    edit_json(folder / "1_Pooling" / "config.json", word_embedding_dimension=1024)
    encoder = F2LLMEncoder(folder)
    assert encoder.dimensions == 40
    assert "1_Pooling says 1024 dimensions; the model has 40" in encoder.checkpoint.repairs


def test_mean_pooling_in_the_folder_is_overridden_and_reported(folder: Path) -> None:
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode_lasttoken=False, pooling_mode_mean_tokens=True)
    assert "'mean_tokens'; last-token pooling is used" in " ".join(F2LLMEncoder(folder).checkpoint.repairs)


def test_sharded_weights_with_a_prefix_are_read(tiny: Path, folder: Path) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert np.allclose(embed(folder), embed(tiny), atol=1e-6)


def test_the_length_of_the_folder_is_kept(folder: Path) -> None:
    assert F2LLMEncoder(folder).max_length == 8192
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512}))
    assert F2LLMEncoder(folder).max_length == 512
    for unusable in (1, -1, True, "512", 0):
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": unusable}))
        assert F2LLMEncoder(folder).max_length == 8192
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 99_999}))
    assert F2LLMEncoder(folder).max_length == 40960


def test_an_assumed_rotary_base_is_reported(tiny: Path, folder: Path) -> None:
    edit_json(folder / "config.json", rope_theta=None)
    assert "no rotary base was stored" in " ".join(F2LLMEncoder(folder).checkpoint.repairs)
    assert np.allclose(embed(folder), embed(tiny), atol=1e-6)


def test_any_changed_tensor_changes_the_fingerprint(tiny: Path, folder: Path) -> None:
    for name in ("norm.weight", "layers.2.self_attn.k_norm.weight", "layers.1.input_layernorm.weight"):
        tensors = load_file(tiny / "model.safetensors")
        tensors[name] = tensors[name] + 0.01
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        assert checkpoint.fingerprint(folder) != checkpoint.fingerprint(tiny), name


def test_weights_that_are_written_again_do_not_touch_the_loaded_model(folder: Path) -> None:
    with F2LLMEncoder(folder, dtype="float32") as encoder:
        before = encoder.embed_documents(["a text"])
        tensors = load_file(folder / "model.safetensors")
        changed = {name: tensor * 1.5 for name, tensor in tensors.items()}
        del tensors
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        assert np.array_equal(encoder.embed_documents(["a text"]), before)
        with F2LLMEncoder(folder, dtype="float32") as newer:
            assert not np.allclose(newer.embed_documents(["a text"]), before, atol=1e-3)
            assert newer.contract().fingerprint != encoder.contract().fingerprint


def test_the_fingerprint_follows_content_and_not_place(tiny: Path, folder: Path) -> None:
    assert checkpoint.fingerprint(folder) == checkpoint.fingerprint(tiny)
    assert F2LLMEncoder(folder).contract().fingerprint == F2LLMEncoder(tiny).contract().fingerprint
    tensors = load_file(folder / "model.safetensors")
    tensors["layers.0.mlp.up_proj.weight"] += 0.01
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert checkpoint.fingerprint(folder) != checkpoint.fingerprint(tiny)
    differences = F2LLMEncoder(folder).contract().differences(F2LLMEncoder(tiny).contract())
    assert set(differences) == {"revision"}


# -- the hub --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (hub.LocalEntryNotFoundError("offline"), ModelNotFoundError, r"hf download codefuse-ai/F2LLM-v2-80M"),
        (hub.OfflineModeIsEnabled("offline"), ModelNotFoundError, "not reachable"),
        (OSError(errno.ENOSPC, "No space left on device"), ModelLoadError, "The disk is full"),
        (ConnectionError("reset"), ModelNotFoundError, "not reachable .ConnectionError"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raised: Exception, error: type, message: str
) -> None:
    def refuse(*arguments: Any, **options: Any) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", refuse)
    with pytest.raises(error, match=message):
        F2LLMEncoder("80M", cache_folder=tmp_path).embed_query("x")


def test_nothing_is_asked_of_the_hub_with_local_files_only(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="was not asked"):
        F2LLMEncoder("80M", local_files_only=True, cache_folder=tmp_path).embed_query("x")


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one folder as the model hub would, and remembers what was asked."""

    folder: Path
    commit = resolve("80M").revision
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path.startswith("/api/models/") and path.endswith("v99"):
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.startswith("/api/models/"):
            content = json.dumps(self.tree() if "/tree/" in path else self.info()).encode()
        else:
            file = self.folder / path.partition(f"/resolve/{self.commit}/")[2]
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", str(self.commit))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def info(self) -> dict[str, Any]:
        siblings = [{"rfilename": entry["path"]} for entry in self.tree()]
        return {"id": "codefuse-ai/F2LLM-v2-80M", "sha": self.commit, "siblings": siblings}

    def tree(self) -> list[dict[str, Any]]:
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        return [
            {
                "type": "file",
                "path": file.relative_to(self.folder).as_posix(),
                "size": file.stat().st_size,
                "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
            }
            for file in files
        ]

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def fake_hub(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "served")
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    (folder / "training.zip").write_bytes(b"never fetched")
    handler = type("Handler", (Hub,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run_with_hub(address: str, home: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=120
    )


def test_download_fetches_the_pinned_revision_and_only_the_needed_files(fake_hub: Any, tmp_path: Path) -> None:
    handler, address = fake_hub
    code = """
import warnings
from f2rag import F2LLMEncoder
encoder = F2LLMEncoder("80M", dtype="float32", dimensions=8)
print(encoder.count_tokens("abc"), encoder.embed_query("x").shape)
"""
    done = run_with_hub(address, tmp_path / "home", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "4 (8,)"
    fetched = [path for path in handler.asked if "/resolve/" in path]
    assert fetched
    assert all(f"/resolve/{Hub.commit}/" in path for path in fetched)
    assert not [path for path in fetched if path.endswith((".bin", ".zip"))]
    again = run_with_hub(
        "http://127.0.0.1:9", tmp_path / "home", code.replace('"80M",', '"80M", local_files_only=True,')
    )
    assert again.returncode == 0, again.stderr


def test_an_unreachable_hub_is_explained_without_a_traceback_of_its_own(tmp_path: Path) -> None:
    code = """
from f2rag import F2LLMEncoder, F2RagError
try:
    F2LLMEncoder("80M").embed_query("x")
except F2RagError as error:
    print(type(error).__name__, error)
"""
    done = run_with_hub("http://127.0.0.1:9", tmp_path, code)
    assert done.stdout.startswith("ModelNotFoundError codefuse-ai/F2LLM-v2-80M at revision 6faa7738"), done.stderr
    assert "model='stand-in'" in done.stdout
