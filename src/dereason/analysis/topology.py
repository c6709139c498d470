"""Eight numbers for the shape of a reasoning graph.

All take the graph as undirected, unweighted and without loops: two nodes are linked if an edge leads from either to the
other. So they can be read beside the six graphlets, and most have no agreed meaning on a directed graph.

The null model, the algorithm that finds communities and the mean that clustering is, are left open in arXiv 2509.21128;
those that are taken here are the common ones.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from dereason.analysis.graphs import ReasoningGraph
from dereason.analysis.settings import Graphs

if TYPE_CHECKING:
    import igraph

METRICS = (
    "edge_density",
    "clustering",
    "assortativity",
    "modularity",
    "centralisation",
    "path_length",
    "global_efficiency",
    "algebraic_connectivity",
)

# Up to this many nodes all eigenvalues are computed; above, only the two that are wanted.
_DENSE = 400
_GENERATOR = threading.Lock()


def topology(graph: ReasoningGraph, settings: Graphs, seed: int) -> dict[str, float | None]:
    """The :data:`METRICS` of a graph of n nodes and m links; None where one is undefined.

    - ``edge_density``: m of the n (n - 1) / 2 possible links. Needs 2 nodes.
    - ``clustering``: how often two neighbours of a node are linked, as a mean over nodes (0 for those with fewer than
      two neighbours), divided by the same of random graphs. None where those have no triangle.
    - ``assortativity``: correlation of the degrees at the two ends of a link. None where all of these are equal.
    - ``modularity``: of the partition that ``settings.communities`` finds: the share of links within communities above
      what the degrees alone would give. Needs a link.
    - ``centralisation``: Freeman's, of the degree: the sum of the differences to the largest degree, divided by that of
      a star, (n - 1) (n - 2). Needs 3 nodes.
    - ``path_length``: mean number of links between two nodes, in the largest component (of equally large ones, the
      first), divided by the same of random graphs. Needs a link.
    - ``global_efficiency``: mean over all pairs of 1 / distance, which is 0 for pairs without a path. Needs 2 nodes.
    - ``algebraic_connectivity``: second smallest eigenvalue of the Laplacian of the largest component (that of a graph
      with several is 0). Needs a link.

    Args:
        graph: as :func:`~dereason.analysis.graphs.build` makes it.
        settings: ``null_samples`` random graphs of all n nodes by ``null_model``: ``degrees`` exchanges the ends of
            links 10 m times, which leaves each node its degree; ``edges`` draws m links. ``communities`` as above.
        seed: of the random graphs and of the communities. Python's and numpy's global generators are left alone.
    """
    net = graph.as_igraph(directed=False)
    n, m = net.vcount(), net.ecount()
    giant = _giant(net)
    with _seeded(seed):
        modularity = _modularity(net, settings.communities) if m else None
    clustering = path_length = None
    if m:
        with _seeded(seed):
            nulls = [_null(net, settings.null_model) for _ in range(settings.null_samples)]
        expected = sum(_clustering(null) for null in nulls) / len(nulls)
        clustering = _clustering(net) / expected if expected else None
        path_length = _path_length(giant) * len(nulls) / sum(_path_length(_giant(null)) for null in nulls)
    degree = np.array(net.degree(), dtype=np.int64)
    return {
        "edge_density": 2 * m / (n * (n - 1)) if n > 1 else None,
        "clustering": clustering,
        "assortativity": _assortativity(net),
        "modularity": modularity,
        "centralisation": float((degree.max() - degree).sum()) / ((n - 1) * (n - 2)) if n > 2 else None,
        "path_length": path_length,
        "global_efficiency": _efficiency(net) if n > 1 else None,
        "algebraic_connectivity": algebraic_connectivity(giant) if m else None,
    }


def algebraic_connectivity(net: igraph.Graph) -> float:
    """The second smallest eigenvalue of the Laplacian of a connected undirected graph of at least 2 nodes (Fiedler)."""
    from scipy.linalg import eigvalsh
    from scipy.sparse import csc_array, csgraph
    from scipy.sparse.linalg import ArpackError, eigsh

    n = net.vcount()
    edges = np.array(net.get_edgelist(), dtype=np.int64)
    both = np.concatenate([edges, edges[:, ::-1]])
    laplacian = csgraph.laplacian(csc_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n)))
    if n > _DENSE:
        try:
            # Around a point just below 0 the smallest two are the ones that Lanczos finds first. The start is fixed, so
            # that the same graph gives the same number.
            start = np.random.default_rng(0).standard_normal(n)
            found = eigsh(laplacian.tocsc(), k=2, sigma=-1e-4, v0=start, return_eigenvectors=False)
            return float(max(found))
        except (ArpackError, RuntimeError):  # no convergence, or a factor that is not finite: all of them, then
            pass
    return float(eigvalsh(laplacian.toarray(), subset_by_index=[0, 1])[1])


def _modularity(net: igraph.Graph, algorithm: str) -> float:
    if algorithm == "louvain":
        communities = net.community_multilevel()
    elif algorithm == "leiden":
        communities = net.community_leiden(objective_function="modularity", n_iterations=-1)
    else:
        communities = net.community_fastgreedy().as_clustering()
    return float(net.modularity(communities))


def _null(net: igraph.Graph, model: str) -> igraph.Graph:
    """A random graph with the nodes of ``net`` and as many links; by ``degrees`` also with its degrees."""
    if model == "edges":
        return type(net).Erdos_Renyi(n=net.vcount(), m=net.ecount())
    null = net.copy()
    null.rewire(n=10 * net.ecount())
    return null


def _clustering(net: igraph.Graph) -> float:
    return float(net.transitivity_avglocal_undirected(mode="zero"))


def _giant(net: igraph.Graph) -> igraph.Graph:
    return net.connected_components(mode="weak").giant() if net.vcount() else net


def _distances(net: igraph.Graph) -> Iterator[tuple[int, int]]:
    """How many pairs of nodes lie at each distance; pairs without a path are left out."""
    for low, _, pairs in net.path_length_hist(directed=False).bins():
        yield int(low), int(pairs)


def _path_length(net: igraph.Graph) -> float:
    """Mean distance in a connected graph of at least 2 nodes."""
    pairs = net.vcount() * (net.vcount() - 1) / 2
    return sum(distance * number for distance, number in _distances(net)) / pairs


def _efficiency(net: igraph.Graph) -> float:
    pairs = net.vcount() * (net.vcount() - 1) / 2
    return sum(number / distance for distance, number in _distances(net)) / pairs


def _assortativity(net: igraph.Graph) -> float | None:
    # Asked of the degrees: with rounding, a variance that should be 0 may come out as something else.
    if len({degree for degree in net.degree() if degree}) < 2:
        return None
    return float(net.assortativity_degree(directed=False))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let igraph draw from a generator of our own, then again from Python's ``random``, which is its default.

    Igraph has one generator for the whole process and does not tell which, so threads take turns.
    """
    import igraph

    with _GENERATOR:
        igraph.set_random_number_generator(random.Random(seed))
        try:
            yield
        finally:
            igraph.set_random_number_generator(random)
