"""Layouts, modes and plans: what is refused, what is chosen, and the stages that a mode becomes."""

from __future__ import annotations

import numpy as np
import pytest

from f2rag.errors import InputError
from f2rag.store.layout import FULL, Layout, Lexical
from f2rag.store.modes import Diverse, Exact, Funnel, Hnsw, Hybrid, Prefix, Quantized, mode_name, mode_of
from f2rag.store.offers import first_pass_bytes, offered_modes
from f2rag.store.planning import EXACT_BELOW, plan_layout, plan_mode, stages_of
from f2rag.store.stages import Fused, Nearest, SparseVector

VECTOR = np.arange(1, 65, dtype=np.float32)
WORDS = SparseVector([3, 5], [1.0, 1.0])
EVERYTHING = Layout(levels=(16, 32), lexical=Lexical())


def stages(mode, layout, *, limit=10, words=None, dense=None):
    return stages_of(mode, vector=VECTOR, words=words, limit=limit, layout=layout, dense=dense or Exact())


class TestLayout:
    def test_levels_are_ascending(self):
        layout = Layout(levels=(32, 8))
        assert (layout.levels, layout.graph) == ((8, 32), "mrl8")
        assert layout.vectors == ("", "mrl8", "mrl32")
        assert Layout().graph == FULL

    @pytest.mark.parametrize("levels", [(0,), (-1,), (True,), (1.5,), ("8",), (8, 8)], ids=str)
    def test_impossible_levels(self, levels):
        with pytest.raises(InputError, match="levels="):
            Layout(levels=levels)

    def test_a_level_is_a_true_prefix(self):
        assert Layout(levels=(31,)).check(32).levels == (31,)
        with pytest.raises(InputError, match="no prefix of 32-dimensional"):
            Layout(levels=(32,)).check(32)

    @pytest.mark.parametrize(
        "options",
        [
            {"quantization": "int4"},
            {"fields": {"year": "number"}},
            {"fields": {"metadata.year": "integer"}},
            {"fields": {"": "integer"}},
        ],
        ids=str,
    )
    def test_impossible_options(self, options):
        with pytest.raises(InputError, match=r"give one of|write it bare"):
            Layout(**options)

    @pytest.mark.parametrize("options", [{"tokenizer": "x"}, {"k": -1}, {"b": 2}, {"average_length": 0}], ids=str)
    def test_impossible_words(self, options):
        with pytest.raises(InputError, match=r"unknown|expected"):
            Lexical(**options)

    def test_it_survives_its_dictionary(self):
        layout = Layout(levels=(8,), quantization="binary", lexical=Lexical(b=0.5), fields={"year": "integer"})
        assert Layout.from_dict(layout.to_dict()) == layout
        assert Layout.from_dict({}) == Layout()
        assert layout.differences(Layout())["levels"] == ([8], [])
        assert layout.indexes["metadata.year"] == "integer"


