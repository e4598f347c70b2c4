"""The speed benchmark: its texts, its arithmetic, and who gets no time."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measuring import ratio_of_medians
from benchmarks.speed import aims, correctness, gguf_file, latency, limit, plot, report, run, workloads
from benchmarks.speed.contestants import ENTRIES, LIMIT, OURS, Entry
from benchmarks.speed.correctness import judge
from benchmarks.speed.field import Field, Setup, references
from benchmarks.speed.measure import Outcome, Told, Trials, measure, sample
from benchmarks.speed.processes import ContestantError, Process, has_modules
from f2rag.models import VOCABULARY_SIZE, resolve
from f2rag.prompts import DEFAULT_INSTRUCTION, query_prefix
from f2rag.testing import write_checkpoint

TOY = """
import os, time
import numpy as np
from benchmarks.speed.contestants import Made

def vectors(texts):
    return [np.eye(4, dtype=np.float32)[len(text) % 4] for text in texts]

def good(*, slow=0.0, **_):
    def documents(texts, size):
        time.sleep(slow)
        return vectors(texts)
    return Made(documents=documents, queries=documents, facts={"dtype": "float32"})

def compiling(**_):
    calls = []
    def documents(texts, size):
        calls.append(len(texts))
        time.sleep(0.4 if calls.count(len(texts)) == 1 else 0.0)
        return vectors(texts)
    return Made(documents=documents, queries=documents, facts={"dtype": "float32"})

def wrong(**_):
    def documents(texts, size):
        return vectors([text + "." for text in texts])
    return Made(documents=documents, queries=documents, facts={"dtype": "float32"})

def crashing(**_):
    def documents(texts, size):
        if len(texts) > 1:
            print("about to fall", flush=True)
            os._exit(7)
        return vectors(texts)
    return Made(documents=documents, queries=documents, facts={"dtype": "float32"})

def failing(**_):
    raise RuntimeError("no such kernel")

def idle(**_):
    return Made(
        documents=lambda texts, _: time.sleep(0.001),
        queries=None,
        facts={"dtype": "float32", "square_flops_per_second": 1e9},
        prepare=lambda lengths: {"lengths": len(lengths)},
    )
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), model="80M", scale=8, dtype="bfloat16")


