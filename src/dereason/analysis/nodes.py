"""Sentences to the nodes of a reasoning graph.

Equation (arXiv 2509.21128): the sentences of all compared models are embedded and quantised by k-means, so that their
graphs share nodes. How k follows from the number of sentences where there are few is ours.

    U distinct sentences, D dimensions, K nodes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dereason.analysis.settings import Steps

_SAME = 4  # decimals to which vectors are compared: batches of other lengths move them by less than 1e-6
_ITERATIONS = 100


class Nodes(NamedTuple):
    """The shared nodes, in order of how many sentences they hold."""

    labels: NDArray[np.int64]
    """(U,) node of each sentence."""
    centroids: NDArray[np.float64]
    """(K, D) weighted means of their sentences' vectors."""
    representatives: tuple[str, ...]
    """(K,) of each node the sentence nearest to its centroid: a label that a person can read."""


def quantise(
    sentences: Sequence[str], counts: Sequence[int], vectors: NDArray[np.float32], settings: Steps, seed: int
) -> Nodes:
    """Weighted k-means over distinct sentences.

    K is ``settings.nodes``, or U / ``settings.sentences_per_node`` rounded up where that is less, and never more than
    there are distinct vectors. Every distinct sentence weighs as often as it was said. Same set of sentences, same
    counts, same vectors and same seed give the same nodes, whatever the order of the sentences; with another number of
    threads or another BLAS, sums differ by rounding (float64), and a sentence may change its node only where two
    centroids are equally near to within that. Time grows with U x K x D, memory with U x D.

    Args:
        sentences: U distinct texts.
        counts: how often each was said.
        vectors: (U, D) unit vectors.
        settings: how many nodes.
        seed: of the first centroids.

    Returns:
        The nodes. A representative's ties go to the more frequent sentence, then to the first in alphabetical order;
        the order of nodes' to the representative.

    Raises:
        ValueError: sentences, counts and vectors differ in number, or a sentence is there twice.
    """
    if not len(set(sentences)) == len(sentences) == len(counts) == len(vectors):
        raise ValueError(f"{len(set(sentences))} distinct sentences, {len(counts)} counts, {len(vectors)} vectors")
    if not len(sentences):
        return Nodes(np.zeros(0, np.int64), np.zeros((0, vectors.shape[-1])), ())
    order_in = sorted(range(len(sentences)), key=lambda i: sentences[i])
    distinct = [sentences[i] for i in order_in]
    weights = np.array([counts[i] for i in order_in], dtype=np.float64)
    points = np.asarray(vectors[order_in], dtype=np.float64)
    _, kept, same = np.unique(np.round(points, _SAME), axis=0, return_index=True, return_inverse=True)
    k = min(settings.nodes, int(np.ceil(len(distinct) / settings.sentences_per_node)), len(kept))
    summed = np.asarray(np.bincount(same.ravel(), weights), dtype=np.float64)
    groups = _k_means(points[kept], summed, k, seed)[same.ravel()]

    used, groups = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(used), points.shape[1]))
    np.add.at(sums, groups, points * weights[:, None])
    said = np.bincount(groups, weights)
    centroids = sums / said[:, None]
    away = np.round(np.linalg.norm(points - centroids[groups], axis=1), _SAME)
    chosen: dict[int, int] = {}
    for i in np.lexsort((np.arange(len(distinct)), -weights, away)):
        chosen.setdefault(int(groups[i]), int(i))
    order = sorted(range(len(used)), key=lambda g: (-said[g], chosen[g]))
    renamed = np.empty(len(used), dtype=np.int64)
    renamed[order] = np.arange(len(used))
    labels = np.empty(len(distinct), dtype=np.int64)
    labels[order_in] = renamed[groups]
    return Nodes(labels, centroids[order], tuple(distinct[chosen[g]] for g in order))


def _k_means(points: NDArray[np.float64], weights: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int64]:
    """Group (U,) of each of U different points."""
    if k == 1:
        return np.zeros(len(points), dtype=np.int64)
    if k == len(points):
        return np.arange(k, dtype=np.int64)
    from sklearn.cluster import KMeans

    # All points at every iteration: mini-batches took longer to a worse end (benchmarks/nodes.py).
    model = KMeans(k, n_init=1, max_iter=_ITERATIONS, algorithm="lloyd", random_state=seed, copy_x=False)
    return np.asarray(model.fit(points, sample_weight=weights).labels_, dtype=np.int64)
