"""What is asked of a ``QdrantClient``, in its own words: collections, points, indexes and searches."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import grpc, models

from f2rag.errors import DocumentError, UnsupportedFeatureError
from f2rag.store.features import require
from f2rag.store.homes import Batch, PointId, Version
from f2rag.store.layout import FULL, LEXICAL, FieldKind, Layout, Quantization, level_name
from f2rag.store.stages import Fused, Nearest, SparseVector, Stage
from f2rag.types import FloatMatrix, FloatVector

_KINDS: dict[FieldKind, Any] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "text": models.TextIndexParams(
        type=models.TextIndexType.TEXT,
        tokenizer=models.TokenizerType.MULTILINGUAL,
        lowercase=True,
        phrase_matching=True,
    ),
}

_DENSE_TAG = b"\x0a"
"""Of the field ``data`` of ``DenseVector``, number 1 and packed: its length and its floats follow."""


def vectors_of(layout: Layout, *, dimensions: int) -> models.VectorParams | dict[str, models.VectorParams]:
    """The dense vectors of a collection under a layout."""
    cosine = models.Distance.COSINE
    if not layout.levels:
        return models.VectorParams(
            size=dimensions,
            distance=cosine,
            quantization_config=_compression(layout.quantization),
            on_disk=True if layout.quantization else None,
        )
    # on_disk and not memory="cold": servers before 1.19 drop that without a word, and newer ones know both.
    full = models.VectorParams(
        size=dimensions,
        distance=cosine,
        datatype=models.Datatype.FLOAT16,
        on_disk=True,
        hnsw_config=models.HnswConfigDiff(m=0),
    )
    levels = {
        level_name(level): models.VectorParams(
            size=level, distance=cosine, quantization_config=_compression(layout.quantization)
        )
        for level in layout.levels
    }
    return {FULL: full, **levels}


def words_of(layout: Layout) -> dict[str, models.SparseVectorParams] | None:
    """The sparse vectors of a collection under a layout."""
    if layout.lexical is None:
        return None
    return {LEXICAL: models.SparseVectorParams(modifier=models.Modifier.IDF)}


def lost(
    wanted: models.VectorParams | Mapping[str, models.VectorParams], found: models.CollectionParams, *, words: bool
) -> list[str]:
    """What a server made otherwise than it was asked to, in words; a server drops fields that it does not know."""
    present = by_name(found.vectors)
    differences: list[str] = []
    for name, asked in by_name(wanted).items():
        made = present.get(name)
        for what in ("size", "distance", "datatype", "on_disk"):
            ask, get = getattr(asked, what), getattr(made, what, None)
            if ask is not None and ask != get:
                differences.append(f"{what} of the vector {name!r} is {get!r} instead of {ask!r}")
        graph = getattr(made, "hnsw_config", None)
        if asked.hnsw_config is not None and (graph is None or graph.m != asked.hnsw_config.m):
            differences.append(f"the vector {name!r} has a graph")
        ask, get = _kind(asked.quantization_config), _kind(getattr(made, "quantization_config", None))
        if ask != get:
            differences.append(f"the compression of the vector {name!r} is {get} instead of {ask}")
    if words and (found.sparse_vectors or {}).get(LEXICAL, models.SparseVectorParams()).modifier != models.Modifier.IDF:
        differences.append(f"the sparse vector {LEXICAL!r} has no IDF modifier")
    return differences


def by_name(
    vectors: models.VectorParams | Mapping[str, models.VectorParams] | None,
) -> Mapping[str, models.VectorParams]:
    """The dense vectors of a collection by name; the unnamed one is ``""``."""
    if vectors is None:
        return {}
    return {FULL: vectors} if isinstance(vectors, models.VectorParams) else vectors


def index_of(kind: FieldKind) -> Any:
    """The payload index for what a field holds."""
    return _KINDS[kind]


def points_of(batch: Batch) -> models.Batch:
    """A batch of points for REST and for the local mode, whose vectors are lists of floats."""
    columns = _columns(batch.vectors, batch.sparse)
    # By itself the unnamed vector goes without its name: collections of that one vector take it in either form.
    vectors: Any = columns[FULL] if list(columns) == [FULL] else columns
    return models.Batch(ids=list(batch.ids), vectors=vectors, payloads=batch.payloads)


def request_of(collection: str, batch: Batch) -> grpc.UpsertPoints:
    """A batch of points as one request for gRPC; it returns when they can be found.

    It is filled in place, since a message that is handed to another is copied, and the floats of an array go in as they
    lie in memory: a third of the time that the client's own way from lists takes.

    Raises:
        DocumentError: A whole number from 2**63, which gRPC cannot carry.
    """
    request = grpc.UpsertPoints(collection_name=collection, wait=True)
    # The single vector goes without the map of names.
    alone = list(batch.vectors) == [FULL] and not batch.sparse
    packed = {name: _packed(rows) for name, rows in batch.vectors.items()}
    for index, (identifier, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        point = request.points.add()
        point.id.uuid = identifier
        for name, column in packed.items():
            vector = point.vectors.vector if alone else point.vectors.vectors.vectors[name]
            vector.dense.MergeFromString(column[index])
        for name, words in batch.sparse.items():
            sparse = point.vectors.vectors.vectors[name].sparse
            sparse.SetInParent()  # also one without words is there
            sparse.indices.extend(words[index].indices)
            sparse.values.extend(words[index].values)
        try:
            for key, value in payload.items():
                _fill(point.payload[key], value)
        except ValueError as error:  # of protobuf
            raise _unsendable(payload, identifier, error) from error
    return request


def changes_of(
    ids: Sequence[PointId], vectors: Mapping[str, FloatMatrix], sparse: Mapping[str, Sequence[SparseVector]]
) -> list[models.PointVectors]:
    """Further vectors of existing points."""
    columns = _columns(vectors, sparse)
    return [
        models.PointVectors(id=point, vector={name: column[index] for name, column in columns.items()})
        for index, point in enumerate(ids)
    ]


def search_of(stage: Stage, *, local: bool) -> dict[str, Any]:
    """The arguments of ``query_points`` and ``query_points_groups`` that a stage decides, but for the limit.

    The local mode compares everything and warns about parameters, so it gets none.
    """
    arguments: dict[str, Any] = {"query": _query(stage), "prefetch": _prefetches(stage, local=local)}
    if isinstance(stage, Nearest):
        arguments["using"] = stage.using
        arguments["search_params"] = None if local else _parameters(stage)
    return arguments


def require_stage(stage: Stage, version: Version | None, *, place: str) -> None:
    """Do nothing where the server understands all of a stage.

    Raises:
        UnsupportedFeatureError: It would ignore a part of it.
    """
    if isinstance(stage, Fused):
        require(version, "parametrised_rrf", place=place)
        if stage.weights is not None:
            require(version, "weighted_rrf", place=place)
        for search in stage.searches:
            require_stage(search, version, place=place)
        return
    if stage.diversity is not None:
        require(version, "mmr", place=place)
    if stage.prefetch is not None:
        require_stage(stage.prefetch, version, place=place)


def require_layout(layout: Layout, version: Version | None, *, place: str) -> None:
    """Do nothing where a collection can have this layout and keep its record.

    Raises:
        UnsupportedFeatureError: The server is too old.
    """
    require(version, "collection_metadata", place=place)
    if layout.quantization is not None and layout.quantization.startswith("turbo"):
        require(version, "turbo_quant", place=place)


def _columns(vectors: Mapping[str, FloatMatrix], sparse: Mapping[str, Sequence[SparseVector]]) -> dict[str, list[Any]]:
    dense: dict[str, list[Any]] = {name: rows.tolist() for name, rows in vectors.items()}
    return {**dense, **{name: [_words(each) for each in column] for name, column in sparse.items()}}


def _packed(rows: FloatMatrix) -> list[bytes]:
    """Each row of a float32 matrix as the bytes of a ``DenseVector``.

    A packed field is its tag, its length in bytes and the bytes, little-endian floats: the array as it is.
    """
    plain = np.ascontiguousarray(rows, dtype="<f4")
    head = _DENSE_TAG + _varint(4 * plain.shape[1])
    return [head + row.tobytes() for row in plain]


def _fill(target: grpc.Value, value: Any) -> None:
    """Write a JSON value into its message."""
    if isinstance(value, str):  # nearly all are
        target.string_value = value
    elif value is None:
        target.null_value = grpc.NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.integer_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        for key, item in value.items():
            _fill(target.struct_value.fields[key], item)
    else:
        target.list_value.SetInParent()
        for item in value:
            _fill(target.list_value.values.add(), item)


def _unsendable(payload: Mapping[str, Any], identifier: str, error: ValueError) -> DocumentError:
    key = payload.get("f2rag", {}).get("id", identifier)
    return DocumentError(
        f"Document {key!r} cannot be sent over gRPC: {error}. Whole numbers go to 2**63 - 1 there; write larger "
        "ones as text, or connect over REST alone (grpc_port=None)."
    )


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def _prefetches(stage: Stage, *, local: bool) -> list[models.Prefetch] | None:
    if isinstance(stage, Fused):
        return [_prefetch(search, local=local) for search in stage.searches]
    return None if stage.prefetch is None else [_prefetch(stage.prefetch, local=local)]


def _prefetch(stage: Nearest, *, local: bool) -> models.Prefetch:
    return models.Prefetch(
        query=_query(stage),
        using=stage.using,
        limit=stage.limit,
        prefetch=_prefetches(stage, local=local),
        params=None if local else _parameters(stage),
    )


def _query(stage: Stage) -> models.RrfQuery | models.NearestQuery:
    if isinstance(stage, Fused):
        weights = None if stage.weights is None else list(stage.weights)
        return models.RrfQuery(rrf=models.Rrf(k=stage.constant, weights=weights))
    diverse = None
    if stage.diversity is not None:
        candidates = stage.limit if stage.candidates is None else stage.candidates
        diverse = models.Mmr(diversity=stage.diversity, candidates_limit=candidates)
    return models.NearestQuery(nearest=_vector(stage.vector), mmr=diverse)


def _parameters(stage: Nearest) -> models.SearchParams:
    compressed = None
    if stage.uncompressed or stage.rescore is not None or stage.oversampling is not None:
        compressed = models.QuantizationSearchParams(
            ignore=stage.uncompressed, rescore=stage.rescore, oversampling=stage.oversampling
        )
    return models.SearchParams(hnsw_ef=stage.ef, exact=stage.exact, quantization=compressed)


def _vector(vector: FloatVector | SparseVector) -> Any:
    return _words(vector) if isinstance(vector, SparseVector) else vector.tolist()


def _words(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=vector.indices, values=vector.values)


def _compression(quantization: Quantization | None) -> Any:
    """How the vectors with a graph are compressed; the compressed ones stay in memory."""
    if quantization is None:
        return None
    if quantization == "int8":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        )
    if quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    if not hasattr(models, "TurboQuantization"):
        raise UnsupportedFeatureError(
            f"quantization={quantization!r} needs qdrant-client 1.18 or newer here. "
            "Install it with: pip install --upgrade qdrant-client"
        )
    return models.TurboQuantization(
        turbo=models.TurboQuantQuantizationConfig(
            bits=models.TurboQuantBitSize(f"bits{quantization.removeprefix('turbo')}"), always_ram=True
        )
    )


def _kind(compression: Any) -> str:
    """A compression in a word, with what matters of it."""
    if compression is None:
        return "none"
    ((name, settings),) = ((name, value) for name, value in compression if value is not None)
    bits = getattr(settings, "bits", None)
    where = "in memory" if settings.always_ram else "on disk"
    return " ".join(itertools.chain([name], [] if bits is None else [bits.value], [where]))
