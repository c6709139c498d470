"""Unique trajectories: responses clustered by how alike they are, and how many clusters some of them would show.

arXiv 2509.21128 clusters a problem's correct and its incorrect responses apart: d = 1 - s with s the mean chrF of both
directions, average linkage (UPGMA), cut at a similarity of 0.60; a cluster is a unique trajectory. What it does not
say, and what is ours: a merge at exactly the cut counts as the same trajectory, and responses that are equal but for
whitespace are alike whatever chrF says of them.

Shapes: M responses of one side (correct or incorrect) of a problem and model, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dereason.analysis.chrf import similarities
from dereason.analysis.settings import Trajectories

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A mean of similarities that equals the cut may miss it by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Clusters:
    """The clusters of M responses at one cut."""

    labels: Integers
    """(M,) the cluster of each response: 0 is the largest; of equal ones the one with the earliest member is first."""
    sizes: Integers
    """(C,) responses of each cluster, falling."""


def compare(texts: Sequence[str], settings: Trajectories) -> Floats:
    """How alike each pair of responses is, (M, M): chrF of both ways (:func:`~dereason.analysis.chrf.similarities`).

    Two responses without any character, to which chrF gives 0, are alike: they are one trajectory, not two.
    """
    similarity = similarities(texts, settings.order, settings.beta)
    empty = np.flatnonzero([not text.strip() for text in texts])
    similarity[np.ix_(empty, empty)] = 1.0
    return similarity


def cluster(similarity: Floats, cut: float) -> Clusters:
    """Average linkage on d = 1 - s, cut at a similarity: clusters that alike on average, or more, are one.

    Args:
        similarity: (M, M), symmetric, 0..1; M may be 0.
        cut: the similarity; a merge at exactly the cut is made.

    Raises:
        ValueError: the matrix is not square and symmetric, or a value lies outside 0..1.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    m = _checked(similarity)
    if m < 2:
        return Clusters(np.zeros(m, dtype=np.int64), np.ones(m, dtype=np.int64))
    merges = linkage(squareform(1.0 - similarity, checks=False), method="average")
    found = fcluster(merges, 1.0 - cut + _ROUNDING, criterion="distance")
    _, first, inverse, counts = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    return Clusters(rank[inverse], counts[order].astype(np.int64))


def rarefied(sizes: ArrayLike, total: int, m: ArrayLike) -> Floats:
    """Expected number of clusters met by m of `total` responses drawn without replacement.

    The sum over clusters of 1 - C(total - size, m) / C(total, m): rarefaction as ecology knows it (Hurlbert 1971), the
    mean over all subsets. So models with different numbers of samples compare at the same m.

    The clusters are those of all responses. Clustering each subset anew gives other numbers, for average linkage is
    not the same in a part: fewer members mean other averages. On real responses the mean over problems is lower by
    1 % to 4 %, a single problem's up to about one cluster lower or higher (`benchmarks/chrf_pairs.py`).

    Args:
        sizes: (C,) responses of each cluster; they may sum to less than `total`: the rest, those of the other side, are
            drawn but not counted.
        total: responses that m are drawn from.
        m: responses drawn, 0..total, of any shape.

    Returns:
        Floats of m's shape.

    Raises:
        ValueError: m outside 0..total, a size below 1, or sizes that sum to more than `total`.
    """
    members = np.asarray(sizes, dtype=np.int64)
    drawn = np.asarray(m, dtype=np.int64)
    if (members < 1).any() or members.sum() > total:
        raise ValueError(f"cluster sizes are at least 1 and sum to at most {total}, not {members.tolist()}")
    if (drawn < 0).any() or (drawn > total).any():
        raise ValueError(f"between 0 and {total} responses can be drawn, not {drawn.tolist()}")
    distinct, clusters = np.unique(members, return_counts=True)
    # Of a cluster none is met among i + 1 if none is among i, nor is the next one:
    # C(t - s, i + 1) / C(t, i + 1) = C(t - s, i) / C(t, i) * (t - s - i) / (t - i), 0 from i = t - s on.
    i = np.arange(drawn.max(initial=0))
    missed = np.cumprod((total - distinct[:, None] - i) / (total - i), axis=1)
    expected = np.concatenate([[0.0], clusters @ (1.0 - missed)])
    return np.asarray(expected[drawn], dtype=np.float64)


def reclustered(similarity: Floats, cut: float, size: int, draws: int, seed: int) -> float:
    """Mean number of clusters of random subsets of the responses, each clustered by itself.

    :func:`rarefied` counts clusters of all responses, and those come out a little finer where there are more of them
    (by 1 to 4 % on real responses). Two models with different numbers of correct responses are compared without that
    bias here.

    Args:
        similarity: (M, M).
        cut: as for :func:`cluster`.
        size: responses of a subset, 1..M; at M the only subset is taken once.
        draws: subsets.
        seed: of the subsets.

    Raises:
        ValueError: the size is impossible.
    """
    m = len(similarity)
    if not 1 <= size <= m:
        raise ValueError(f"a subset of {m} responses has 1 to {m} of them, not {size}")
    if size == m:
        return float(len(cluster(similarity, cut).sizes))
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(draws):
        chosen = rng.choice(m, size=size, replace=False)
        found += len(cluster(similarity[np.ix_(chosen, chosen)], cut).sizes)
    return found / draws


def medoids(similarity: Floats, labels: Integers) -> Integers:
    """The member of each cluster that is most like its other members, the earliest of equals: (C,) indices.

    Args:
        similarity: (M, M).
        labels: (M,) of :func:`cluster`: 0..C-1.

    Raises:
        ValueError: labels and similarity differ in M.
    """
    if similarity.shape != (len(labels), len(labels)):
        raise ValueError(f"{len(labels)} labels do not fit similarities of shape {similarity.shape}")
    found = []
    for label in range(int(labels.max(initial=-1)) + 1):
        members = np.flatnonzero(labels == label)
        found.append(members[similarity[np.ix_(members, members)].sum(axis=1).argmax()])
    return np.array(found, dtype=np.int64)


def _checked(similarity: Floats) -> int:
    """M of a matrix of similarities."""
    m = len(similarity)
    if m and similarity.shape != (m, m):
        raise ValueError(f"similarities must be square, not of shape {similarity.shape}")
    if m and not (similarity.min() >= 0 and similarity.max() <= 1 and (similarity == similarity.T).all()):
        raise ValueError("similarities must be symmetric and lie between 0 and 1")
    return m
