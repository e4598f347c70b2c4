"""Turns the teacher's vectors into what the student has to reach: centred, turned and cut to 256 dimensions.

All of multilingual-e5's vectors lie in one narrow cone (unrelated texts have cosine 0.77 or so). Subtracting the mean
of each kind of text removes the cone and most of the language's own direction. A principal-axes rotation then orders
the dimensions by variance, so that the student's Matryoshka prefixes are the best prefixes by construction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def unit(vectors: Floats) -> Floats:
    """Returns rows of length 1."""
    result: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return result


def centred(vectors: Floats, kinds: Sequence[str], *, smallest: int = 100) -> Floats:
    """Subtracts the mean of each kind (a language's words, English sentences, …); small kinds use the global mean."""
    names, index = np.unique(np.asarray(kinds), return_inverse=True)
    result = vectors - vectors.mean(axis=0)
    for number in range(len(names)):
        members = index == number
        if members.sum() >= smallest:
            result[members] = vectors[members] - vectors[members].mean(axis=0)
    return unit(result.astype(np.float32))


def settle(vectors: Floats, kinds: Sequence[str], unknown: str) -> list[str]:
    """Gives each text of kind `unknown` the kind whose mean is nearest.

    The teacher's vectors tell languages apart well, so this sorts words of no known language among the known ones (or
    next to a related one), and centring then removes most of their language as well.
    """
    names = np.asarray(kinds)
    others = sorted(set(kinds) - {unknown})
    means = unit(np.stack([vectors[names == name].mean(axis=0) for name in others]) - vectors.mean(axis=0))
    members = np.flatnonzero(names == unknown)
    nearest = (unit(vectors[members] - vectors.mean(axis=0)) @ means.T).argmax(axis=1)
    result = names.astype(object)
    result[members] = np.array(others, dtype=object)[nearest]
    return [str(name) for name in result]


def principal_axes(vectors: Floats, dimensions: int, *, power: float) -> Floats:
    """Returns the matrix (input, dimensions) onto the leading axes, each divided by its deviation to the `power`.

    `power` 0 keeps the teacher's cosines, 1 whitens; in between, rare directions gain weight.
    """
    values, axes = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))
    order = np.argsort(values)[::-1][:dimensions]
    matrix: Floats = (axes[:, order] / np.sqrt(values[order]) ** power).astype(np.float32)
    return matrix
