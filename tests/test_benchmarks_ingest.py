"""The benchmarks of ingestion, memory and start-up: their arithmetic, their checks, and a tiny run of each."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Tests are imported by path, and benchmarks are no installed package.
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import ingest_speed, machine, material, measuring, memory, memory_worker, startup  # noqa: E402
from benchmarks.ingest_contestants import Entry, OurEngine, Place, Remote, TheirLangChain, timed  # noqa: E402
from benchmarks.ingest_speed import Corpus, WrongResultError  # noqa: E402
from benchmarks.measuring import Aim  # noqa: E402

TEXTS = ["a red house", "the blue sea", "bread and salt", "海は青い", "صوت الريح", "schöne neue Welt"]


# -- arithmetic -----------------------------------------------------------------------------------------------------


def test_a_ratio_is_of_medians_and_its_interval_holds_it() -> None:
    found = measuring.ratio_of_medians([10.0, 11.0, 50.0, 9.0, 10.5], [2.0, 2.2, 2.1, 1.9, 2.0])
    assert found.value == pytest.approx(10.5 / 2.0)
    assert found.low <= found.value <= found.high
    assert found.low < found.high


def test_rounds_are_drawn_together_so_that_a_slow_machine_does_not_widen_the_ratio() -> None:
    slowness = np.random.default_rng(1).uniform(1, 5, size=15)
    found = measuring.ratio_of_medians((6 * slowness).tolist(), (2 * slowness).tolist())
    assert (found.low, found.value, found.high) == pytest.approx((3, 3, 3))


@pytest.mark.parametrize("rounds", [([], []), ([1.0], [1.0, 2.0])])
def test_a_ratio_of_other_rounds_is_refused(rounds: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="expected the same rounds"):
        measuring.ratio_of_medians(*rounds)


def test_the_slope_is_found_under_steps_and_a_steep_start() -> None:
    at = np.arange(1, 201) / 100
    noise = np.random.default_rng(0).choice([0.0, 4.0], size=len(at))  # an allocator takes and returns whole blocks
    start = np.where(at < 0.2, 300 * (at / 0.2), 300)
    flat = measuring.slope(at, start + noise)
    leaking = measuring.slope(at, start + noise + 3 * at)
    assert abs(flat.value) < 0.3
    assert flat.low <= 0 <= flat.high
    assert leaking.value == pytest.approx(3, abs=0.5)
    assert leaking.low > 1


def test_a_slope_of_two_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="needs three"):
        measuring.slope([1, 2], [1, 2])


@pytest.mark.parametrize(
    ("value", "bound", "kind", "met"),
    [
        (5.0, 5.0, "at least", True),
        (4.99, 5.0, "at least", False),
        (1.2, 1.2, "at most", True),
        (1.21, 1.2, "at most", False),
        (math.nan, 1.2, "at most", False),
    ],
)
def test_an_aim_says_whether_it_is_met(value: float, bound: float, kind: Any, met: bool) -> None:
    aim = Aim(what="speed", value=value, bound=bound, kind=kind)
    assert aim.met is met
    assert aim.as_json()["met"] is met
    assert ("missed by" in str(aim)) is not met


def test_contestants_take_turns_and_every_other_round_runs_backwards() -> None:
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return len(order)

    taken = measuring.interleave(["a", "b", "c"], 3, measure)
    assert "".join(order) == "abccbaabc"
    assert taken == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_facts_name_the_machine_without_importing_torch() -> None:
    code = (
        "import sys, json; from benchmarks.machine import Load, facts; "
        "found = facts(load=Load(0.0, 0.0), seed=7); assert 'torch' not in sys.modules; print(json.dumps(found))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(said.stdout)
    assert found["processor"]
    assert found["cores"] >= 1
    assert found["seed"] == 7
    assert found["numpy"] == np.__version__
    assert found["load_before"] == {"others": 0.0, "average": 0.0}


def test_a_busy_machine_is_refused_unless_that_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console
    from typer import Exit

    monkeypatch.setattr(measuring, "measure_load", lambda: machine.Load(others=0.6, average=2.0))
    with pytest.raises(Exit):
        measuring.require_quiet(Console(quiet=True), even_if_busy=False, patience=0.0)
    assert measuring.require_quiet(Console(quiet=True), even_if_busy=True).others == 0.6


def test_a_machine_that_becomes_quiet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    seen = iter([0.6, 0.3, 0.01, 0.7])
    monkeypatch.setattr(measuring, "measure_load", lambda: machine.Load(others=next(seen), average=2.0))
    monkeypatch.setattr(measuring.time, "sleep", lambda _: None)
    console = Console(record=True, quiet=True)
    assert measuring.require_quiet(console, even_if_busy=False).others == 0.01


# -- texts ----------------------------------------------------------------------------------------------------------


def test_texts_have_the_lengths_of_the_workload(qwen3_tokenizer_file: Path) -> None:
    from tokenizers import Tokenizer

    wanted = material.lognormal_lengths(40, seed=3)
    texts = material.texts_of_lengths(wanted, qwen3_tokenizer_file, seed=3)
    tokenizer = Tokenizer.from_file(str(qwen3_tokenizer_file))
    found = [len(tokenizer.encode(text).ids) for text in texts]
    assert np.abs(np.asarray(found) - wanted).max() <= 3
    assert np.abs(np.asarray(found) - wanted).mean() < 1
    assert max(wanted) <= material.CAP
    assert 150 < statistics.median(wanted) < 600
    assert len(set(texts)) == len(texts)


def test_paragraphs_are_distinct_and_survive_peers_that_replace_line_breaks(tmp_path: Path) -> None:
    texts = material.paragraphs(300, seed=0)
    assert len(set(texts)) == 300
    assert not any("\n" in text for text in texts)
    assert list(material.read_texts(material.save_texts(texts, tmp_path / "texts"))) == texts
    assert material.paragraphs(300, seed=1) != texts


def test_short_texts_are_all_different() -> None:
    assert len(set(material.short_texts(5000))) == 5000


# -- ingestion ------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tiny: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A server; f2rag computes in float32, as the references do, also where this machine is faster in bfloat16."""
    monkeypatch.setattr("f2rag.device._best_dtype", lambda device: ("float32", "a test"))
    server = request.getfixturevalue("qdrant_server")
    return Place(tiny, server.url, server.grpc_port)


