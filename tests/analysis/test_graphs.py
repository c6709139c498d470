"""Reasoning graphs against counting by hand and by plain loops."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from dereason.analysis import graphs
from dereason.analysis.graphs import build, limited
from dereason.analysis.settings import Graphs


def random_paths(seed, nodes=12, responses=20):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, nodes, size=rng.integers(0, 15)).tolist() for _ in range(responses)]


def without_repeats(path):
    return [node for i, node in enumerate(path) if i == 0 or node != path[i - 1]]


def test_a_graph_by_hand():
    graph = build([[3, 3, 7, 3], [7, 3, 9], [], [5]], None, Graphs())
    assert graph.nodes.tolist() == [3, 5, 7, 9]
    assert graph.visits.tolist() == [3, 1, 2, 1]
    # 3>7 once, 3>9 once, 7>3 twice; nothing leads from one response into the next, nor from a node to itself.
    assert graph.nodes[graph.edges].tolist() == [[3, 7], [3, 9], [7, 3]]
    assert graph.counts.tolist() == [1, 1, 2]
    assert graph.distances.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_visits_and_passages_are_those_of_a_plain_loop(seed):
    paths = random_paths(seed)
    graph = build(paths, None, Graphs())
    visits, passages = Counter(), Counter()
    for path in map(without_repeats, paths):
        visits.update(path)
        passages.update(pairwise(path))
    assert dict(zip(graph.nodes.tolist(), graph.visits.tolist(), strict=True)) == dict(visits)
    edges = [tuple(edge) for edge in graph.nodes[graph.edges].tolist()]
    assert edges == sorted(passages)
    assert graph.counts.tolist() == [passages[edge] for edge in edges]


def test_repeats_may_be_merged_before_or_not():
    paths = random_paths(7)
    whole, merged = build(paths, None, Graphs()), build([without_repeats(p) for p in paths], None, Graphs())
    for name in ("nodes", "visits", "edges", "counts"):
        assert getattr(whole, name).tolist() == getattr(merged, name).tolist()


@pytest.mark.parametrize("paths", [[], [[]], [[], []]])
def test_nothing_visited(paths):
    graph = build(paths, np.zeros((3, 2)), Graphs(nearest=2, weighted=True))
    assert len(graph.nodes) == len(graph.edges) == len(graph.counts) == len(graph.distances) == 0
    assert graph.edges.shape == (0, 2)
    assert graph.as_igraph(directed=True).vcount() == 0


def test_undirected_an_edge_and_its_opposite_are_one():
    graph = build([[0, 1, 0, 1, 2], [4, 2]], np.arange(10.0).reshape(5, 2), Graphs())
    directed, undirected = graph.as_igraph(directed=True), graph.as_igraph(directed=False)
    assert directed.get_edgelist() == [(0, 1), (1, 0), (1, 2), (3, 2)]
    assert directed.es["count"] == [2, 1, 1, 1]
    assert undirected.get_edgelist() == [(0, 1), (1, 2), (2, 3)]
    assert undirected.es["count"] == [3, 1, 1]
    assert undirected.es["distance"] == pytest.approx([8**0.5, 8**0.5, 32**0.5])
    assert undirected.is_simple()


@pytest.mark.parametrize("chunk", [4_000_000, 7])
def test_distances(chunk, monkeypatch):
    monkeypatch.setattr(graphs, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    centroids, paths = rng.normal(size=(12, 3)), random_paths(1)
    for metric in ("euclidean", "cosine"):
        graph = build(paths, centroids, Graphs(metric=metric))
        for (a, b), distance in zip(graph.nodes[graph.edges].tolist(), graph.distances.tolist(), strict=True):
            x, y = centroids[a], centroids[b]
            angle = sum(x * y) / (sum(x * x) * sum(y * y)) ** 0.5
            assert distance == pytest.approx(1 - angle if metric == "cosine" else sum((x - y) ** 2) ** 0.5)


@pytest.mark.parametrize("chunk", [4_000_000, 15])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_nodes_are_linked_in_addition(metric, chunk, monkeypatch):
    monkeypatch.setattr(graphs, "_CHUNK", chunk)
    rng = np.random.default_rng(3)
    centroids = rng.normal(size=(20, 3)) * rng.uniform(0.1, 5, size=(20, 1))
    paths = [[0, 4, 9, 3], [9, 15, 2, 19], [7]]
    plain, linked = build(paths, centroids, Graphs()), build(paths, centroids, Graphs(nearest=2, metric=metric))
    size = np.linalg.norm(centroids, axis=1)
    expected = set()
    for a in plain.nodes.tolist():
        others = [b for b in plain.nodes.tolist() if b != a]
        if metric == "cosine":
            others.sort(key=lambda b: -(centroids[a] @ centroids[b]) / (size[a] * size[b]))
        else:
            others.sort(key=lambda b: np.linalg.norm(centroids[a] - centroids[b]))
        expected |= {(a, b) for b in others[:2]}
    passed = {tuple(e): c for e, c in zip(plain.nodes[plain.edges].tolist(), plain.counts.tolist(), strict=True)}
    found = {tuple(e): c for e, c in zip(linked.nodes[linked.edges].tolist(), linked.counts.tolist(), strict=True)}
    assert expected - set(passed), "the case must add something"
    assert found == {**dict.fromkeys(expected, 0), **passed}
    assert list(found) == sorted(found)
    assert linked.visits.tolist() == plain.visits.tolist()


def test_nearest_of_equal_ones_is_the_smaller_id_and_never_more_than_there_are():
    line = np.array([[0.0], [1.0], [2.0]])
    graph = build([[0], [1], [2]], line, Graphs(nearest=1))
    assert graph.edges.tolist() == [[0, 1], [1, 0], [2, 1]]
    assert len(build([[0], [1], [2]], line, Graphs(nearest=50)).edges) == 6


def test_what_cannot_be_built():
    with pytest.raises(ValueError, match="need the centroids"):
        build([[0, 1]], None, Graphs(weighted=True))
    with pytest.raises(ValueError, match="need the centroids"):
        build([[0, 1]], None, Graphs(nearest=1))
    with pytest.raises(ValueError, match="below 2"):
        build([[0, 2]], np.zeros((2, 3)), Graphs())
    with pytest.raises(ValueError, match="at least 0"):
        build([[0, -1]], None, Graphs())


def test_limited_takes_whole_responses_and_cuts_the_last():
    paths = [path for path in random_paths(11) if path]
    whole = [without_repeats(path) for path in paths]
    total = sum(map(len, whole))
    for visits in (0, 1, total // 2, total):
        taken = [path.tolist() for path in limited(paths, visits, seed=4)]
        assert sum(map(len, taken)) == visits
        left = list(whole)
        for path in taken[:-1]:
            left.remove(path)  # each response at most once
        assert not taken or any(path[: len(taken[-1])] == taken[-1] for path in left)
        assert build(taken, None, Graphs()).visits.sum() == visits
    with pytest.raises(ValueError, match="hold"):
        limited(paths, total + 1, seed=4)


def test_limited_draws_by_the_seed():
    paths = [[i, i + 1, i + 2] for i in range(30)]
    first = [[path.tolist() for path in limited(paths, 20, seed)] for seed in (0, 0, 1)]
    assert first[0] == first[1]
    assert first[0] != first[2]
    chosen = Counter(limited(paths, 3, seed)[0][0] for seed in range(600))
    assert len(chosen) == 30
    assert max(chosen.values()) < 50  # 20 are expected of each; 50 is more than 6 standard deviations above
