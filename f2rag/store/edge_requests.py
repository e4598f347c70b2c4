"""What is asked of the embedded engine, in its own words: configurations, points, indexes and searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import qdrant_edge as edge

from f2rag.store.homes import PointId
from f2rag.store.layout import FULL, LEXICAL, FieldKind, Layout, Quantization, level_name
from f2rag.store.stages import Fused, Nearest, SparseVector, Stage
from f2rag.types import FloatMatrix

_NO_GRAPH = edge.HnswIndexConfig(0, 100, 10_000)
"""Of the full vectors beside levels: only m=0 counts; the other two are the engine's defaults."""

_KINDS: dict[FieldKind, Any] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "datetime": edge.PayloadSchemaType.Datetime,
}


def config_of(layout: Layout, *, dimensions: int) -> edge.EdgeConfig:
    """The configuration of a shard for vectors of ``dimensions`` under a layout."""
    if layout.levels:
        vectors = {
            FULL: edge.EdgeVectorParams(
                dimensions,
                edge.Distance.Cosine,
                datatype=edge.VectorStorageDatatype.Float16,
                memory=edge.Memory.Cold,
                hnsw_config=_NO_GRAPH,
            )
        }
        for level in layout.levels:
            vectors[level_name(level)] = edge.EdgeVectorParams(
                level, edge.Distance.Cosine, quantization_config=_compression(layout.quantization)
            )
    else:
        vectors = {
            FULL: edge.EdgeVectorParams(
                dimensions,
                edge.Distance.Cosine,
                quantization_config=_compression(layout.quantization),
                memory=edge.Memory.Cold if layout.quantization else None,
            )
        }
    words = {LEXICAL: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)} if layout.lexical is not None else None
    return edge.EdgeConfig(vectors=vectors, sparse_vectors=words, wal_enabled=True)


def indexes_of(key: str, kind: FieldKind) -> dict[str, Any]:
    """The indexes that answer filters on a payload key.

    The engine cannot match booleans, so filters ask for the lists of their paths (``filters.py``).
    """
    if kind == "bool":
        return {"f2rag.true": edge.PayloadSchemaType.Keyword, "f2rag.false": edge.PayloadSchemaType.Keyword}
    if kind == "text":
        text = edge.TextIndexParams(
            tokenizer=edge.TokenizerType.Multilingual,
            lowercase=True,
            phrase_matching=True,
            stemmer=edge.DisabledStemmer(),
            stopwords=edge.StopwordsSet(),
        )
        return {key: text}
    return {key: _KINDS[kind]}


def vectors_of(
    vectors: Mapping[str, FloatMatrix], sparse: Mapping[str, Sequence[SparseVector]], count: int
) -> Iterator[dict[str, Any]]:
    """The vectors of each of ``count`` points by name.

    As lists: the engine reads numpy rows element by element, which is slower.
    """
    dense = {name: rows.tolist() for name, rows in vectors.items()}
    words = {name: [_words(vector) for vector in column] for name, column in sparse.items()}
    columns = {**dense, **words}
    for index in range(count):
        yield {name: column[index] for name, column in columns.items()}


def request_of(
    stage: Stage,
    *,
    limit: int | None = None,
    filter: edge.Filter | None,  # noqa: A002 - Qdrant's word
    score_threshold: float | None,
    with_payload: bool | list[str] = True,
) -> edge.QueryRequest:
    """A search as the engine's request. The filter goes to every stage: the engine hands it on to the prefetches."""
    return edge.QueryRequest(
        limit=stage.limit if limit is None else limit,
        query=_query(stage),
        prefetches=_prefetches(stage),
        filter=filter,
        score_threshold=score_threshold,
        params=_parameters(stage),
        with_payload=with_payload,
    )


def identifier(given: Any) -> PointId:
    """The engine gives a ``UUID`` or an integer."""
    return given if isinstance(given, int) else str(given)


def _prefetches(stage: Stage) -> list[edge.Prefetch]:
    if isinstance(stage, Fused):
        return [_prefetch(search) for search in stage.searches]
    return [] if stage.prefetch is None else [_prefetch(stage.prefetch)]


def _prefetch(stage: Nearest) -> edge.Prefetch:
    return edge.Prefetch(
        limit=stage.limit, query=_query(stage), prefetches=_prefetches(stage), params=_parameters(stage)
    )


def _query(stage: Stage) -> Any:
    if isinstance(stage, Fused):
        return edge.Fusion.Rrf(stage.constant, list(stage.weights) if stage.weights is not None else None)
    vector = _words(stage.vector) if isinstance(stage.vector, SparseVector) else stage.vector.tolist()
    if stage.diversity is not None:
        # The engine weighs likeness to the query where Qdrant's own interface weighs variety.
        candidates = stage.limit if stage.candidates is None else stage.candidates
        return edge.Mmr(vector, 1.0 - stage.diversity, candidates, using=stage.using)
    return edge.Query.Nearest(vector, using=stage.using)


def _parameters(stage: Stage) -> edge.SearchParams | None:
    if isinstance(stage, Fused):
        return None
    compressed = None
    if stage.uncompressed or stage.rescore is not None or stage.oversampling is not None:
        compressed = edge.QuantizationSearchParams(
            ignore=stage.uncompressed, rescore=stage.rescore, oversampling=stage.oversampling
        )
    return edge.SearchParams(hnsw_ef=stage.ef, exact=stage.exact, quantization=compressed)


def _words(vector: SparseVector) -> edge.SparseVector:
    return edge.SparseVector(vector.indices, vector.values)


def _compression(quantization: Quantization | None) -> Any:
    """How the vectors with a graph are compressed; the compressed ones stay in memory."""
    memory = edge.Memory.Pinned
    if quantization is None:
        return None
    if quantization == "int8":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=memory)
    if quantization == "binary":
        return edge.BinaryQuantizationConfig(memory=memory)
    bits = {
        "turbo4": edge.TurboQuantBitSize.Bits4,
        "turbo2": edge.TurboQuantBitSize.Bits2,
        "turbo1": edge.TurboQuantBitSize.Bits1,
    }
    return edge.TurboQuantQuantizationConfig(bits=bits[quantization], memory=memory)