class TestModes:
    @pytest.mark.parametrize("name", ["exact", "hnsw", "quantized", "funnel", "prefix", "hybrid", "diverse"])
    def test_names(self, name):
        assert mode_name(mode_of(name)) == name
        assert mode_of(mode_of(name)) == mode_of(name)

    def test_auto_is_no_mode_of_its_own(self):
        assert mode_of("auto") is None

    @pytest.mark.parametrize("mode", ["fast", "", None, 5, Exact], ids=str)
    def test_others_are_refused_with_the_names(self, mode):
        with pytest.raises(InputError, match="unknown; give one of auto, exact"):
            mode_of(mode)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Hnsw(ef=0), "ef=0"),
            (lambda: Quantized(oversampling=0.5), "oversampling=0.5"),
            (lambda: Funnel(stages=((16,),)), "pairs"),
            (lambda: Funnel(stages=((16, 0),)), "candidates=0"),
            (lambda: Funnel(stages=((32, 10), (16, 5))), "ascending"),
            (lambda: Funnel(stages=((16, 5), (32, 10))), "none passing on more"),
            (lambda: Prefix(0), "level=0"),
            (lambda: Prefix(16.0), r"level=16\.0"),
            (lambda: Prefix(exact="no"), "exact='no'"),
            (lambda: Hybrid(constant=0), "constant=0"),
            (lambda: Hybrid(weights=(0, 0)), "weights="),
            (lambda: Hybrid(weights=(1, -1)), "weights="),
            (lambda: Diverse(diversity=2), "diversity=2"),
        ],
        ids=[
            *("ef", "oversampling", "pair", "none", "order", "more", "level", "float", "exactly"),
            *("constant", "zero", "negative", "diversity"),
        ],
    )
    def test_impossible_options(self, make, message):
        with pytest.raises(InputError, match=message):
            make()

    def test_every_mode_says_its_cost_first(self):
        for mode in (Exact, Hnsw, Quantized, Funnel, Prefix, Hybrid, Diverse):
            first, _, _ = mode.__doc__.partition("\n")
            assert len(first) > 60, mode


class TestPlans:
    @pytest.mark.parametrize(
        ("layout", "points", "home", "kind"),
        [
            (Layout(), EXACT_BELOW - 1, "edge", Exact),
            (Layout(), EXACT_BELOW, "edge", Hnsw),
            (Layout(quantization="int8"), EXACT_BELOW, "server", Quantized),
            (Layout(levels=(16,)), EXACT_BELOW, "server", Funnel),
            (Layout(levels=(16,), quantization="int8"), EXACT_BELOW, "edge", Funnel),
            (Layout(levels=(16,)), 10**6, "memory", Exact),
            (Layout(lexical=Lexical()), 10**6, "server", Hnsw),
        ],
    )
    def test_the_mode_follows_size_layout_and_home(self, layout, points, home, kind):
        plan = plan_mode(layout, points=points, home=home)
        assert isinstance(plan.mode, kind)
        assert len(plan.reason) > 20

    @pytest.mark.parametrize(
        ("dimensions", "home", "levels"),
        [
            (320, "edge", ()),
            (512, "edge", (128,)),
            (1024, "server", (128,)),
            (2560, "server", (256,)),
            (5120, "edge", (512,)),
            (5120, "memory", ()),
        ],
    )
    def test_wide_vectors_get_a_level(self, dimensions, home, levels):
        layout, reason = plan_layout(dimensions=dimensions, home=home)
        assert layout == Layout(levels=levels)
        assert reason


