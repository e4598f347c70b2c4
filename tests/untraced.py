"""Which tests run without coverage being traced.

Tracing more than doubles what the app, its pages and the frameworks' packages need, which are mostly other people's
Python; what the other files named here do, they do in torch or in processes of their own.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

UNTRACED = (
    "integrations/",
    "tests/browser/",
    "tests/test_accuracy_gates.py",
    "tests/test_app",
    "tests/test_benchmarks_",
    "tests/test_compose",
    "tests/test_full_shapes.py",
    "tests/test_packaging.py",
    "tests/test_parity.py",
    "tests/test_stand_in.py",
)
"""What the ids of such tests begin with."""


class Untraced:
    """Pauses coverage around each of these tests, the making of its fixtures included.

    Args:
        controller: pytest-cov's, which its own marker ``no_cover`` uses too, around the test without its fixtures.
    """

    def __init__(self, controller: Any) -> None:
        self._controller = controller

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Run one test, traced or not."""
        if not item.nodeid.startswith(UNTRACED):
            return (yield)
        self._controller.pause()
        try:
            return (yield)
        finally:
            self._controller.resume()
