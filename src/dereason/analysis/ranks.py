"""Rank curves of a reasoning graph and how fast they fall: log10 X(R) = alpha - beta R (arXiv 2509.21128).

X(R) is the R-th largest of a quantity of the nodes, R from 1. A larger beta means that visits (or links, or the paths
between other nodes) gather on fewer nodes: the model is squeezed.

How far beta can be trusted (benchmarks/planted_decay.py): where the curve truly is exponential and falls by four
decades or more before the nodes end, a few hundred visits give beta a few percent too small, for both models alike, and
their ratio right to a few percent. A flatter curve over few nodes is steepened by chance: a ratio then lies nearer to 1
than the truth, and 1 stays 1. Where the curve falls in another way (a power law, say), beta sinks as visits are added,
and a ratio of models with unequal numbers of visits says little: compare at equal numbers
(:func:`~dereason.analysis.graphs.limited`), and look at r2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dereason.analysis.graphs import Floats, ReasoningGraph
from dereason.analysis.settings import Graphs

if TYPE_CHECKING:
    import igraph

QUANTITIES = ("visits", "degree", "betweenness")

# Igraph's weighted shortest paths need lengths above 0, and take paths for equally long below a relative 1e-10.
_SHORTEST = 1e-6


@dataclass(frozen=True)
class Decay:
    """The line log10 X(R) = alpha - beta R through a rank curve."""

    alpha: float
    beta: float
    """Decades per rank; the same whatever unit X is in."""
    r2: float
    """Share of the variance of log10 X that the line explains; 1 where all X are equal."""
    n: int
    """Ranks that the line is fitted to: the nodes with X > 0."""


def quantities(graph: ReasoningGraph, settings: Graphs) -> dict[str, Floats]:
    """For each of :data:`QUANTITIES` the value of every node, (n,), in the order of ``graph.nodes``.

    - ``visits``: the share of all visits that a node has.
    - ``degree``: the number of nodes it is linked with. ``directed``: the number of edges that enter or leave it, so
      two nodes linked both ways count twice. ``weighted``: how often these edges are passed, which is the same whether
      directed or not.
    - ``betweenness``: the share of all ordered pairs of other nodes (0 where there are none) whose shortest path leads
      through it; of several equally short paths each counts for its part. ``directed``: along the edges' direction.
      ``weighted``: an edge is as long as its ends' centroids are far apart, at least a millionth of the longest, so
      that nodes with the same centroid remain two.
    """
    n = len(graph.nodes)
    net = graph.as_igraph(directed=settings.directed)
    degree = net.strength(weights="count") if settings.weighted else net.degree()
    through = net.betweenness(directed=settings.directed, weights=_lengths(net) if settings.weighted else None)
    pairs = (n - 1) * (n - 2) / (1 if settings.directed else 2)
    return {
        "visits": graph.visits / max(1, graph.visits.sum()),
        "degree": np.array(degree, dtype=np.float64),
        "betweenness": np.array(through, dtype=np.float64) / max(1.0, pairs),
    }


def ranked(values: Floats) -> Floats:
    """The rank curve of a quantity: its positive values, largest first."""
    kept = values[values > 0]
    return np.sort(kept)[::-1]


def fit(values: Floats) -> Decay | None:
    """The decay of the rank curve of ``values``, by least squares of log10 X on R over all X > 0.

    Returns:
        None where fewer than 3 values are positive: a line through two points says nothing of a decay.
    """
    curve = np.log10(ranked(np.asarray(values, dtype=np.float64)))
    n = len(curve)
    if n < 3:
        return None
    rank = np.arange(1, n + 1) - (n + 1) / 2
    centred = curve - curve.mean()
    slope = float(rank @ centred / (rank @ rank))
    total = float(centred @ centred)
    left = float(((centred - slope * rank) ** 2).sum())
    r2 = 1.0 - left / total if curve[0] > curve[-1] else 1.0
    return Decay(alpha=float(curve.mean()) - slope * (n + 1) / 2, beta=-slope, r2=r2, n=n)


def _lengths(net: igraph.Graph) -> list[float]:
    lengths = np.array(net.es["distance"], dtype=np.float64)
    longest = lengths.max(initial=0.0)
    if longest == 0:
        return [1.0] * len(lengths)
    bounded: list[float] = np.maximum(lengths, _SHORTEST * longest).tolist()
    return bounded