@pytest.fixture
def corpus(tiny: Path, tmp_path: Path) -> Corpus:
    return Corpus(material.save_texts(TEXTS, tmp_path / "texts"), TEXTS, ingest_speed.reference_vectors(tiny, TEXTS))


def test_a_wrong_collection_never_yields_a_time(place: Place, corpus: Corpus, tmp_path: Path) -> None:
    contestant = OurEngine(place)
    assert timed(contestant, place, "wrong", corpus.file, len(TEXTS)) > 0
    try:
        assert ingest_speed.check(place, "wrong", corpus, contestant.nearest, seed=0) > 0.9999
        with pytest.raises(WrongResultError, match="finds 'a red house'"):
            ingest_speed.check(place, "wrong", corpus, lambda text: "a red house", seed=0)
        turned = Corpus(corpus.file, TEXTS, corpus.reference[::-1])
        with pytest.raises(WrongResultError, match="cosine"):
            ingest_speed.check(place, "wrong", turned, contestant.nearest, seed=0)
        more = Corpus(corpus.file, [*TEXTS, "one that was lost"], corpus.reference)
        with pytest.raises(WrongResultError, match="not exactly the 7 given"):
            ingest_speed.check(place, "wrong", more, contestant.nearest, seed=0)
    finally:
        contestant.close()
        place.client().delete_collection("wrong")


