"""The eight metrics against networkx, dense linear algebra and closed forms."""

import random

import igraph
import networkx as nx
import numpy as np
import pytest

from dereason.analysis import topology as module
from dereason.analysis.graphs import ReasoningGraph, build
from dereason.analysis.settings import Graphs
from dereason.analysis.topology import METRICS, algebraic_connectivity, topology


def of(net, seed=0, **fields):
    """The metrics of a networkx graph whose edges point anywhere."""
    return topology(as_reasoning_graph(net), Graphs(**fields), seed)


def as_reasoning_graph(net):
    net = nx.convert_node_labels_to_integers(net)
    n, edges = len(net), np.array(sorted(net.edges), dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(edges), dtype=np.int64)
    return ReasoningGraph(np.arange(n), np.ones(n, dtype=np.int64), edges, ones, ones.astype(float))


def giant(net):
    return net.subgraph(max(nx.connected_components(net), key=len))


RANDOM = [
    nx.gnp_random_graph(n, p, seed=seed)
    for n, p, seed in [(12, 0.3, 0), (30, 0.05, 1), (30, 0.2, 2), (60, 0.03, 3), (60, 0.1, 4), (9, 0.8, 5)]
] + [nx.barabasi_albert_graph(80, 2, seed=6), nx.disjoint_union(nx.path_graph(9), nx.star_graph(5))]


@pytest.mark.parametrize("net", RANDOM)
def test_against_networkx(net):
    found, n = of(net, null_samples=1), len(net)
    assert tuple(found) == METRICS
    assert found["edge_density"] == pytest.approx(nx.density(net))
    assert found["assortativity"] == pytest.approx(nx.degree_assortativity_coefficient(net))
    assert found["global_efficiency"] == pytest.approx(nx.global_efficiency(net))
    most = max(dict(net.degree).values())
    freeman = sum(most - degree for _, degree in net.degree) / ((n - 1) * (n - 2))
    assert found["centralisation"] == pytest.approx(freeman)
    laplacian = nx.laplacian_matrix(giant(net)).toarray().astype(float)
    assert found["algebraic_connectivity"] == pytest.approx(np.linalg.eigvalsh(laplacian)[1])


def test_direction_repeats_and_counts_do_not_matter():
    once = build([[0, 1, 2, 0, 3, 4], [5, 6]], None, Graphs())
    often = build([[4, 3, 0, 2, 1, 0], [6, 5, 6], [0, 1, 0, 1, 2]], None, Graphs())
    assert topology(once, Graphs(), 0) == topology(often, Graphs(directed=True), 0)


def test_closed_forms():
    star = of(nx.star_graph(7))
    assert star["centralisation"] == 1
    assert star["assortativity"] == pytest.approx(-1)
    assert star["algebraic_connectivity"] == pytest.approx(1)
    assert star["clustering"] is None  # no triangle, and none in a random graph with these degrees
    cycle = of(nx.cycle_graph(9))
    assert cycle["centralisation"] == 0
    assert cycle["assortativity"] is None
    assert cycle["algebraic_connectivity"] == pytest.approx(2 - 2 * np.cos(2 * np.pi / 9))
    clique = of(nx.complete_graph(6))
    assert (clique["edge_density"], clique["global_efficiency"], clique["centralisation"]) == (1, 1, 0)
    assert clique["algebraic_connectivity"] == pytest.approx(6)
    assert clique["clustering"] == clique["path_length"] == 1  # nothing else has these degrees
    assert of(nx.path_graph(10))["algebraic_connectivity"] == pytest.approx(2 - 2 * np.cos(np.pi / 10))


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], {}),
        ([[4]], {}),
        ([[4], [5]], {"edge_density": 0, "global_efficiency": 0}),
        (
            [[4, 5]],
            {"edge_density": 1, "modularity": 0, "path_length": 1, "global_efficiency": 1, "algebraic_connectivity": 2},
        ),
        ([[4], [5], [6]], {"edge_density": 0, "global_efficiency": 0, "centralisation": 0}),
        (
            [[4, 5, 6]],
            {
                "edge_density": 2 / 3,
                "assortativity": -1,
                "modularity": 0,
                "centralisation": 1,
                "path_length": 1,
                "global_efficiency": 5 / 6,  # 1, 1 and 1/2
                "algebraic_connectivity": 1,
            },
        ),
    ],
)
def test_tiny_graphs(paths, expected):
    found = topology(build(paths, None, Graphs()), Graphs(), 0)
    assert {name for name, value in found.items() if value is None} == set(METRICS) - set(expected)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_equal_degrees_have_no_assortativity_nodes_without_links_aside():
    assert topology(build([[1, 2, 3, 1], [4]], None, Graphs()), Graphs(), 0)["assortativity"] is None
    assert topology(build([[1, 2, 3, 1], [4, 5]], None, Graphs()), Graphs(), 0)["assortativity"] == pytest.approx(1)


