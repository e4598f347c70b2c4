"""Work in threads of its own: once, watched by all who wait, never stopped by one of them."""

from __future__ import annotations

import threading

import pytest


@pytest.fixture
def jobs(modules):
    import jobs

    return jobs


def test_a_result_comes_back_with_the_progress_before_it(jobs):
    reported, seen = threading.Event(), []

    def work(report):
        report(1, 4, "a quarter")
        assert reported.wait(10)
        return "done"

    def on_progress(share, words):
        seen.append((share, words))
        if words:
            reported.set()

    assert jobs.start("work", work).wait(on_progress) == "done"
    assert (0.25, "a quarter") in seen


@pytest.mark.parametrize(("done", "total", "share"), [(0, 0, 0.0), (5, 0, 0.0), (1, 2, 0.5), (3, 2, 1.0), (-1, 2, 0.0)])
def test_a_share_is_between_nothing_and_all(jobs, done, total, share):
    assert jobs.Progress(done, total).share == share


def test_the_same_key_is_the_same_work_while_it_is_under_way(jobs):
    go_on, calls = threading.Event(), []

    def work(report):
        calls.append(1)
        go_on.wait(10)
        return len(calls)

    first = jobs.start("key", work)
    second = jobs.start("key", work)
    assert second is first
    assert first.running
    go_on.set()
    assert (first.wait(), second.wait(), len(calls)) == (1, 1, 1)
    assert jobs.find("key") is first
    assert jobs.start("key", work) is not first
    assert jobs.find("other") is None


def test_what_is_kept_is_done_once(jobs):
    calls = []
    first = jobs.start("key", lambda report: calls.append(1), keep=True)
    first.wait()
    assert jobs.start("key", lambda report: calls.append(2), keep=True) is first
    jobs.forget("key")
    jobs.start("key", lambda report: calls.append(3), keep=True).wait()
    assert calls == [1, 3]


def test_an_error_is_raised_where_somebody_waits_and_not_kept(jobs):
    def fail(report):
        raise ValueError("broken")

    job = jobs.start("key", fail, keep=True)
    with pytest.raises(ValueError, match="broken"):
        job.wait()
    assert job.failed
    assert not job.succeeded
    assert jobs.start("key", lambda report: "mended", keep=True).wait() == "mended"


def test_who_goes_away_does_not_stop_the_work(jobs):
    go_on, finished = threading.Event(), []

    def work(report):
        go_on.wait(10)
        finished.append(True)

    def leave(share, words):
        raise KeyboardInterrupt  # as a rerun of the page does

    job = jobs.start("key", work)
    with pytest.raises(KeyboardInterrupt):
        job.wait(leave)
    assert job.running
    go_on.set()
    job.wait()
    assert finished == [True]