@pytest.fixture(scope="module")
def tokenizer_file(tiny):
    return tiny / "tokenizer.json"


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Contestants of all kinds, in a module that workers can import."""
    (tmp_path / "toys_of_the_benchmark.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def entry(function, *, key=None, **changes):
        made = Entry(key=key or function, label=function, maker=f"toys_of_the_benchmark:{function}", needs=(), get="")
        return dataclasses.replace(made, **changes)

    return entry


def setup_for(entries, *, folder, rounds=2):
    return Setup(
        folder=Path(folder),
        device="cpu",
        max_length=workloads.MAXIMUM,
        query_prefix=query_prefix(DEFAULT_INSTRUCTION),
        pythons={entry.key: sys.executable for entry in entries},
        rounds=rounds,
        patience=60,
    )


class TestWorkloads:
    @pytest.mark.parametrize("key", workloads.PLANS)
    def test_the_same_seed_gives_the_same_texts_and_fewer_are_the_first_of_more(self, key, tokenizer_file):
        more = workloads.make_workload(key, tokenizer_file, count=30, seed=3)
        fewer = workloads.make_workload(key, tokenizer_file, count=20, seed=3)
        assert fewer == more.first(20)
        assert more.texts != workloads.make_workload(key, tokenizer_file, count=30, seed=4).texts
        assert all(text == text.strip() and text for text in more.texts)

    @pytest.mark.parametrize(
        ("key", "least", "most", "median"), [("P", 28, 515, 185), ("M", 4, 2044, 300), ("D", 2030, 2044, 2040)]
    )
    def test_lengths_are_as_planned(self, key, least, most, median, tokenizer_file):
        made = workloads.make_workload(key, tokenizer_file, count=40, seed=0)
        assert min(made.lengths) >= least
        assert max(made.lengths) <= most
        assert np.median(made.lengths) == pytest.approx(median, rel=0.1)
        assert max(made.lengths) <= workloads.MAXIMUM

    def test_any_number_of_texts_is_spread_over_all_lengths(self):
        few, many = (
            workloads.lognormal_lengths(n, median=300, sigma=1.1, least=8, most=2040, seed=1) for n in (16, 2000)
        )
        for share in (0.25, 0.5, 0.75):
            assert np.quantile(few, share) == pytest.approx(np.quantile(many, share), rel=0.2)
        assert max(few) > 1000

    def test_query_lengths_count_the_instruction_and_the_end(self, tokenizer_file):
        made = workloads.make_workload("Q", tokenizer_file, count=8, seed=0)
        prefix = len(query_prefix(DEFAULT_INSTRUCTION).encode())
        assert made.role == "query"
        # The tiny tokenizer has one token for each byte, after NFC.
        import unicodedata

        expected = [prefix + len(unicodedata.normalize("NFC", text).encode()) + 1 for text in made.texts]
        assert made.lengths == expected

    def test_one_in_five_texts_is_a_duplicate_and_counts_once_where_it_matters(self, tokenizer_file):
        made = workloads.make_workload("U", tokenizer_file, count=100, seed=0)
        assert len(set(made.texts)) == 80
        assert len(made.distinct_lengths()) == 80
        assert sum(made.distinct_lengths()) < made.tokens

    def test_headed_texts_share_their_beginning_and_slices_hold_many_scripts_and_code(self, tokenizer_file):
        headed = workloads.make_workload("H", tokenizer_file, count=10, seed=0)
        assert all(text.startswith(workloads.HEADER) for text in headed.texts)
        texts = workloads.make_workload("L", tokenizer_file, count=40, seed=0).texts
        joined = "".join(texts)
        for low, high in (("\u4e00", "\u9fff"), ("\u0600", "\u06ff"), ("\uac00", "\ud7a3")):
            assert any(low <= letter <= high for letter in joined)
        assert 5 <= sum("def " in text for text in texts) <= 15

    def test_up_to_takes_what_fits_but_never_fewer_than_the_floor(self):
        made = workloads.Workload("P", "", "document", list("abcd"), [10, 20, 30, 40])
        assert made.up_to(60, least=1).lengths == [10, 20, 30]
        assert made.up_to(59, least=1).lengths == [10, 20]
        assert made.up_to(0, least=3).lengths == [10, 20, 30]


class TestRatios:
    def test_rounds_are_drawn_as_pairs(self):
        """A machine that slows down in some rounds slows both: the ratio is exactly three in every draw."""
        ours = [1.0, 5.0, 2.0, 9.0, 1.5]
        found = Outcome(key="peer", label="", seconds=[3 * value for value in ours], against=ours).ratio
        assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))

    def test_the_interval_holds_the_known_ratio_and_shrinks_with_more_rounds(self):
        generator = np.random.default_rng(0)
        widths = []
        for rounds in (5, 200):
            ours = generator.lognormal(0, 0.1, rounds)
            peer = 2 * ours * generator.lognormal(0, 0.1, rounds)
            found = ratio_of_medians(peer.tolist(), ours.tolist())
            assert found.low < 2 < found.high
            widths.append(found.high - found.low)
        assert widths[1] < widths[0] / 2


class TestCorrectness:
    exact = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)

    def near(self, angle, seed=1):
        noise = np.random.default_rng(seed).standard_normal(self.exact.shape)
        return (self.exact + angle * noise).astype(np.float32)

    def references(self, bfloat16=0.01, int8=0.05):
        return {"float32": self.exact, "bfloat16": self.near(bfloat16, 2), "int8": self.near(int8, 3)}

    def test_what_the_dtype_explains_counts_and_what_it_does_not_does_not(self):
        known = self.references()
        assert judge(3 * self.exact, known, dtype="float32").right  # the length is no matter of direction
        assert not judge(self.near(0.03), known, dtype="float32").right
        assert judge(self.near(0.01), known, dtype="bfloat16").right
        assert not judge(self.near(0.1), known, dtype="bfloat16").right
        assert judge(self.near(0.05), known, dtype="q8_0").right

    def test_the_stock_model_in_the_same_dtype_is_the_yardstick_where_weights_amplify_rounding(self):
        vectors = self.near(0.08)
        assert not judge(vectors, self.references(bfloat16=0.01), dtype="bfloat16").right
        assert judge(vectors, self.references(bfloat16=0.08), dtype="bfloat16").right

    @pytest.mark.parametrize("spoil", ["nan", "swapped", "narrow"])
    def test_one_wrong_vector_is_enough(self, spoil):
        vectors = self.exact.copy()
        if spoil == "nan":
            vectors[3, 5] = np.nan
        elif spoil == "swapped":
            vectors[[0, 1]] = vectors[[1, 0]]
        else:
            vectors = vectors[:, :32]
        assert not judge(vectors, self.references(), dtype="bfloat16").right

    def test_one_text_too_far_off_among_many_is_enough(self):
        exact = np.tile(self.exact, (50, 1))
        vectors = exact.copy()
        vectors[7] += 0.1 * np.random.default_rng(4).standard_normal(64).astype(np.float32)
        found = judge(vectors, dict.fromkeys(correctness.YARDSTICKS, exact), dtype="bfloat16")
        assert found.mean > 0.9999
        assert not found.right

    def test_compared_texts_go_from_the_shortest_to_the_longest(self):
        lengths = [50, 3, 900, 20, 7, 400]
        rows = correctness.sample_rows(lengths, count=3)
        assert {1, 2} <= set(rows)
        assert len(correctness.sample_rows(lengths, count=100)) == len(lengths)

    def test_eight_bits_change_matrices_a_little_and_nothing_else(self):
        import torch

        model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.LayerNorm(8))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        correctness.round_to_int8(model)
        step = before["0.weight"].abs().amax(dim=1, keepdim=True) / 127
        change = (model[0].weight - before["0.weight"]).abs()
        assert (change <= step / 2 + 1e-7).all()
        assert change.max() > 0
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items() if name != "0.weight")


class TestReference:
    def test_stock_transformers_and_f2rag_agree_and_other_texts_do_not(self, tiny, tokenizer_file):
        """The gate must let f2rag through on the tiny shape, and stop vectors of other texts."""
        made = workloads.make_workload("Q", tokenizer_file, count=6, seed=0)
        ours = next(entry for entry in ENTRIES if entry.key == OURS)
        setup = setup_for([ours], folder=tiny)
        known = references(setup, [made], sys.executable)[made.key]
        assert set(known) == set(correctness.YARDSTICKS)
        with Field(setup) as field:
            name = field.start(ours, {"dtype": "float32"})
            answer = field.embed(name, made, None, rows=range(6))
            assert field.facts(name)["dtype"] == "float32"
            assert field.facts(name)["first_vector_seconds"] > 0
        assert judge(answer.vectors, known, dtype="float32").right
        assert not judge(np.roll(answer.vectors, 1, axis=0), known, dtype="float32").right
        assert answer.said["seconds"] > 0
        assert answer.said["peak_bytes"] > 2**20


class TestWorkers:
    def made(self):
        texts = [letter * length for letter, length in zip("abcdefgh", range(1, 9), strict=True)]
        return workloads.Workload("P", "toys", "document", [*texts, texts[3]], [*range(1, 9), 4])

    def known(self, made):
        exact = np.stack([np.eye(4, dtype=np.float32)[len(text) % 4] for text in sample(made).texts])
        return dict.fromkeys(correctness.YARDSTICKS, exact)

    def race(self, entries, tmp_path):
        made = self.made()
        with Field(setup_for(entries, folder=tmp_path, rounds=3)) as field:
            found = measure(
                field,
                entries,
                made,
                trials=Trials(our_dtype="float32", our_variant={}),
                trial=made.first(2),
                references=self.known(made),
                told=Told(),
            )
        return {outcome.key: outcome for outcome in found}

    def test_who_is_wrong_fails_or_crashes_gets_no_time_and_the_others_go_on(self, toys, tmp_path):
        entries = [
            toys("good", key=OURS, ours=True),
            toys("wrong"),
            toys("crashing"),
            toys("failing"),
            toys("good", key="slow", variants=({"slow": 0.05},)),
            toys("idle", key=LIMIT),
        ]
        found = self.race(entries, tmp_path)
        assert len(found[OURS].seconds) == 3
        assert found["slow"].ratio.low > 10
        assert found["slow"].against == found[OURS].seconds
        assert len(found[LIMIT].seconds) == 3
        assert found[LIMIT].facts["lengths"] == 8  # of nine texts one is a duplicate, which nobody has to compute
        for key in ("wrong", "crashing", "failing"):
            assert found[key].seconds == []
            assert found[key].against == []
        assert "wrong vectors" in found["wrong"].problem
        assert "code 7" in found["crashing"].problem
        assert "about to fall" in found["crashing"].problem
        assert "no such kernel" in found["failing"].problem

    def test_the_fastest_variant_takes_part(self, toys, tmp_path):
        entries = [
            toys("good", key=OURS, ours=True),
            toys("good", key="tuned", variants=({"slow": 0.05}, {"slow": 0.0}), batch_sizes=(8, 32)),
        ]
        found = self.race(entries, tmp_path)
        assert found["tuned"].choice.variant == {"slow": 0.0}
        assert found["tuned"].choice.batch_size == 8  # 32 is the same batch: all texts of the trial fit into 8

    def test_without_times_of_f2rag_nobody_has_a_ratio(self, toys, tmp_path):
        found = self.race([toys("failing", key=OURS, ours=True), toys("good")], tmp_path)
        assert found["good"].seconds == []
        assert "no such kernel" in found["good"].problem

    def test_what_first_calls_cost_more_is_reported_apart(self, toys, tmp_path):
        found = self.race([toys("good", key=OURS, ours=True), toys("compiling", variants=({}, {}))], tmp_path)
        assert max(found["compiling"].seconds) < 0.2
        assert report._extra(found["compiling"]) > 0.3

    def test_single_queries_of_concurrent_callers_are_all_timed(self, toys, tmp_path):
        entries = [toys("good", key=OURS, ours=True), toys("good", key="slow", variants=({"slow": 0.02},))]
        entries.append(toys("failing"))
        made = dataclasses.replace(self.made(), key="Q", role="query")
        with_rounds = setup_for(entries, folder=tmp_path, rounds=2)
        trials = Trials(our_dtype="float32", our_variant={})
        found = latency.measure_latency(with_rounds, entries, made, per_round=16, trials=trials, told=Told())
        assert {(one.key, one.callers) for one in found} == {(k, c) for k in (OURS, "slow") for c in latency.CALLERS}
        assert all([len(each) for each in one.milliseconds] == [16, 16] for one in found)
        rows = {(row["key"], row["callers"]): row for row in latency.rows(found)}
        assert rows["slow", 1]["p50_ms"] >= 20
        assert rows["slow", 1]["p50_ratio"][0] > 2
        # Callers wait at the same time: eight of them are served much faster than one after the other.
        assert rows["slow", 8]["queries_per_second"] > 2 * rows["slow", 1]["queries_per_second"]

    def test_an_answer_that_never_comes_ends_the_process(self, toys, tmp_path):
        entry = toys("good", variants=({"slow": 30},))
        process = Process(sys.executable, patience=4)
        try:
            with pytest.raises(ContestantError, match="no answer within 4 s"):
                process.ask("make", maker=entry.maker, settings={"slow": 30}, first="a")
            assert not process.is_alive
        finally:
            process.close()

    def test_modules_of_another_python(self):
        assert has_modules(sys.executable, ["json", "no_such_module", "no.such"]) == {"json"}
        assert has_modules("/no/such/python", ["json"]) == set()

    def test_who_lacks_a_package_is_skipped_with_the_way_to_get_it(self, monkeypatch):
        lacking = Entry(key="x", label="X", maker="a:b", needs=("json", "no_such_module"), get="pip install x")
        monkeypatch.setattr(run, "ENTRIES", (*ENTRIES, lacking))
        taking, pythons, skipped = run.participants(["x"], [sys.executable], device="cpu", avx2=False)
        assert [entry.key for entry in taking] == [OURS, LIMIT]
        assert set(pythons) == {OURS, LIMIT}
        assert (skipped[0].key, skipped[0].reason, skipped[0].get) == ("x", "lacks no_such_module", "pip install x")


class TestLimit:
    @pytest.mark.parametrize("size", ["80M", "0.6B", "14B"])
    def test_weights_are_all_but_embeddings_and_norms(self, size, tmp_path):
        spec = resolve(size).spec
        shape = limit.Shape(
            hidden=spec.hidden_size,
            inner=spec.intermediate_size,
            queries=spec.attention_heads * spec.head_dim,
            keys=spec.key_value_heads * spec.head_dim,
            head=spec.head_dim,
            layers=spec.layers,
        )
        norms = spec.layers * (2 * spec.hidden_size + 2 * spec.head_dim) + spec.hidden_size
        assert shape.layers * shape.layer_weights == spec.parameters - VOCABULARY_SIZE * spec.hidden_size - norms

    def test_operations_are_those_of_the_stock_model_but_for_the_spared_last_layer(self, tiny):
        """Counted by torch in transformers' own forward; its attention computes the whole square, not the half."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode
        from transformers import AutoModel

        model = AutoModel.from_pretrained(tiny, dtype=torch.float32, attn_implementation="eager").eval()
        shape, length = limit.Shape.read(tiny), 48
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(input_ids=torch.ones(1, length, dtype=torch.long), use_cache=False)
        squares = 2 * 2 * shape.queries * length**2
        rotary = counter.get_total_flops() - 2 * shape.layers * shape.layer_weights * length - shape.layers * squares
        assert 0 <= rotary <= 2 * shape.head * length
        spared = 2 * shape.hidden * (2 * shape.queries + 3 * shape.inner) * (length - 1)
        last = squares // 2 - 4 * shape.queries * length  # one query instead of half the square
        expected = 2 * shape.layers * shape.layer_weights * length + shape.layers * squares // 2 - spared - last
        assert shape.flops([length]) == expected

    def test_what_runs_is_what_is_counted(self, tiny):
        """The products that the limit calls, counted by torch, are the formula's; whichever way was the fastest."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        machine = limit.Machine(limit.Shape.read(tiny), device="cpu", dtype="float32")
        lengths = [5, 300, 17, 1200, 700]
        machine.prepare(lengths)
        for fused in (True, False):
            machine._linear, machine._fused = torch.nn.functional.linear, fused
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                machine._run_products()
            expected = machine.shape.product_flops(tokens=sum(lengths), texts=len(lengths))
            assert counter.get_total_flops() == expected
        assert machine.run() == []

    def test_every_way_to_multiply_gives_the_same_product(self):
        import torch

        generator = torch.Generator().manual_seed(0)
        inputs, weight = (torch.randn(size, generator=generator) for size in ((20, 64), (48, 64)))
        ways = list(limit.linears("cpu"))
        assert len(ways) == (3 if torch.backends.mkldnn.is_available() else 2)
        for linear in ways:
            with torch.inference_mode():
                assert torch.allclose(linear(inputs, weight), inputs @ weight.T, atol=1e-4)
                # A part of a fused matrix begins where the whole does, and is another matrix.
                assert torch.allclose(linear(inputs, weight[:16]), inputs @ weight[:16].T, atol=1e-4)

    def test_padded_batches_hold_every_text_once_within_the_budget(self):
        lengths = [3, 900, 40, 41, 2100, 39]
        found = list(limit.padded_batches(lengths, budget=2048))
        assert sum(rows for rows, _ in found) == len(lengths)
        assert all(rows == 1 or rows * tokens <= 2048 for rows, tokens in found)
        assert found[0] == (1, 2100)


class TestRun:
    def test_heats_hold_everyone_once_and_f2rag_and_the_limit_always(self):
        parameters = 80_000_000
        for free, expected in ((int(1e12), 1), (int(8e9), 5), (0, len(ENTRIES) - 2)):
            groups = run.heats(ENTRIES, parameters=parameters, free=free, device="cpu")
            assert len(groups) >= expected if free else len(groups) == expected
            assert all((group[0].key, group[-1].key) == (OURS, LIMIT) for group in groups)
            others = [entry.key for group in groups for entry in group[1:-1]]
            assert sorted(others) == sorted(entry.key for entry in ENTRIES if entry.key not in (OURS, LIMIT))

    def test_fewer_texts_fit_a_slower_machine_and_the_floor_stays(self):
        made = workloads.Workload("P", "", "document", [str(n) for n in range(100)], [100] * 100)
        entries = [entry for entry in ENTRIES if entry.key in (OURS, LIMIT)]
        speeds = {OURS: 1000.0, LIMIT: 1000.0}
        fits = run.cut(made, entries, speeds, rounds=4, seconds=50, thorough=False)
        assert len(fits.texts) == 50  # 5 runs x 2 contestants x 50 texts x 100 tokens / 1000 per second
        assert run.predicted(fits, entries, speeds, rounds=4, thorough=False) == pytest.approx(50)
        slow = {key: speed / 1000 for key, speed in speeds.items()}
        floor = run.cut(made, entries, slow, rounds=4, seconds=50, thorough=False)
        assert len(floor.texts) == workloads.PLANS["P"].floor

    def test_rounds_of_several_heats_are_kept_together_for_who_ran_in_all(self):
        ours = [Outcome(key=OURS, label="", seconds=[1.0, 2.0], against=[1.0, 2.0], peak_bytes=n) for n in (5, 9)]
        peer = Outcome(key="peer", label="", seconds=[2.0, 4.0], against=[1.0, 2.0])
        found = {each.key: each for each in run.merged([ours[0], peer, ours[1]])}
        assert found[OURS].seconds == [1.0, 2.0, 1.0, 2.0]
        assert found[OURS].against == found[OURS].seconds
        assert found[OURS].peak_bytes == 9
        assert found["peer"].seconds == [2.0, 4.0]


class TestReport:
    def run(self, *, flags=("avx512_bf16",), masked=False, limit_seconds=0.25):
        shape = limit.Shape(hidden=8, inner=16, queries=16, keys=8, head=4, layers=2)
        made = workloads.Workload("P", "passages", "document", ["a", "b"], [30, 20])
        verdict = correctness.Verdict(right=True, lowest=0.9999, mean=0.99999, allowed=0.999)

        def outcome(key, seconds, **changes):
            facts = {"dtype": "float32", "square_flops_per_second": 1e9}
            return Outcome(
                key=key,
                label=key,
                seconds=[seconds] * 3,
                against=[1.0] * 3,
                peak_bytes=2**30,
                facts=facts,
                verdict=verdict,
                **changes,
            )

        measured = run.Measured(
            workload=made,
            outcomes=[
                outcome(OURS, 1.0),
                outcome("langchain-huggingface", 12.0),
                outcome("st-tuned", 4.0),
                outcome("onnx-fp32", 0.8),
                Outcome(key="llama-cpp-q8_0", label="llama.cpp", problem="wrong vectors | 0.3"),
                outcome(LIMIT, limit_seconds),
            ],
            load=[0.0],
            tokenizer_seconds=0.4,
        )
        return {
            "device": "cpu",
            "avx2": masked,
            "shrunk": False,
            "machine": {"flags": list(flags), "quiet_share": 0.1, "load_before": {"others": 0.02}},
            "sizes": [report.size_content("80M", shape, [measured])],
        }

    def test_aims_are_met_or_missed_by_the_measured_ratios(self):
        found = {aim["what"]: aim for aim in aims.judged(self.run())}
        assert found["times as fast as langchain-huggingface, default"]["met"]
        tuned = found["times as fast as sentence-transformers, best tuned"]
        assert (tuned["value"], tuned["bound"], tuned["met"]) == (4.0, 5, False)
        engines = found["times as fast as the fastest of OpenVINO, ONNX and llama.cpp at equal precision"]
        assert (engines["value"], engines["met"]) == (0.8, False)
        assert all(aim["applies"] for aim in found.values())
        masked = list(aims.judged(self.run(masked=True)))
        assert [(aim["bound"], aim["met"]) for aim in masked] == [(1.5, True)]
        assert not any(aim["applies"] for aim in aims.judged(self.run(flags=("avx2",))))

    @pytest.mark.parametrize(
        ("limit_seconds", "reach", "why"),
        [(0.25, 16.0, "takes 31% of the limit"), (0.9, 4.444, "out of reach here")],
    )
    def test_a_missed_aim_says_what_share_of_the_limit_it_takes(self, limit_seconds, reach, why, tmp_path):
        measured = self.run(limit_seconds=limit_seconds)
        tuned = next(aim for aim in aims.judged(measured) if "best tuned" in aim["what"])
        assert tuned["at_limit"] == reach
        report.store("speed", "Texts, CPU", measured, [], folder=tmp_path)
        row = next(line for line in (tmp_path / "speed.md").read_text().splitlines() if "best tuned" in line)
        assert row.endswith(f"| missed by 20%; {why} |")

    @pytest.mark.parametrize(("limit_seconds", "said"), [(0.9, False), (1.2, True)])
    def test_a_share_above_the_whole_is_explained(self, limit_seconds, said, tmp_path):
        report.store("speed", "Texts, CPU", self.run(limit_seconds=limit_seconds), [], folder=tmp_path)
        assert ("It can be more than all of it" in (tmp_path / "speed.md").read_text()) == said

    def test_the_larger_of_products_and_tokenizer_is_the_limit(self):
        workload = self.run()["sizes"][0]["workloads"][0]
        assert workload["limited_by"] == "the tokenizer"
        assert workload["limit_share"] == [0.4, 0.4, 0.4]
        assert workload["rows"][0]["tokens_per_second"] == 50

    @pytest.mark.parametrize(
        ("title", "shown"),
        [
            ("documents of 2,040 tokens each", "documents of 2,040 tokens each"),
            ("mixed, lognormal, median 300, up to 2,040 tokens", "mixed, lognormal, median 300"),
            ("a title without any comma that is far too long for a panel", None),
        ],
    )
    def test_a_panel_shows_as_much_of_a_title_as_fits(self, title, shown):
        assert plot._first_parts({"title": title}) == (shown or title)

    def test_a_run_replaces_its_own_kind_only_and_the_page_says_who_has_no_time(self, tmp_path):
        skipped = [run.Skipped(key="x", label="X", reason="lacks y", get="pip install y")]
        report.store("speed", "Texts, CPU", self.run(), skipped, folder=tmp_path)
        report.store("speed", "Texts, AVX2 only", self.run(masked=True), [], folder=tmp_path)
        content = report.store("speed", "Texts, CPU", self.run(), skipped, folder=tmp_path)
        assert list(content["runs"]) == ["Texts, CPU", "Texts, AVX2 only"]
        assert json.loads((tmp_path / "speed.json").read_text())["runs"].keys() == content["runs"].keys()
        page = (tmp_path / "speed.md").read_text()
        assert "no time: wrong vectors / 0.3" in page
        assert "X: lacks y; `pip install y`" in page
        assert "missed by 20%" in page
        assert plot.draw(content, tmp_path / "speed.png")
        assert (tmp_path / "speed.png").stat().st_size > 10_000


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs the gguf package (make bench-peers)")
class TestGguf:
    def test_every_tensor_has_llama_cpps_name_and_keeps_its_numbers(self, tiny, tmp_path):
        import gguf
        from safetensors.torch import load_file

        stored = load_file(tiny / "model.safetensors")
        config = json.loads((tiny / "config.json").read_text())
        named = dict(gguf_file.named_tensors(tiny, layers=config["num_hidden_layers"]))
        assert len(named) == len(stored)
        pairs = {
            "token_embd.weight": "embed_tokens.weight",
            "blk.1.attn_q.weight": "layers.1.self_attn.q_proj.weight",
            "blk.0.attn_k_norm.weight": "layers.0.self_attn.k_norm.weight",
            "blk.0.attn_output.weight": "layers.0.self_attn.o_proj.weight",
            "blk.2.ffn_norm.weight": "layers.2.post_attention_layernorm.weight",
            "blk.2.ffn_gate.weight": "layers.2.mlp.gate_proj.weight",
            "output_norm.weight": "norm.weight",
        }
        for theirs, ours in pairs.items():
            assert np.array_equal(named[theirs], stored[ours].float().numpy())
        file = gguf_file.write_gguf(tiny, tmp_path / "tiny.gguf", precision="bfloat16")
        reader = gguf.GGUFReader(file)
        shapes = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
        assert shapes == {name: values.shape for name, values in named.items()}
        field = reader.fields["tokenizer.ggml.eos_token_id"]
        tokenizer = json.loads((tiny / "tokenizer.json").read_text())
        end = next(each["id"] for each in tokenizer["added_tokens"] if each["content"] == gguf_file.END_OF_TEXT)
        assert int(field.parts[field.data[0]][0]) == end