class TestStages:
    def test_exact_and_hnsw(self):
        assert stages(Exact(), Layout()).exact is True
        walk = stages(Hnsw(ef=64), Layout(quantization="int8"))
        assert (walk.exact, walk.ef, walk.uncompressed, walk.rescore) == (False, 64, True, None)

    def test_quantised_is_explicit_about_rescoring(self):
        stage = stages(Quantized(oversampling=4.0), Layout(quantization="int8"))
        assert (stage.rescore, stage.oversampling, stage.using) == (True, 4.0, FULL)

    def test_a_funnel_takes_every_level_and_ends_at_full_width(self):
        last = stages(Funnel(), EVERYTHING)
        middle, first = last.prefetch, last.prefetch.prefetch
        assert [(each.using, each.limit, len(each.vector)) for each in (first, middle, last)] == [
            ("mrl16", 400, 16),
            ("mrl32", 100, 32),
            ("", 10, 64),
        ]
        assert first.prefetch is None
        assert stages(Funnel(), EVERYTHING, limit=50).prefetch.limit == 500

    def test_a_funnel_of_ones_own(self):
        last = stages(Funnel(stages=((32, 7),), ef=9), EVERYTHING, limit=20)
        assert (last.prefetch.using, last.prefetch.limit, last.prefetch.ef) == ("mrl32", 20, 9)

    def test_compressed_levels_are_rescored_in_the_first_stage_only(self):
        last = stages(Funnel(), Layout(levels=(16, 32), quantization="int8"))
        assert (last.rescore, last.prefetch.rescore, last.prefetch.prefetch.rescore) == (None, None, True)

    @pytest.mark.parametrize("mode", [Hnsw(), Quantized()], ids=["hnsw", "quantized"])
    def test_without_a_graph_over_the_full_vectors(self, mode):
        with pytest.raises(InputError, match="Use the mode 'funnel', 'prefix' or 'exact'"):
            stages(mode, EVERYTHING)

    @pytest.mark.parametrize(
        ("mode", "message"),
        [
            (Quantized(), "needs compressed vectors"),
            (Funnel(), "needs stored levels"),
            (Prefix(), "needs stored levels"),
            (Hybrid(), "needs the words of the documents"),
        ],
        ids=["quantized", "funnel", "prefix", "hybrid"],
    )
    def test_what_is_not_stored_is_refused_with_the_layout_that_has_it(self, mode, message):
        with pytest.raises(InputError, match=rf"{message}(?s:.*)Layout\("):
            stages(mode, Layout())

    def test_a_level_that_is_not_stored(self):
        with pytest.raises(InputError, match=r"\[8\] are not stored here; this collection has \[16, 32\]"):
            stages(Funnel(stages=((8, 100),)), EVERYTHING)

    def test_a_prefix_is_one_stage_over_the_longest_level_or_the_one_that_is_asked_for(self):
        for mode, level in [(Prefix(), 32), (Prefix(16), 16), (Prefix(level=32), 32)]:
            stage = stages(mode, EVERYTHING, limit=7)
            assert (stage.using, len(stage.vector), stage.limit, stage.prefetch) == (f"mrl{level}", level, 7, None)
            assert (stage.exact, stage.rescore, stage.oversampling) == (False, None, None)

    def test_a_compressed_prefix_is_rescored_unless_the_originals_are_compared_anyway(self):
        layout = Layout(levels=(16,), quantization="binary")
        assert (stages(Prefix(), layout).rescore, stages(Prefix(), layout).oversampling) == (True, 2.0)
        exact = stages(Prefix(exact=True), layout)
        assert (exact.exact, exact.rescore, exact.oversampling) == (True, None, None)

    def test_a_prefix_that_is_not_stored_is_refused_with_the_layout_that_has_it(self):
        with pytest.raises(InputError, match=r"level 8 is not stored here.*\[16, 32\].*levels=\(8, 16, 32\)"):
            stages(Prefix(8), EVERYTHING)
        with pytest.raises(InputError, match=r"Layout\(levels=\(8,\)\)"):
            stages(Prefix(8), Layout())

    def test_hybrid_joins_a_prefix_with_the_words(self):
        dense, _ = stages(Hybrid(dense=Prefix(16)), EVERYTHING, words=WORDS).searches
        assert (dense.using, dense.limit, dense.prefetch) == ("mrl16", 100, None)

    def test_hybrid_joins_the_planned_dense_search_with_the_words(self):
        fused = stages(Hybrid(), EVERYTHING, words=WORDS, dense=Funnel())
        assert isinstance(fused, Fused)
        dense, words = fused.searches
        assert (dense.prefetch.using, dense.limit) == ("mrl32", 100)
        assert (words.using, words.limit, words.vector) == ("bm25", 100, WORDS)
        assert (fused.constant, fused.weights, fused.limit) == (60, None, 10)
        assert stages(Hybrid(weights=(2, 1)), EVERYTHING, words=WORDS).weights == (2, 1)

    def test_hybrid_without_a_word_to_look_up(self):
        fused = stages(Hybrid(weights=(2, 1)), EVERYTHING, words=SparseVector([], []))
        assert (len(fused.searches), fused.weights) == (1, None)
        with pytest.raises(InputError, match="the query's text"):
            stages(Hybrid(), EVERYTHING)

    def test_diverse_chooses_from_what_a_funnel_finds(self):
        plain = stages(Diverse(diversity=0.3), Layout())
        assert (plain.diversity, plain.candidates, plain.prefetch) == (0.3, 100, None)
        over_levels = stages(Diverse(candidates=40), EVERYTHING)
        assert isinstance(over_levels.prefetch, Nearest)
        assert over_levels.candidates == 40