# The null model.


@pytest.mark.parametrize("null_model", ["degrees", "edges"])
def test_normalised_by_the_mean_of_the_null_model(null_model):
    net = nx.watts_strogatz_graph(60, 8, 0.1, seed=1)  # clustered: both ratios are above 1
    settings = Graphs(null_model=null_model, null_samples=100)
    found = topology(as_reasoning_graph(net), settings, seed=3)
    clustering, length = [], []
    for seed in range(50):
        if null_model == "degrees":
            null = nx.double_edge_swap(net.copy(), nswap=10 * net.size(), max_tries=10**6, seed=seed)
        else:
            null = nx.gnm_random_graph(len(net), net.size(), seed=seed)
        clustering.append(nx.average_clustering(null))
        length.append(nx.average_shortest_path_length(giant(null)))
    assert found["clustering"] == pytest.approx(nx.average_clustering(net) / np.mean(clustering), rel=0.04)
    assert found["path_length"] == pytest.approx(nx.average_shortest_path_length(net) / np.mean(length), rel=0.01)
    assert found["clustering"] > 2


def test_the_two_null_models_differ():
    net = nx.barabasi_albert_graph(80, 3, seed=2)
    by_degrees, by_edges = (of(net, null_model=model, null_samples=20) for model in ("degrees", "edges"))
    # Hubs make triangles by themselves, which only the model that keeps the hubs allows for.
    assert by_edges["clustering"] > 1.3 * by_degrees["clustering"]


def test_a_mean_and_not_one_graph():
    net = nx.gnp_random_graph(30, 0.15, seed=1)
    few, many = (np.std([of(net, seed, null_samples=k)["clustering"] for seed in range(20)]) for k in (1, 16))
    assert 0 < many < few / 2


def test_the_largest_component_counts_for_lengths():
    net = nx.disjoint_union(nx.cycle_graph(12), nx.complete_graph(3))
    rewired = of(net, seed=5, null_samples=3)["path_length"]
    with module._seeded(5):
        graph = as_reasoning_graph(net).as_igraph(directed=False)
        nulls = []
        for _ in range(3):
            null = graph.copy()
            null.rewire(n=10 * 15)
            nulls.append(nx.Graph(null.get_edgelist()))
    mean = np.mean([nx.average_shortest_path_length(giant(null)) for null in nulls])
    assert rewired == pytest.approx(nx.average_shortest_path_length(nx.cycle_graph(12)) / mean)


# Communities.


@pytest.mark.parametrize("communities", ["louvain", "leiden", "fast_greedy"])
def test_modularity_of_communities_that_are_plain_to_see(communities):
    net = nx.ring_of_cliques(5, 6)
    cliques = [set(range(6 * i, 6 * i + 6)) for i in range(5)]
    expected = nx.community.modularity(net, cliques)
    assert of(net, communities=communities)["modularity"] == pytest.approx(expected)


