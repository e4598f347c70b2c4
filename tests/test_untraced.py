"""Which tests coverage is paused for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from untraced import UNTRACED, Untraced

ROOT = Path(__file__).parent.parent


class Controller:
    def __init__(self) -> None:
        self.said: list[str] = []

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")


def run(nodeid: str, *, fails: bool = False) -> list[str]:
    controller = Controller()
    item: Any = SimpleNamespace(nodeid=nodeid)
    running = Untraced(controller).pytest_runtest_protocol(item)
    next(running)
    controller.said.append("test")
    if fails:
        with pytest.raises(KeyboardInterrupt):
            running.throw(KeyboardInterrupt())
    else:
        with pytest.raises(StopIteration) as ended:
            running.send("result")
        assert ended.value.value == "result"
    return controller.said


def test_each_beginning_names_tests() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("**/test_*.py") if ".venv" not in path.parts]
    for beginning in UNTRACED:
        assert any(file.startswith(beginning) for file in files), beginning


def test_coverage_goes_on_after_the_test_whatever_happens() -> None:
    assert run("integrations/a/tests/test_b.py::test_c") == ["pause", "test", "resume"]
    assert run("tests/test_app.py::test_a[x]", fails=True) == ["pause", "test", "resume"]


def test_all_others_are_traced() -> None:
    assert run("tests/test_encoder.py::test_a") == ["test"]
    assert run("tests/store/test_backends.py::test_a", fails=True) == ["test"]
