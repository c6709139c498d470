"""Rank curves: the quantities against networkx, the line against scipy."""

import networkx as nx
import numpy as np
import pytest
from scipy.stats import linregress

from dereason.analysis.graphs import build
from dereason.analysis.ranks import QUANTITIES, fit, quantities, ranked
from dereason.analysis.settings import Graphs

CENTROIDS = np.random.default_rng(5).normal(size=(40, 4))


def some_paths(seed):
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, 41)
    return [rng.choice(40, size=rng.integers(1, 12), p=weight / weight.sum()).tolist() for _ in range(15)]


def reference(graph, directed):
    """The same graph in networkx, with counts added up and lengths at least a millionth of the longest."""
    net = nx.DiGraph() if directed else nx.Graph()
    net.add_nodes_from(range(len(graph.nodes)))
    shortest = 1e-6 * graph.distances.max()
    for (a, b), count, distance in zip(graph.edges.tolist(), graph.counts, graph.distances, strict=True):
        before = net.edges[a, b]["count"] if net.has_edge(a, b) else 0
        net.add_edge(a, b, count=before + count, length=max(distance, shortest))
    return net


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("nearest", [None, 2])
@pytest.mark.parametrize("seed", range(3))
def test_degree_and_betweenness_are_those_of_networkx(directed, weighted, nearest, seed):
    settings = Graphs(directed=directed, weighted=weighted, nearest=nearest)
    graph = build(some_paths(seed), CENTROIDS, settings)
    found, net = quantities(graph, settings), reference(graph, directed)
    assert tuple(found) == QUANTITIES
    degree = dict(net.degree(weight="count" if weighted else None))
    assert found["degree"].tolist() == [degree[i] for i in range(len(graph.nodes))]
    between = nx.betweenness_centrality(net, weight="length" if weighted else None)
    assert found["betweenness"] == pytest.approx([between[i] for i in range(len(graph.nodes))], abs=1e-9)
    assert found["visits"] == pytest.approx(graph.visits / graph.visits.sum())


def test_every_switch_changes_what_it_should():
    paths = some_paths(0)

    def of(**fields):
        settings = Graphs(**fields)
        return quantities(build(paths, CENTROIDS, settings), settings)

    plain, weighted = of(), of(weighted=True)
    for fields in ({"directed": True}, {"weighted": True}, {"nearest": 3}):
        other = of(**fields)
        assert other["visits"].tolist() == plain["visits"].tolist()
        assert other["degree"].tolist() != plain["degree"].tolist()
        assert other["betweenness"].tolist() != plain["betweenness"].tolist()
    assert of(weighted=True, metric="cosine")["betweenness"].tolist() != weighted["betweenness"].tolist()
    assert of(weighted=True, directed=True)["degree"].tolist() == weighted["degree"].tolist()


def test_nodes_with_the_same_centroid_stay_two():
    # 0 and 3 are linked over 1, over 2, and over 4 then 5. All but 2 lie in one point, so both ways without 2 have no
    # length at all; the one with fewer links is the shorter.
    centroids = np.zeros((6, 2))
    centroids[2] = [1.0, 0.0]
    settings = Graphs(weighted=True)
    graph = build([[0, 1, 3], [0, 2, 3], [0, 4, 5, 3]], centroids, settings)
    # Of the 10 pairs without it: 1, 4 and 5 lie between their neighbours in the ring 0 1 3 5 4; 0 lies between 1 and 4,
    # 2 and 4, and on half of the ways from 2 to 1; 3 likewise; 2 between none.
    between = dict(zip(graph.nodes.tolist(), quantities(graph, settings)["betweenness"] * 10, strict=True))
    assert between == pytest.approx({0: 2.5, 1: 1, 2: 0, 3: 2.5, 4: 1, 5: 1})
    # All in one point: as without weights.
    flat = build([[0, 1, 3], [0, 2, 3], [0, 4, 5, 3]], np.zeros((6, 2)), settings)
    assert quantities(flat, settings)["betweenness"] == pytest.approx(quantities(flat, Graphs())["betweenness"])


def test_small_graphs():
    def of(paths):
        return {name: v.tolist() for name, v in quantities(build(paths, None, Graphs()), Graphs()).items()}

    assert of([]) == {"visits": [], "degree": [], "betweenness": []}
    assert of([[8]]) == {"visits": [1.0], "degree": [0.0], "betweenness": [0.0]}
    assert of([[1, 2], [2, 1]]) == {"visits": [0.5, 0.5], "degree": [1.0, 1.0], "betweenness": [0.0, 0.0]}
    star = of([[0, leaf] for leaf in range(1, 6)])
    assert star["degree"] == [5, 1, 1, 1, 1, 1]
    assert star["betweenness"] == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    values = rng.poisson(2, size=30) * rng.uniform(0.1, 2, size=30)
    positive = sorted((v for v in values if v > 0), reverse=True)
    line = linregress(np.arange(1, len(positive) + 1), np.log10(positive))
    decay = fit(values)
    assert decay is not None
    assert decay.n == len(positive) < 30
    assert (decay.alpha, decay.beta, decay.r2) == pytest.approx((line.intercept, -line.slope, line.rvalue**2))
    assert ranked(values).tolist() == positive


def test_an_exact_exponential_is_recovered():
    decay = fit(10 ** (1.5 - 0.25 * np.arange(1, 9)))
    assert decay is not None
    assert (decay.alpha, decay.beta, decay.r2, decay.n) == pytest.approx((1.5, 0.25, 1.0, 8))


def test_beta_depends_neither_on_the_unit_nor_on_the_order():
    values = np.random.default_rng(2).poisson(5, size=40).astype(float)
    whole, share = fit(values), fit(values[::-1] / values.sum())
    assert whole is not None
    assert share is not None
    assert share.beta == pytest.approx(whole.beta, rel=1e-12)
    assert share.r2 == pytest.approx(whole.r2)
    assert share.alpha == pytest.approx(whole.alpha - np.log10(values.sum()))


def test_too_few_values_have_no_decay_and_equal_ones_a_flat_one():
    assert fit(np.array([])) is None
    assert fit(np.array([3.0, 1.0, 0.0, 0.0])) is None
    assert fit(np.array([4.0, 2.0, 1.0])) is not None
    flat = fit(np.full(7, 0.3))
    assert flat is not None
    assert flat.beta == pytest.approx(0, abs=1e-12)
    assert flat.r2 == 1
