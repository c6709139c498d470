"""Reasoning graphs: the nodes that a model's responses to one problem pass, and how it goes from one to the next.

A path is the sequence of nodes of one response; the nodes are shared by all models that are compared, so graphs of
different models can be laid over each other. A graph holds how often each node is visited and each ordered pair of
nodes is passed in all responses together (arXiv 2509.21128, whose text leaves open whether direction and counts enter
a metric: that is for :class:`~dereason.analysis.settings.Graphs` to say, and for each metric's docstring).

Shapes: n nodes of the graph, e edges, K nodes shared by all graphs, D dimensions of the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dereason.analysis.settings import Graphs

if TYPE_CHECKING:
    import igraph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Path = Sequence[int] | Ints
"""Nodes in the order in which one response visits them."""

# How many distances between nodes are held at once (32 MB).
_CHUNK = 4_000_000


@dataclass(frozen=True)
class ReasoningGraph:
    """A directed graph without loops; each ordered pair of nodes has at most one edge."""

    nodes: Ints
    """(n,) the shared ids of the visited nodes, rising."""
    visits: Ints
    """(n,) how often each is visited in all responses; a response that comes back to a node counts again."""
    edges: Ints
    """(e, 2) from and to, as positions in ``nodes`` (``nodes[edges]`` are the ids), in rising order."""
    counts: Ints
    """(e,) how often each edge is passed; 0 where only nearness links the two (``Graphs.nearest``)."""
    distances: Floats
    """(e,) between the centroids of the two nodes; 1 where no centroids were given."""

    def as_igraph(self, *, directed: bool) -> igraph.Graph:
        """The same graph for igraph: n vertices, edge attributes ``count`` and ``distance``.

        Undirected, an edge and its opposite become one, whose count is the sum of theirs: the graph is simple.
        """
        import igraph

        n, edges, counts, distances = len(self.nodes), self.edges, self.counts, self.distances
        if not directed:
            keys, first, inverse = np.unique(
                edges.min(axis=1) * n + edges.max(axis=1), return_index=True, return_inverse=True
            )
            edges = np.column_stack([keys // n, keys % n])
            counts = np.zeros(len(keys), dtype=np.int64)
            np.add.at(counts, inverse, self.counts)
            distances = distances[first]  # both directions are equally long
        return igraph.Graph(
            n=n,
            edges=edges.tolist(),
            directed=directed,
            edge_attrs={"count": counts.tolist(), "distance": distances.tolist()},
        )


def build(paths: Sequence[Path], centroids: Floats | None, settings: Graphs) -> ReasoningGraph:
    """The reasoning graph of the responses that ``paths`` holds, one path for each.

    Args:
        paths: ids of nodes, at least 0. A node that follows itself is one visit, whether or not the caller has merged
            such repeats already. An empty path adds nothing, a path of one node a visit.
        centroids: (K, D), the row of each id; None where distances play no part.
        settings: ``metric`` says how long an edge is; ``nearest`` links each visited node also with the visited nodes
            that are nearest to it (of equally near ones those with smaller ids), in addition to the edges passed.

    Raises:
        ValueError: an id is negative or has no centroid, or the settings need centroids and there are none.
    """
    if centroids is None and (settings.weighted or settings.nearest is not None):
        raise ValueError("weighted edges and nearest nodes need the centroids of the nodes")
    whole = [_merged(path) for path in paths]
    steps = np.concatenate([np.empty(0, dtype=np.int64), *whole])
    owner = np.repeat(np.arange(len(whole)), [len(path) for path in whole])
    if steps.size and (steps.min() < 0 or (centroids is not None and steps.max() >= len(centroids))):
        raise ValueError(f"node ids must be at least 0{'' if centroids is None else f' and below {len(centroids)}'}")

    nodes, position, visits = np.unique(steps, return_inverse=True, return_counts=True)
    n = len(nodes)
    within = owner[1:] == owner[:-1]
    keys, counts = np.unique((position[:-1] * n + position[1:])[within], return_counts=True)
    if settings.nearest is not None and centroids is not None and n > 1:
        near = _nearest(centroids[nodes], settings.nearest, settings.metric)
        added = np.setdiff1d((np.arange(n)[:, None] * n + near).ravel(), keys)
        keys, counts = np.concatenate([keys, added]), np.concatenate([counts, np.zeros(len(added), dtype=np.int64)])
        order = np.argsort(keys)
        keys, counts = keys[order], counts[order]
    edges = np.column_stack([keys // max(n, 1), keys % max(n, 1)]).astype(np.int64)
    return ReasoningGraph(nodes, visits, edges, counts, _lengths(edges, nodes, centroids, settings.metric))


def limited(paths: Sequence[Path], visits: int, seed: int) -> list[Ints]:
    """Responses in random order, as many as make up exactly this many visits; the last one is cut off.

    How fast a rank curve falls depends on how many visits it is made of (unless it is exactly exponential, and then for
    degree and betweenness still). A model whose responses are longer makes more visits with the same number of
    responses, so two models should also be compared at as many visits as the one with fewer has.

    Args:
        paths: as for :func:`build`; a node that follows itself is one visit.
        visits: between 0 and the visits of all paths together.
        seed: of the order.

    Raises:
        ValueError: the paths hold fewer visits.
    """
    whole = [_merged(path) for path in paths]
    if not 0 <= visits <= sum(len(path) for path in whole):
        raise ValueError(f"asked for {visits} visits, the paths hold {sum(len(path) for path in whole)}")
    taken: list[Ints] = []
    for index in np.random.default_rng(seed).permutation(len(whole)):
        if not visits:
            break
        taken.append(whole[index][:visits])
        visits -= len(taken[-1])
    return taken


def _merged(path: Path) -> Ints:
    """The path with each node that follows itself once."""
    steps = np.asarray(path, dtype=np.int64)
    return steps[np.concatenate([[True], steps[1:] != steps[:-1]])] if len(steps) else steps


def _lengths(edges: Ints, nodes: Ints, centroids: Floats | None, metric: str) -> Floats:
    """(e,) the distance between the centroids of each edge's ends."""
    if centroids is None:
        return np.ones(len(edges))
    points = np.asarray(centroids[nodes], dtype=np.float64)
    if metric == "cosine":
        points = _unit(points)
    # In blocks: the differences of all edges at once would take e x D numbers.
    block = max(1, _CHUNK // max(1, points.shape[1]))
    squares = [
        ((points[part[:, 0]] - points[part[:, 1]]) ** 2).sum(axis=1)
        for part in (edges[start : start + block] for start in range(0, len(edges), block))
    ]
    square: Floats = np.concatenate([np.empty(0), *squares])
    return square / 2 if metric == "cosine" else np.sqrt(square)


def _nearest(centroids: Floats, count: int, metric: str) -> Ints:
    """(n, min(count, n - 1)) the positions of each node's nearest others."""
    from scipy.spatial.distance import cdist

    points = np.asarray(centroids, dtype=np.float64)
    if metric == "cosine":
        points = _unit(points)  # then nearest by Euclid is nearest by angle
    n = len(points)
    found = np.empty((n, min(count, n - 1)), dtype=np.int64)
    rows = max(1, _CHUNK // n)
    for start in range(0, n, rows):
        distance = cdist(points[start : start + rows], points)
        distance[np.arange(len(distance)), start + np.arange(len(distance))] = np.inf
        found[start : start + rows] = np.argsort(distance, axis=1, kind="stable")[:, : found.shape[1]]
    return found


def _unit(points: Floats) -> Floats:
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(np.float64).tiny)