class TestOffers:
    @pytest.mark.parametrize(
        ("layout", "home", "modes"),
        [
            (Layout(), "edge", ["exact", "hnsw", "diverse"]),
            (Layout(quantization="int8"), "server", ["exact", "hnsw", "quantized", "diverse"]),
            (Layout(levels=(16,), quantization="int8"), "server", ["exact", "funnel", "prefix", "diverse"]),
            (EVERYTHING, "edge", ["exact", "funnel", "prefix", "hybrid", "diverse"]),
            (EVERYTHING, "memory", ["exact", "funnel", "prefix", "hybrid", "diverse"]),
            (Layout(quantization="int8"), "client-local", ["exact", "diverse"]),
        ],
    )
    def test_what_is_stored_decides(self, layout, home, modes):
        version = None if home in ("memory", "client-local") else (1, 20, 0)
        assert offered_modes(layout, home=home, version=version) == modes

    def test_an_old_server_offers_less(self):
        assert offered_modes(EVERYTHING, home="server", version=(1, 15, 5)) == ["exact", "funnel", "prefix"]

    @pytest.mark.parametrize(
        ("layout", "mode", "each"),
        [
            (Layout(), Exact(), 64 * 4),
            (Layout(), Hnsw(), 64 * 4),
            (Layout(), Diverse(), 64 * 4),
            (Layout(quantization="int8"), Exact(), 64 * 4),
            (Layout(quantization="int8"), Hnsw(), 64 * 4),
            (Layout(quantization="int8"), Quantized(), 64),
            (Layout(quantization="int8"), Diverse(), 64),
            (Layout(quantization="turbo4"), Quantized(), 32),
            (Layout(quantization="turbo2"), Quantized(), 16),
            (Layout(quantization="turbo1"), Quantized(), 8),
            (Layout(quantization="binary"), Quantized(), 8),
            (EVERYTHING, Exact(), 64 * 2),
            (EVERYTHING, Funnel(), 16 * 4),
            (EVERYTHING, Funnel(stages=((32, 50),)), 32 * 4),
            (EVERYTHING, Prefix(), 32 * 4),
            (EVERYTHING, Prefix(16), 16 * 4),
            (EVERYTHING, Diverse(), 16 * 4),
            (EVERYTHING, Hybrid(), 16 * 4),
            (EVERYTHING, Hybrid(dense=Prefix()), 32 * 4),
            (Layout(levels=(16, 32), quantization="int8"), Exact(), 64 * 2),
            (Layout(levels=(16, 32), quantization="int8"), Funnel(), 16),
            (Layout(levels=(16, 32), quantization="binary"), Prefix(), 4),
            (Layout(levels=(4,), quantization="binary"), Prefix(), 1),
            (Layout(levels=(16, 32), quantization="int8"), Prefix(exact=True), 32 * 4),
        ],
        ids=str,
    )
    def test_the_bytes_of_the_first_pass(self, layout, mode, each):
        found = first_pass_bytes(mode, layout=layout, dimensions=64, home="server", dense=Funnel())
        assert found == 1_000_000 * each

    def test_the_local_mode_keeps_every_vector_as_it_came(self):
        layout = Layout(levels=(16,), quantization="int8", lexical=Lexical())
        found = [
            first_pass_bytes(mode, layout=layout, dimensions=64, home="memory", dense=Exact())
            for mode in (Exact(), Funnel(), Prefix(), Hybrid())
        ]
        assert found == [256_000_000, 64_000_000, 64_000_000, 256_000_000]
