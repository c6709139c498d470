"""How the six connected graphlets of four nodes share out a graph: exact counts without listing them.

A graph with hubs holds many millions of such graphlets, and listing them (igraph's ``motifs_randesu(4)``, which gives
the same numbers) takes a minute for one graph. Counting needs none of that: how many sets of edges form each shape
follows from degrees, triangles and common neighbours, and the number of sets of four nodes whose links are exactly
that shape follows from those by a triangular system (the idea of ESCAPE, Pinar, Seshadhri and Vishal, 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dereason.analysis.graphs import Ints, ReasoningGraph

if TYPE_CHECKING:
    from scipy.sparse import csr_array

GRAPHLETS = ("path", "star", "cycle", "paw", "diamond", "clique")


def graphlets(graph: ReasoningGraph) -> dict[str, float | None]:
    """The share of each of :data:`GRAPHLETS` among all sets of four nodes that are connected.

    Two nodes are linked if an edge leads from either to the other; a set counts as the one shape that all the links
    among its four nodes form (``paw``: a triangle with a tail). The shares sum to 1; each is None where no four nodes
    are connected.
    """
    counts = count(len(graph.nodes), graph.edges)
    total = sum(counts.values())
    return {name: number / total if total else None for name, number in counts.items()}


def count(n: int, edges: Ints) -> dict[str, int]:
    """How many sets of four of n nodes have each of :data:`GRAPHLETS` as their links.

    Args:
        n: nodes.
        edges: (e, 2) pairs of them; direction, repeats and loops do not matter.
    """
    from scipy.sparse import csr_array, triu

    linked = edges[edges[:, 0] != edges[:, 1]]
    if not len(linked):
        return dict.fromkeys(GRAPHLETS, 0)
    both = np.concatenate([linked, linked[:, ::-1]])
    adjacency = csr_array((np.ones(len(both), dtype=np.int64), (both[:, 0], both[:, 1])), shape=(n, n))
    adjacency.data[:] = 1  # repeats were summed
    degree = np.diff(adjacency.indptr).astype(np.int64)
    shared = triu(adjacency @ adjacency, k=1).data  # common neighbours of each two nodes
    row, column = triu(adjacency, k=1).nonzero()
    on_edge = triu((adjacency @ adjacency) * adjacency, k=1).tocoo()
    triangles = on_edge.data  # on each edge
    at_node = np.zeros(n, dtype=np.int64)
    np.add.at(at_node, on_edge.row, triangles)
    np.add.at(at_node, on_edge.col, triangles)
    at_node //= 2  # each triangle has two edges at each of its nodes

    # Sets of edges that form each shape, whatever other links their nodes have.
    star = int((degree * (degree - 1) * (degree - 2) // 6).sum())
    path = int(((degree[row] - 1) * (degree[column] - 1)).sum()) - int(triangles.sum())
    paw = int((at_node * (degree - 2)).sum())
    cycle = int((shared * (shared - 1) // 2).sum()) // 2
    diamond = int((triangles * (triangles - 1) // 2).sum())
    clique = _cliques(adjacency, degree)

    # Less those that lie in a set of nodes with more links: a clique holds 6 diamonds, 3 cycles, 12 paws and so on.
    diamond -= 6 * clique
    cycle -= diamond + 3 * clique
    paw -= 4 * diamond + 12 * clique
    path -= 2 * paw + 4 * cycle + 6 * diamond + 12 * clique
    star -= paw + 2 * diamond + 4 * clique
    return {"path": path, "star": star, "cycle": cycle, "paw": paw, "diamond": diamond, "clique": clique}


def _cliques(adjacency: csr_array, degree: Ints) -> int:
    """Sets of four nodes that are all linked.

    Each is found at its node of least degree, as a triangle among those of its neighbours that have a higher degree (or
    the same and a higher position). A node has at most sqrt(2 e) such neighbours, whatever its degree.
    """
    position = np.empty(len(degree), dtype=np.int64)
    position[np.argsort(degree, kind="stable")] = np.arange(len(degree))
    total = 0
    for node in range(len(degree)):
        others = adjacency.indices[adjacency.indptr[node] : adjacency.indptr[node + 1]]
        others = others[position[others] > position[node]]
        if len(others) >= 3:
            among = adjacency[others][:, others].toarray().astype(np.float64)
            total += round(float(((among @ among) * among).sum())) // 6
    return total
