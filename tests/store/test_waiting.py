"""Waiting for a server's index: what is believed, what is nudged, and when it is given up."""

from __future__ import annotations

import types

import pytest

from f2rag.errors import StoreError, StoreUnavailableError
from f2rag.store import client as client_module
from f2rag.store.client import ClientHome


class Scripted:
    """A connection to a server that goes through given states; the last one stays."""

    kind, name, local, version = "server", "Qdrant at nowhere", False, (1, 17, 0)

    def __init__(self, *states):
        self.states = list(states)
        self.nudges = 0

    def read(self, call):
        return call(self)

    write = read

    def get_collection(self, collection):
        color, error = (self.states.pop(0) if len(self.states) > 1 else self.states[0]), ""
        if color == "red":
            error = "no space"
        queue = types.SimpleNamespace(length=int(color == "queued"))
        status = types.SimpleNamespace(value="green" if color == "queued" else color)
        return types.SimpleNamespace(
            status=status, optimizer_status=types.SimpleNamespace(error=error), update_queue=queue
        )

    def count(self, collection, **options):
        return types.SimpleNamespace(count=1)

    def update_collection(self, collection, **options):
        self.nudges += 1


class TestWaiting:
    def backend(self, monkeypatch, *states):
        monkeypatch.setattr(client_module, "_POLL_SECONDS", 0.0)
        connection = Scripted(*states)
        return client_module.ClientBackend(ClientHome(connection), "c"), connection

    def test_one_ready_is_not_believed(self, monkeypatch):
        backend, connection = self.backend(monkeypatch, "green", "yellow", "green", "queued", "green", "green", "grey")
        seen = []
        assert backend.optimize(wait=60, on_progress=seen.append) is True
        assert [each.state for each in seen] == ["ready", "indexing", "ready", "ready", "ready", "ready"]
        assert seen[3].detail == "1 updates are being applied"
        assert connection.nudges == 0

    def test_a_restarted_server_is_nudged(self, monkeypatch):
        backend, connection = self.backend(monkeypatch, "grey", "grey", "yellow", "green")
        assert backend.optimize(wait=60, on_progress=None) is True
        assert connection.nudges == 1
        backend, connection = self.backend(monkeypatch, "grey")
        assert backend.optimize(wait=None, on_progress=None) is False
        assert connection.nudges == 1

    def test_it_gives_up_in_time_and_says_that_searches_work(self, monkeypatch):
        backend, _ = self.backend(monkeypatch, "yellow")
        with pytest.raises(StoreUnavailableError, match=r"not fully indexed after 0 s \(indexing\).*searches work"):
            backend.optimize(wait=0, on_progress=None)

    def test_a_failure_is_not_waited_for(self, monkeypatch):
        backend, _ = self.backend(monkeypatch, "yellow", "red")
        with pytest.raises(StoreError, match="cannot be indexed: no space"):
            backend.optimize(wait=60, on_progress=None)
