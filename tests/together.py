"""Which tests one process of pytest's runs, one after the other: those of some files share what is dear to start.

pytest-xdist's own ``xdist_group`` does not work here: its version 3.8 writes the group into an attribute from which
pytest 9.2 no longer takes a test's id. Each process would start an app, index the corpus, bring containers up and
compute what vectors are compared with.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# The two groups in a browser take about as long as each other; each has one app.
GROUPS = {
    "browser, questions": ("tests/browser/test_search.py", "tests/browser/test_pages.py"),
    "browser, the rest": (
        "tests/browser/test_appearance.py",
        "tests/browser/test_documents.py",
        "tests/browser/test_network_changes.py",
        "tests/browser/test_outage.py",
    ),
    "accuracy": ("tests/test_accuracy_gates.py",),
    "containers": ("tests/test_compose_up.py",),
    "compose file": ("tests/test_compose_server.py",),
    "several processes with models": ("tests/test_parallel.py",),
}

_GROUP_OF = {file: group for group, files in GROUPS.items() for file in files}


class TogetherScheduling(LoadScopeScheduling):
    """The tests of a group go to one process, largest group first; all others go to whichever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return _GROUP_OF.get(nodeid.partition("::")[0], nodeid)