@pytest.mark.parametrize("communities", ["louvain", "leiden", "fast_greedy"])
@pytest.mark.parametrize("seed", range(3))
def test_modularity_is_near_the_largest_of_all_partitions(communities, seed):
    net = nx.gnp_random_graph(7, 0.4, seed=seed)
    best = max(nx.community.modularity(net, parts) for parts in partitions(list(net)))
    assert best - 0.05 <= of(net, communities=communities)["modularity"] <= best + 1e-12


def partitions(nodes):
    if not nodes:
        yield []
        return
    for rest in partitions(nodes[1:]):
        yield [{nodes[0]}, *rest]
        for i, part in enumerate(rest):
            yield [*rest[:i], part | {nodes[0]}, *rest[i + 1 :]]


def test_the_algorithm_matters():
    net = nx.gnp_random_graph(150, 0.05, seed=0)
    found = {a: of(net, communities=a, null_samples=1)["modularity"] for a in ("louvain", "leiden", "fast_greedy")}
    assert len(set(found.values())) == 3
    assert found["leiden"] > found["fast_greedy"]


# Chance.


def test_the_same_seed_gives_the_same_numbers_and_no_generator_is_moved():
    net = nx.gnp_random_graph(100, 0.06, seed=2)
    random.seed(7)
    np.random.seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first, again, other = of(net, seed=1), of(net, seed=1), of(net, seed=2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert first == again
    for name in ("clustering", "path_length", "modularity"):
        assert first[name] != other[name]
    # Igraph draws from Python's generator again, as it does by default.
    random.seed(7)
    drawn = igraph.Graph.Erdos_Renyi(20, m=30).get_edgelist()
    random.seed(7)
    assert igraph.Graph.Erdos_Renyi(20, m=30).get_edgelist() == drawn


def test_the_generator_is_given_back_after_an_error():
    def draws():
        random.seed(7)
        return igraph.Graph.Erdos_Renyi(20, m=30).get_edgelist()

    usual = draws()
    with pytest.raises(RuntimeError), module._seeded(0):
        raise RuntimeError
    assert draws() == usual


# Algebraic connectivity above the size that is computed densely.

LARGE = {
    "path": (nx.path_graph(2000), 2 - 2 * np.cos(np.pi / 2000)),
    "cycle": (nx.cycle_graph(1001), 2 - 2 * np.cos(2 * np.pi / 1001)),
    "star": (nx.star_graph(1999), 1),
    "clique": (nx.complete_graph(450), 450),
    "bipartite": (nx.complete_bipartite_graph(200, 250), 200),
    "grid": (nx.grid_2d_graph(20, 40), 2 - 2 * np.cos(np.pi / 40)),
    "two cliques": (nx.barbell_graph(250, 0), None),
    "hubs": (nx.barabasi_albert_graph(600, 3, seed=0), None),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_graphs(name):
    net, expected = LARGE[name]
    assert len(net) > module._DENSE
    if expected is None:
        expected = np.linalg.eigvalsh(nx.laplacian_matrix(net).toarray().astype(float))[1]
    graph = as_reasoning_graph(net).as_igraph(directed=False)
    assert algebraic_connectivity(graph) == pytest.approx(expected, rel=1e-7)


def test_dense_where_the_iteration_fails(monkeypatch):
    from scipy.sparse import linalg

    def fails(*args, **kwargs):
        raise linalg.ArpackNoConvergence("no convergence", np.empty(0), np.empty((0, 0)))

    graph = as_reasoning_graph(nx.cycle_graph(500)).as_igraph(directed=False)
    usual = algebraic_connectivity(graph)
    monkeypatch.setattr(linalg, "eigsh", fails)
    dense = algebraic_connectivity(graph)
    assert dense == pytest.approx(2 - 2 * np.cos(2 * np.pi / 500))
    assert dense != usual  # another way was taken: the last digits differ
