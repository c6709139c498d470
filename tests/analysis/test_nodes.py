"""Quantisation of sentences: planted groups, weights by hand, and every degenerate case."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dereason.analysis.nodes import Nodes, quantise
from dereason.analysis.settings import Steps


def _unit(angles: list[float]) -> np.ndarray:
    """Points (N, 2) on the circle, angles in degrees."""
    radians = np.radians(np.array(angles))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def _planted(groups: int, each: int, dimensions: int = 16) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Sentences, unit vectors in tight groups around orthogonal directions, and each one's group."""
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(groups), each)
    vectors = np.eye(dimensions)[truth] + 0.02 * generator.normal(size=(groups * each, dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = [f"sentence {i:04}" for i in generator.permutation(groups * each)]
    return words, vectors.astype(np.float32), truth


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def test_planted_groups_are_found() -> None:
    words, vectors, truth = _planted(8, 30)
    counts = [1 + i % 5 for i in range(len(words))]
    found = quantise(words, counts, vectors, Steps(nodes=8, sentences_per_node=1), 3)
    assert _same_partition(found.labels, truth)
    weights = np.array(counts, dtype=float)
    said = [weights[found.labels == node].sum() for node in range(8)]
    assert said == sorted(said, reverse=True)
    for node in range(8):
        here = found.labels == node
        mean = np.average(vectors[here].astype(float), axis=0, weights=weights[here])
        np.testing.assert_allclose(found.centroids[node], mean, atol=1e-12)
        away = np.linalg.norm(vectors - mean, axis=1)
        assert away[words.index(found.representatives[node])] <= away[here].min() + 1e-4
        assert found.labels[words.index(found.representatives[node])] == node


def test_the_best_of_all_partitions_with_weights() -> None:
    vectors = _unit([0, 8, 20, 90, 97, 140])
    words, counts = list("abcdef"), [5, 1, 1, 2, 2, 9]

    def cost(partition: tuple[int, ...]) -> float:
        total = 0.0
        for node in set(partition):
            here = np.array(partition) == node
            weights = np.array(counts, dtype=float)[here]
            mean = np.average(vectors[here].astype(float), axis=0, weights=weights)
            total += float((weights * ((vectors[here] - mean) ** 2).sum(1)).sum())
        return total

    best = min((p for p in itertools.product(range(3), repeat=6) if len(set(p)) == 3), key=cost)
    found = quantise(words, counts, vectors, Steps(nodes=3, sentences_per_node=1), 0)
    assert _same_partition(found.labels, np.array(best))


@pytest.mark.parametrize(
    ("distinct", "nodes", "per_node", "expected"),
    [(10, 2000, 4, 3), (10, 2, 1, 2), (10, 2000, 1, 10), (1, 2000, 4, 1), (3, 2000, 4, 1), (9, 5, 2.5, 4)],
)
def test_how_many_nodes(distinct: int, nodes: int, per_node: float, expected: int) -> None:
    words = [f"{i}" for i in range(distinct)]
    vectors = _unit([i * 300 / distinct for i in range(distinct)])
    found = quantise(words, [1] * distinct, vectors, Steps(nodes=nodes, sentences_per_node=per_node), 0)
    assert len(found.centroids) == len(found.representatives) == expected
    assert set(found.labels.tolist()) == set(range(expected))


def test_order_and_repetition_change_nothing() -> None:
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(300, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words, counts = [f"w{i}" for i in range(300)], generator.integers(1, 9, 300).tolist()
    settings = Steps(nodes=40, sentences_per_node=1)
    first = quantise(words, counts, vectors, settings, 5)
    order = generator.permutation(300)
    other = quantise([words[i] for i in order], [counts[i] for i in order], vectors[order], settings, 5)
    np.testing.assert_array_equal(other.labels, first.labels[order])
    np.testing.assert_array_equal(other.centroids, first.centroids)
    assert other.representatives == first.representatives
    seeds = [quantise(words, counts, vectors, settings, seed).labels for seed in (5, 6)]
    np.testing.assert_array_equal(seeds[0], first.labels)
    assert not _same_partition(seeds[1], first.labels)


def test_one_thread_or_two() -> None:
    from threadpoolctl import threadpool_limits

    words, vectors, _ = _planted(12, 40)
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(quantise(words, [1] * len(words), vectors, Steps(nodes=60, sentences_per_node=1), 0))
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
    np.testing.assert_allclose(found[0].centroids, found[1].centroids, atol=1e-12)


def _one_node(words: list[str], counts: list[int], angles: list[float]) -> Nodes:
    return quantise(words, counts, _unit(angles), Steps(nodes=2, sentences_per_node=10), 0)


def test_representative() -> None:
    assert _one_node(["far", "middle", "other"], [1, 1, 1], [0, 10, 25]).representatives == ("middle",)
    # what is said most draws the centroid to itself
    assert _one_node(["far", "middle", "other"], [1, 1, 90], [0, 10, 25]).representatives == ("other",)
    # equally near: the more frequent where both are the same vector, else the first
    assert _one_node(["a", "b", "c"], [1, 7, 1], [5, 5, 5]).representatives == ("b",)
    assert _one_node(["b", "a"], [4, 4], [0, 20]).representatives == ("a",)


def test_order_of_nodes_that_are_said_equally_often() -> None:
    found = quantise(
        ["z", "y", "b", "a"], [1, 1, 1, 1], _unit([0, 1, 180, 181]), Steps(nodes=2, sentences_per_node=1), 0
    )
    assert found.labels.tolist() == [1, 1, 0, 0]
    assert found.representatives == ("a", "y")


def test_equal_vectors_under_different_texts_are_one_point() -> None:
    vectors = _unit([0, 0, 0, 90, 90, 200])
    vectors[1] += 1e-7  # rounding
    found = quantise(list("abcdef"), [1] * 6, vectors, Steps(nodes=6, sentences_per_node=1), 0)
    assert len(found.centroids) == 3
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert found.representatives == ("a", "d", "f")


def test_nothing_and_one() -> None:
    none = quantise([], [], np.zeros((0, 7), np.float32), Steps(), 0)
    assert (none.labels.shape, none.centroids.shape, none.representatives) == ((0,), (0, 7), ())
    one = quantise(["a"], [3], _unit([30]), Steps(), 0)
    assert (one.labels.tolist(), one.representatives) == ([0], ("a",))
    np.testing.assert_allclose(one.centroids, _unit([30]))


def test_what_does_not_fit_together_is_refused() -> None:
    for words, counts, angles in (
        (["a"], [1], [0.0, 1.0]),
        (["a", "b"], [1], [0.0, 1.0]),
        (["a", "a"], [1, 1], [0, 1]),
    ):
        with pytest.raises(ValueError, match="distinct sentences"):
            quantise(words, counts, _unit(list(angles)), Steps(), 0)
