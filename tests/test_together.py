"""What keeps tests together that share an app or containers."""

from __future__ import annotations

from pathlib import Path

from together import GROUPS, TogetherScheduling

ROOT = Path(__file__).parent.parent


def group_of(nodeid: str) -> str:
    return TogetherScheduling._split_scope(TogetherScheduling.__new__(TogetherScheduling), nodeid)


def test_the_files_of_a_group_are_there() -> None:
    for files in GROUPS.values():
        assert all((ROOT / file).is_file() for file in files), files


def test_all_tests_in_a_browser_are_in_a_group() -> None:
    grouped = {file for files in GROUPS.values() for file in files}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "browser").glob("test_*.py")} <= grouped


def test_tests_of_a_group_stay_together_and_others_go_alone() -> None:
    first, second = "tests/browser/test_search.py::test_a[ar::x]", "tests/browser/test_pages.py::Test::test_b"
    assert group_of(first) == group_of(second) in GROUPS
    assert group_of("tests/test_compose_up.py::test_a") != group_of(first)
    alone = "tests/test_vectors.py::test_a[1]"
    assert group_of(alone) == alone