def test_points_that_never_come_end_the_wait(place: Place, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ingest_contestants.PATIENCE_SECONDS", 0.05)
    contestant = OurEngine(place)
    try:
        with pytest.raises(TimeoutError, match="6 points are in short; expected 7"):
            timed(contestant, place, "short", corpus.file, 7)
    finally:
        contestant.close()
        place.client().delete_collection("short")


@pytest.mark.filterwarnings("ignore")
def test_all_ways_store_the_same_and_are_reported(place: Place, corpus: Corpus) -> None:
    pytest.importorskip("langchain_qdrant")
    pytest.importorskip("langchain_huggingface")
    pytest.importorskip("langchain_f2llm")
    outcomes = []
    peer = Entry(ingest_speed.PEER, TheirLangChain, {"dtype": "float32", "batch_size": 2, "store_batch": 3})
    ours = next(entry for entry in ingest_speed.entries() if entry.name == ingest_speed.OURS)
    inner = next(entry for entry in ingest_speed.entries() if "in LangChain" in entry.name)
    for entry in (ours, inner, peer):
        here = Here(entry.make(place, **entry.settings), place)
        seconds, lowest = ingest_speed.run_once(here, place, corpus, collection="all-ways", seed=0)
        outcomes.append(ingest_speed.Outcome(name=entry.name, seconds=[seconds] * 3, lowest_cosine=lowest))
        assert lowest > 0.9999
    content = ingest_speed.report(
        outcomes,
        texts=len(TEXTS),
        tuning=[],
        machine=machine.facts(load=machine.Load(0, 0), texts=6, rounds=3, model="80M", qdrant="1", tuned=None),
    )
    expected = statistics.median(outcomes[2].seconds) / statistics.median(outcomes[0].seconds)
    assert content["rows"][2]["times_as_long"] == pytest.approx(expected, rel=1e-3)
    assert [aim["met"] for aim in content["aims"]] == [
        outcomes[2].median / outcome.median >= ingest_speed.AIM for outcome in outcomes[:2]
    ]
    assert ingest_speed.PEER in ingest_speed.as_markdown(json.loads(json.dumps(content)))


class Here:
    """What ``Remote`` is, in this process."""

    def __init__(self, contestant: Any, place: Place) -> None:
        self._contestant, self._place = contestant, place
        self.nearest, self.close = contestant.nearest, contestant.close

    def timed(self, collection: str, file: Path, count: int) -> float:
        return timed(self._contestant, self._place, collection, file, count)


def test_a_failure_in_a_contestants_process_is_told(tmp_path: Path) -> None:
    entry = Entry("broken", OurEngine)
    with pytest.raises(RuntimeError, match=r"(?s)broken failed:.*ModelNotFoundError"):
        Remote(entry, Place(tmp_path / "nothing", "http://127.0.0.1:1", None))


# -- memory ---------------------------------------------------------------------------------------------------------


LEAKING = """
import dataclasses, json, sys
from benchmarks.memory_worker import watch
kept = []
def steps():
    for number in range(1, 401):
        kept.append(bytearray(b"x") * int(sys.argv[1]) if int(sys.argv[1]) else None)
        yield number
watch(steps(), every=8, report=lambda seen: print(json.dumps(dataclasses.asdict(seen))))
"""


def run_small(code: str, *arguments: str) -> list[Any]:
    """Lines of JSON that a fresh interpreter, without torch and its noise, prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_leak_is_found_where_there_is_one() -> None:
    def grown(leak: str, key: str) -> measuring.Interval:
        samples = run_small(LEAKING, leak)
        return measuring.slope([each["done"] / 100 for each in samples], [each[key] for each in samples])

    expected = 100 * 100_000 / 2**20
    leaking = grown("100000", "rss")
    assert leaking.value == pytest.approx(expected, rel=0.2)
    assert leaking.low > expected / 2
    assert grown("100000", "blocks").value >= 90  # of 100 that are kept
    assert grown("0", "rss").value < expected / 10
    assert grown("0", "blocks").value < 50


def test_the_peak_does_not_go_down_again() -> None:
    ((before, during, after),) = run_small(
        "import json\n"
        "from benchmarks.memory_worker import peak_mebibytes\n"
        "before = peak_mebibytes()\n"
        "block = bytearray(b'x') * (256 * 2**20)\n"
        "during = peak_mebibytes()\n"
        "del block\n"
        "print(json.dumps([before, during, peak_mebibytes()]))"
    )
    assert before < 200
    assert during > before + 200
    assert after > during - 1  # the system counts pages of each thread in lots


def test_the_native_heap_is_seen() -> None:
    before = memory_worker.native_bytes()
    if before == 0:
        pytest.skip("this C library does not say what it holds")
    block = bytearray(8 * 2**20)
    assert memory_worker.native_bytes() - before > 7 * 2**20
    del block


def test_peaks_come_from_fresh_processes_with_checked_vectors(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "TUNED", [])
    (tmp_path / "M.json").write_text(json.dumps([text * 3 for text in TEXTS]))
    rows = list(memory.peaks(tiny, {"M": tmp_path / "M.json"}, tmp_path, max_length=16))
    assert [row.name for row in rows] == [memory.OURS, memory.DEFAULT]
    for row in rows:
        assert row.peak >= row.loading_peak >= row.loaded > 100  # torch alone is more
        assert row.lowest_cosine > 0.999
    content = memory.report(rows, [], machine.facts(load=machine.Load(0, 0), mixed=6, long=0))
    assert content["aims"][0]["value"] == pytest.approx(rows[0].peak / rows[1].peak, abs=1e-3)
    assert "M: 6 texts" in memory.as_markdown(content)


def test_the_stream_is_sampled_in_its_process_and_a_kept_text_shows(tiny: Path) -> None:
    found = memory.growth("stream", tiny, count=24 * memory_worker.WINDOW // 8, unit=1_000, leak=20_000)
    assert len(found.samples) >= 3
    assert found.rss[0] > 10  # 20 kB of each of 1,000 texts are 19 MiB
    content = memory.report([], [found], machine.facts(load=machine.Load(0, 0)))
    assert content["aims"][0]["met"] is False


def test_a_failing_worker_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ModelNotFoundError"):
        memory.growth("lifetimes", tmp_path / "nothing", count=4, unit=1)


# -- start-up -------------------------------------------------------------------------------------------------------


def test_the_costly_imports_are_those_of_the_line() -> None:
    found = startup.costly_imports("import wave", count=1000)
    assert "wave" in [each.module for each in found]
    assert found == sorted(found, key=lambda each: -each.own_ms)
    assert all(each.total_ms >= each.own_ms for each in found)


def test_the_cache_is_laid_out_as_the_hub_does_it(tiny: Path, tmp_path: Path) -> None:
    from f2rag.download import locate
    from f2rag.models import resolve

    cache = startup.hub_cache(tmp_path / "cache", tiny)
    found = locate(resolve(startup.REPOSITORY_MODEL), cache_folder=cache, local_files_only=True)
    assert found.resolve() == tiny.resolve()


def test_first_vectors_are_timed_and_compared(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "PLAIN", startup.PLAIN[1:])
    asked: list[str] = []
    real = startup.first_vector

    def once(name: str, model: Path, cache: Path) -> tuple[float, list[float]]:
        asked.append(name)
        if name not in answers:
            answers[name] = real(name, model, cache)
        return answers[name]

    answers: dict[str, tuple[float, list[float]]] = {}
    monkeypatch.setattr(startup, "first_vector", once)
    seconds, cosines = startup.first_vectors(tiny, tmp_path, rounds=2, only="a folder")
    assert list(seconds) == ["f2rag, a folder", "transformers, float32"]
    assert all(len(taken) == 2 and min(taken) > 0.05 for taken in seconds.values())
    assert min(cosines.values()) > 0.999
    assert len(asked) == 1 + 2 * (1 + 2)  # the reference, the uncounted round and two counted ones


def test_a_failing_contestant_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Traceback"):
        startup.first_vector("nobody", tmp_path, tmp_path)


def test_the_report_of_start_up_compares_with_the_faster_plain_way() -> None:
    seconds = {"f2rag, a folder": [2.0, 2.1, 1.9], startup.PLAIN[0]: [4.0, 4.1, 3.9], startup.PLAIN[1]: [1.0, 1.1, 0.9]}
    imports = {name: [20.0 + 60 * (name != "pass")] * 3 for name in startup.IMPORTS}
    cosines = {**dict.fromkeys(seconds, 1.0), startup.PLAIN[0]: 0.5}
    costly = [startup.Imported(module="logging", own_ms=7.0, total_ms=30.0)]
    given = machine.facts(load=machine.Load(0.5, 2.0), import_rounds=3, rounds=3)
    content = startup.report(imports, costly, seconds, cosines, given)
    assert [(aim["value"], aim["met"]) for aim in content["aims"]] == [(60.0, True), (2.0, False)]
    assert "its vector is another" in content["aims_in_words"][-1]
    text = startup.as_markdown(content)
    assert "missed by 100%" in text
    assert "not a reference" in text
