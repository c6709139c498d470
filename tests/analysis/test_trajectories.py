"""Clusters against average linkage by its definition, rarefaction against all subsets."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from dereason.analysis.settings import Trajectories
from dereason.analysis.trajectories import cluster, compare, medoids, rarefied, reclustered

Floats = NDArray[np.float64]


def symmetric(m: int, seed: int, rounded: int | None = None) -> Floats:
    values = np.random.default_rng(seed).random((m, m))
    values = np.triu(values if rounded is None else values.round(rounded), 1)
    return np.asarray(values + values.T + np.eye(m))


def linkage(similarity: Floats, cut: float) -> list[list[int]]:
    """UPGMA by its definition: merge the two clusters whose members are most alike on average, down to the cut."""
    clusters = [[i] for i in range(len(similarity))]
    while len(clusters) > 1:
        pairs = itertools.combinations(range(len(clusters)), 2)
        alike = {(a, b): float(similarity[np.ix_(clusters[a], clusters[b])].mean()) for a, b in pairs}
        (a, b), best = max(alike.items(), key=lambda item: item[1])
        if best < cut:
            break
        clusters = [c for i, c in enumerate(clusters) if i not in (a, b)] + [sorted(clusters[a] + clusters[b])]
    return sorted(clusters, key=lambda c: (-len(c), c[0]))


@pytest.mark.parametrize("m", [2, 3, 8, 25])
@pytest.mark.parametrize("cut", [0.3, 0.5, 0.6, 0.9])
def test_average_linkage(m: int, cut: float) -> None:
    for seed in range(3):
        similarity = symmetric(m, seed)
        expected = linkage(similarity, cut)
        found = cluster(similarity, cut)
        assert [np.flatnonzero(found.labels == i).tolist() for i in range(len(found.sizes))] == expected
        assert found.sizes.tolist() == [len(members) for members in expected]


def test_the_cut_itself_is_the_same_trajectory() -> None:
    # a and b merge first; c is 0.7 and 0.5 like them: 0.6 on average (single linkage: 0.7, complete: 0.5).
    similarity = np.array([[1, 0.9, 0.7], [0.9, 1, 0.5], [0.7, 0.5, 1]])
    assert cluster(similarity, 0.61).labels.tolist() == [0, 0, 1]
    assert cluster(similarity, 0.60).labels.tolist() == [0, 0, 0]
    assert cluster(similarity, 0.901).labels.tolist() == [0, 1, 2]


def test_rounding_does_not_miss_the_cut() -> None:
    # Means of tenths: some differ from the cut by their last digit only.
    for seed in range(40):
        similarity = symmetric(9, seed, rounded=1)
        tenths = np.rint(similarity * 10).astype(int)
        labels = cluster(similarity, 0.6).labels
        for i, members in enumerate(clusters := [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]):
            for others in clusters[i + 1 :]:
                between = tenths[np.ix_(members, others)]
                assert Fraction(int(between.sum()), between.size) < 6


def test_larger_clusters_come_first_then_earlier_ones() -> None:
    groups = np.array([3, 1, 0, 1, 3, 2, 3])
    similarity = (groups[:, None] == groups).astype(float)
    found = cluster(similarity, 0.6)
    assert found.labels.tolist() == [0, 1, 2, 1, 0, 3, 0]
    assert found.sizes.tolist() == [3, 2, 1, 1]


@pytest.mark.parametrize("m", [0, 1])
def test_none_and_one(m: int) -> None:
    found = cluster(np.ones((m, m)), 0.6)
    assert (found.labels.tolist(), found.sizes.tolist()) == ([0] * m, [1] * m)
    assert medoids(np.ones((m, m)), found.labels).tolist() == [0] * m
    assert compare(["x"] * m, Trajectories()).shape == (m, m)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (np.ones((2, 3)), "square"),
        (np.array([[1, 0.2], [0.3, 1]]), "symmetric"),
        (np.array([[1, 1.5], [1.5, 1]]), "between 0 and 1"),
        (np.array([[1, np.nan], [np.nan, 1]]), "between 0 and 1"),
    ],
)
def test_no_similarities(similarity: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster(similarity, 0.6)


@pytest.mark.parametrize(
    ("sizes", "rest"), [([1], 0), ([3, 2, 1], 0), ([4, 4], 1), ([2, 1, 1], 4), ([], 5), ([1] * 6, 0)]
)
def test_rarefied_is_the_mean_over_all_subsets(sizes: list[int], rest: int) -> None:
    cluster_of = [i for i, size in enumerate(sizes) for _ in range(size)] + [None] * rest
    total = len(cluster_of)
    expected = []
    for m in range(total + 1):
        subsets = itertools.combinations(cluster_of, m)
        expected.append(sum(len(set(drawn) - {None}) for drawn in subsets) / comb(total, m))
    found = rarefied(sizes, total, np.arange(total + 1))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    assert rarefied(sizes, total, 1) == pytest.approx(sum(sizes) / total)
    assert rarefied(sizes, total, [[0, total]]).tolist() == [[0, len(sizes)]]


def test_rarefied_of_many_is_exact_and_rises() -> None:
    sizes, total = [700, 100, 60, 3, 3, 1, 1, 1], 1024
    m = np.arange(total + 1)
    exact = [float(sum(1 - Fraction(comb(total - size, k), comb(total, k)) for size in sizes)) for k in m.tolist()]
    found = rarefied(sizes, total, m)
    np.testing.assert_allclose(found, exact, rtol=1e-11)
    assert (np.diff(found) > 0).all()
    assert (np.diff(found, 2) < 1e-12).all(), "each further response adds less"


@pytest.mark.parametrize(
    ("sizes", "total", "m"), [([2, 1], 3, 4), ([2, 1], 3, [0, -1]), ([2, 2], 3, 1), ([2, 0], 3, 1), ([], 0, 1)]
)
def test_impossible_draws(sizes: list[int], total: int, m: int | list[int]) -> None:
    with pytest.raises(ValueError, match=r"can be drawn|sum to at most"):
        rarefied(sizes, total, m)


def test_nothing_drawn_of_nothing() -> None:
    assert rarefied([], 0, [0]).tolist() == [0]


def test_clustering_each_subset_anew_is_something_else() -> None:
    """The clusters that are rarefied are those of all responses: c joins a, which it is 0.7 like, but not {a, b}."""
    similarity = np.array([[1, 0.9, 0.7], [0.9, 1, 0.5], [0.7, 0.5, 1]])
    sizes = cluster(similarity, 0.65).sizes
    anew = [len(cluster(similarity[np.ix_(pair, pair)], 0.65).sizes) for pair in ([0, 1], [0, 2], [1, 2])]
    assert sizes.tolist() == [2, 1]
    assert float(rarefied(sizes, 3, 2)) == pytest.approx(5 / 3)
    assert sum(anew) / 3 == pytest.approx(4 / 3)


def test_medoids() -> None:
    similarity = symmetric(20, 3)
    labels = cluster(similarity, 0.5).labels
    found = medoids(similarity, labels)
    for label, medoid in enumerate(found):
        members = [i for i in range(20) if labels[i] == label]
        assert medoid == max(members, key=lambda i: (sum(similarity[i, j] for j in members if j != i), -i))
    assert len(found) == labels.max() + 1
    assert medoids(np.ones((4, 4)), np.array([1, 0, 0, 1])).tolist() == [1, 0]
    with pytest.raises(ValueError, match="3 labels"):
        medoids(similarity, np.zeros(3, dtype=np.int64))


def test_empty_responses_are_one_trajectory() -> None:
    texts = ["", " \n", "x = 4", "x=4", "no", ""]
    similarity = compare(texts, Trajectories())
    assert cluster(similarity, 0.6).labels.tolist() == [0, 0, 1, 1, 2, 0]
    assert (similarity[np.ix_([0, 1, 5], [2, 3, 4])] == 0).all()


def test_settings_reach_chrf() -> None:
    # 1 and 7/12, precision and recall of orders 1 and 2, by F1: 14/19 both ways. Order 1 alone: 1 and 2/3, 4/5.
    assert compare(["ab", "abc"], Trajectories(order=2, beta=1))[0, 1] == pytest.approx(14 / 19)
    assert compare(["ab", "abc"], Trajectories(order=1, beta=1))[0, 1] == pytest.approx(4 / 5)


def test_reclustered_subsets_against_all_of_them() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 2))
    similarity = np.exp(-np.linalg.norm(points[:, None] - points[None], axis=-1))
    every = [
        len(cluster(similarity[np.ix_(chosen, chosen)], 0.4).sizes) for chosen in itertools.combinations(range(7), 4)
    ]
    assert min(every) < max(every)
    assert reclustered(similarity, 0.4, 4, 4000, 0) == pytest.approx(np.mean(every), abs=0.05)
    assert reclustered(similarity, 0.4, 7, 1, 0) == len(cluster(similarity, 0.4).sizes)
    assert reclustered(similarity, 0.4, 1, 3, 0) == 1
    with pytest.raises(ValueError, match="1 to 7"):
        reclustered(similarity, 0.4, 8, 1, 0)
