"""Graphlet counts against all sets of four nodes, one by one, and against igraph's enumeration."""

from itertools import combinations

import igraph
import networkx as nx
import numpy as np
import pytest

from dereason.analysis.graphlets import GRAPHLETS, count, graphlets
from dereason.analysis.graphs import build
from dereason.analysis.settings import Graphs

SHAPES = {
    "path": [(0, 1), (1, 2), (2, 3)],
    "star": [(0, 1), (0, 2), (0, 3)],
    "cycle": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "paw": [(0, 1), (1, 2), (2, 0), (0, 3)],
    "diamond": [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)],
    "clique": [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)],
}


def one_by_one(net):
    """Each connected set of four nodes, told by the sorted degrees within it (which differ among the six)."""
    degrees = {tuple(sorted(d for _, d in nx.Graph(edges).degree())): name for name, edges in SHAPES.items()}
    assert len(degrees) == 6
    found = dict.fromkeys(GRAPHLETS, 0)
    for nodes in combinations(net, 4):
        part = net.subgraph(nodes)
        if nx.is_connected(part):
            found[degrees[tuple(sorted(d for _, d in part.degree()))]] += 1
    return found


def enumerated(n, edges):
    """Igraph's own counts; the place of each shape in its answer is asked of the shape itself."""
    place = {name: igraph.Graph(4, shape).isoclass() for name, shape in SHAPES.items()}
    found = igraph.Graph(n, edges).motifs_randesu(4)
    return {name: int(found[place[name]]) for name in GRAPHLETS}


def pairs(edges):
    return np.array(edges, dtype=np.int64).reshape(-1, 2)


@pytest.mark.parametrize("name", GRAPHLETS)
def test_each_shape_is_itself(name):
    assert count(4, pairs(SHAPES[name])) == {**dict.fromkeys(GRAPHLETS, 0), name: 1}


@pytest.mark.parametrize("density", [0.0, 0.15, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_one_by_one(density, seed):
    net = nx.gnp_random_graph(11, density, seed=seed)
    assert count(11, pairs(list(net.edges))) == one_by_one(net)


@pytest.mark.parametrize(
    "net",
    [
        nx.star_graph(9),
        nx.cycle_graph(8),
        nx.complete_graph(7),
        nx.complete_bipartite_graph(3, 5),
        nx.disjoint_union(nx.complete_graph(5), nx.wheel_graph(6)),
        nx.barabasi_albert_graph(14, 3, seed=1),
    ],
)
def test_known_graphs_one_by_one(net):
    assert count(len(net), pairs(list(net.edges))) == one_by_one(net)


@pytest.mark.parametrize("seed", range(3))
def test_a_graph_with_hubs_as_igraph_enumerates_it(seed):
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, 151)
    edges = rng.choice(150, size=(500, 2), p=weight / weight.sum())
    net = nx.Graph([edge for edge in edges.tolist() if edge[0] != edge[1]])
    found = count(150, edges)  # with loops and repeats, in either direction
    assert found == enumerated(150, list(net.edges))
    assert min(found.values()) > 0


def test_a_clique_at_scale():
    # 200 nodes, all linked: C(200, 4) cliques and nothing else. Far beyond what could be listed here.
    rows, columns = np.triu_indices(200, k=1)
    found = count(200, np.column_stack([rows, columns]))
    assert found == {**dict.fromkeys(GRAPHLETS, 0), "clique": 64_684_950}


def test_shares():
    # A triangle 0 1 2 with 3 linked to 0 and 4 to 3: paws 0123; paths 1 0 3 4 and 2 0 3 4; nothing else connected.
    shares = graphlets(build([[0, 1, 2, 0, 3, 4]], None, Graphs()))
    assert tuple(shares) == GRAPHLETS
    assert shares == pytest.approx({**dict.fromkeys(GRAPHLETS, 0), "paw": 1 / 3, "path": 2 / 3})
    assert graphlets(build([[0, 3, 4], [3, 0, 2, 0, 1, 2]], None, Graphs())) == pytest.approx(shares)


@pytest.mark.parametrize("paths", [[], [[1]], [[1, 2, 3]], [[1, 2, 3, 1], [4, 5]]])
def test_no_four_connected_nodes(paths):
    assert graphlets(build(paths, None, Graphs())) == dict.fromkeys(GRAPHLETS)
