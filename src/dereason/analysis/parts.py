"""One problem: the trajectories and reasoning graphs of every model on it, as plain numbers.

A part is a pure function of the problem's responses, the sentence vectors and the settings, so problems are worked on
in separate processes and kept on disk. M responses of a model are its responses with a verdict; ``m`` of them, the same
for all models, is what everything is compared at: unique trajectories by rarefaction over all M, graphs over a random
subsample of m.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dereason.analysis.comparison import Info
from dereason.analysis.nodes import Nodes
from dereason.analysis.settings import Analysis
from dereason.analysis.stepping import own_nodes, walk

SIDES = ("correct", "incorrect")
CUTS = tuple(round(0.30 + 0.05 * i, 2) for i in range(13))
"""Similarities at which the curve over the cut is taken, besides the cut itself."""
_MOST_RANKS = 200
"""Ranks of a curve that are kept for the plot; the fit has all."""
_PICTURED = 14
"""Nodes of a picture."""
_SUBSETS = 64
"""Random subsets that diversity is the mean over."""
_LEAST_VISITS = 0.25
"""A graph with less than this share of the visits that models have in the median is none: it would make all others as
small, for they are compared at equally many."""
_EXAMPLES = 5
"""Clusters that examples are kept of, for each model and side."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Responses:
    """The responses of one model to one problem that have a verdict.

    Attributes:
        texts: M responses.
        correct: M verdicts, as right or not.
        index: their numbers in the sample table.
    """

    texts: tuple[str, ...]
    correct: tuple[bool, ...]
    index: tuple[int, ...]


@dataclass(frozen=True)
class Scale:
    """What all models are compared at.

    Attributes:
        m: responses per problem.
        c: responses of one side that diversity is compared at.
    """

    m: int
    c: int

    def grid(self) -> list[int]:
        """1, 2, 4, ... and m."""
        return sorted({2**i for i in range(self.m.bit_length())} | {self.m})


@dataclass(frozen=True)
class Work:
    """All that the findings on one problem depend on.

    Attributes:
        problem: its id.
        responses: model -> responses, the base first.
        scale: what models are compared at.
        settings: of the analysis.
        vectors: file of the sentence vectors, None without reasoning graphs or where ``nodes`` are given.
        nodes: sentence -> node and the nodes, where all problems share them.
    """

    problem: str
    responses: dict[str, Responses]
    scale: Scale
    settings: Analysis
    vectors: Path | None = None
    nodes: tuple[dict[str, int], Nodes] | None = None

    def sentences(self) -> dict[str, list[list[str]]]:
        """Model -> the sentences of m of its responses, or of those on the side that graphs are made of."""
        from dereason.analysis.sentences import split

        side, out = self.settings.graphs.responses, {}
        for at, (name, given) in enumerate(self.responses.items()):
            rng = np.random.default_rng([self.settings.seed, zlib.crc32(self.problem.encode()), at])
            some = subsample(given, self.scale.m, rng)
            texts = zip(some.texts, some.correct, strict=True)
            out[name] = [split(t) for t, right in texts if side == "all" or right == (side == "correct")]
        return out


def work_on(work: Work) -> Info:
    """Everything that is found on one problem.

    Returns:
        ``models``: name -> ``trajectories`` (see :func:`trajectories`) and ``graph`` (see :func:`graphs`), None without
        reasoning graphs; ``graphs``: ``sentences`` (their number) and ``picture``, or None.
    """
    found = {n: trajectories(r, work.scale, work.settings) for n, r in work.responses.items()}
    drawn: Info = {"models": {}}
    about = None
    if work.settings.steps is not None:
        sentences = work.sentences()
        if work.nodes is None:
            assert work.vectors is not None  # one of the two is given with steps
            node_of, nodes = own_nodes(sentences, work.vectors, work.settings.steps, work.settings.seed)
        else:
            node_of, nodes = work.nodes
        paths = {name: walk(responses, node_of) for name, responses in sentences.items()}
        drawn = graphs(paths, nodes.centroids, nodes.representatives, work.settings)
        about = {"sentences": sum(len(s) for r in sentences.values() for s in r), "picture": drawn["picture"]}
    models = {name: {"trajectories": t, "graph": drawn["models"].get(name)} for name, t in found.items()}
    return {"models": models, "graphs": about}


def trajectories(responses: Responses, scale: Scale, settings: Analysis) -> Info:
    """Unique trajectories of one model on one problem, correct and incorrect apart.

    Returns:
        For each side: ``n``; ``sizes`` of the clusters; ``labels`` and ``index`` of its responses; ``unique`` expected
        among m responses of all; ``by_responses`` over :meth:`Scale.grid`; ``by_cut`` over :data:`CUTS`; ``diversity``,
        the mean number of clusters of c responses of this side, None with fewer; ``examples``, the largest clusters.
    """
    from dereason.analysis.trajectories import cluster, compare, medoids, rarefied, reclustered

    how = settings.trajectories
    total = len(responses.texts)
    out: Info = {}
    for side in SIDES:
        at = [i for i, right in enumerate(responses.correct) if right == (side == "correct")]
        texts = [responses.texts[i] for i in at]
        similarity = compare(texts, how)
        clusters = cluster(similarity, how.cut)
        grid = scale.grid()
        middle = medoids(similarity, clusters.labels)
        out[side] = {
            "n": len(at),
            "sizes": [int(size) for size in clusters.sizes],
            "labels": [int(label) for label in clusters.labels],
            "index": [responses.index[i] for i in at],
            "unique": float(rarefied(clusters.sizes, total, [scale.m])[0]),
            "by_responses": [float(x) for x in rarefied(clusters.sizes, total, grid)],
            "by_cut": [float(rarefied(cluster(similarity, cut).sizes, total, [scale.m])[0]) for cut in CUTS],
            "diversity": reclustered(similarity, how.cut, scale.c, _SUBSETS, settings.seed)
            if len(at) >= scale.c
            else None,
            "examples": [
                {"size": int(size), "response": texts[int(middle[label])]}
                for label, size in enumerate(clusters.sizes[:_EXAMPLES])
            ],
        }
    return out


def subsample(responses: Responses, m: int, rng: np.random.Generator) -> Responses:
    """m of the responses, in their order."""
    if len(responses.texts) == m:
        return responses
    chosen = sorted(int(i) for i in rng.choice(len(responses.texts), size=m, replace=False))
    return Responses(
        tuple(responses.texts[i] for i in chosen),
        tuple(responses.correct[i] for i in chosen),
        tuple(responses.index[i] for i in chosen),
    )


def graphs(
    paths: Mapping[str, Sequence[Sequence[int]]],
    centroids: Floats,
    representatives: Sequence[str],
    settings: Analysis,
) -> Info:
    """The reasoning graphs of every model on one problem.

    Args:
        paths: model -> node sequences of its responses, nodes numbered alike for all models.
        centroids: (K, D) of the nodes.
        representatives: a sentence of each node.
        settings: of the analysis.

    Returns:
        ``models``: name -> ``nodes``, ``visits``, ``decay`` (quantity -> alpha, beta, r2), ``decay_otherwise`` (with
        equally many responses instead of visits, or the reverse), ``curves`` (quantity -> values by rank), ``topology``
        and ``graphlets``; ``picture``: the most visited nodes and each model's edges among them.
    """
    from dereason.analysis.graphlets import graphlets
    from dereason.analysis.graphs import build, limited
    from dereason.analysis.ranks import quantities
    from dereason.analysis.topology import topology

    whole = {name: build(sequences, centroids, settings.graphs) for name, sequences in paths.items()}
    totals = {name: int(graph.visits.sum()) for name, graph in whole.items()}
    enough = _LEAST_VISITS * float(np.median([total for total in totals.values() if total] or [0]))
    whole = {name: g if totals[name] >= enough else build([], centroids, settings.graphs) for name, g in whole.items()}
    visits = min((total for total in totals.values() if total and total >= enough), default=0)
    built = {
        name: build(limited(paths[name], visits, settings.seed), centroids, settings.graphs) if len(g.nodes) else g
        for name, g in whole.items()
    }
    if settings.graphs.equal == "responses":
        built, whole = whole, built
    models: Info = {}
    for name, graph in built.items():
        ranked = quantities(graph, settings.graphs)
        models[name] = {
            "nodes": len(graph.nodes),
            "visits": int(graph.visits.sum()),
            "decay": _decay(ranked),
            "decay_otherwise": _decay(quantities(whole[name], settings.graphs)),
            "curves": {q: _thinned(values) for q, values in ranked.items()},
            "topology": topology(graph, settings.graphs, settings.seed),
            "graphlets": graphlets(graph),
        }
    return {"models": models, "picture": _picture(built, representatives)}


def _decay(quantities: Mapping[str, Floats]) -> Info:
    """Quantity -> its fitted line, None where there is none."""
    from dereason.analysis.ranks import fit

    fitted = {quantity: fit(values) for quantity, values in quantities.items()}
    return {q: None if f is None else {"alpha": f.alpha, "beta": f.beta, "r2": f.r2} for q, f in fitted.items()}


def _thinned(values: Floats) -> list[list[float]]:
    """[ranks, values], falling, without zeros and with at most :data:`_MOST_RANKS` ranks."""
    falling = np.sort(values[values > 0])[::-1]
    ranks = np.unique(np.linspace(1, max(falling.size, 1), _MOST_RANKS).round().astype(int))[: falling.size]
    return [[int(r) for r in ranks], [float(falling[r - 1]) for r in ranks]]


def _picture(built: Mapping[str, Any], representatives: Sequence[str]) -> Info | None:
    """The nodes with the largest mean share of visits over the models, at places common to all models."""
    import igraph

    share = np.zeros(len(representatives))
    for graph in built.values():
        if graph.visits.sum():
            share[graph.nodes] += graph.visits / graph.visits.sum()
    chosen = [int(node) for node in np.argsort(-share, kind="stable")[:_PICTURED] if share[node] > 0]
    if len(chosen) < 2:
        return None
    place = {node: at for at, node in enumerate(chosen)}
    models, union = [], set()
    for name, graph in built.items():
        visits = np.zeros(len(representatives))
        visits[graph.nodes] = graph.visits
        edges = []
        for (a, b), count in zip(graph.edges, graph.counts, strict=True):
            ends = int(graph.nodes[a]), int(graph.nodes[b])
            if all(end in place for end in ends):
                edges.append([place[ends[0]], place[ends[1]], int(count)])
                union.add((min(place[end] for end in ends), max(place[end] for end in ends)))
        total = visits.sum()
        models.append(
            {
                "model": name,
                "visits": [int(visits[node]) for node in chosen],
                "edges": edges,
                "shown": float(visits[chosen].sum() / total) if total else 0.0,
            }
        )
    # Kamada-Kawai from the corners of a circle has no chance in it; what is not connected lies where it began.
    ring = igraph.Graph(n=len(chosen), edges=sorted(union))
    spots = np.array(ring.layout_kamada_kawai(seed=ring.layout_circle()).coords)
    return {
        "nodes": [
            {"id": node, "label": representatives[node], "x": float(x), "y": float(y)}
            for node, (x, y) in zip(chosen, spots, strict=True)
        ],
        "models": models,
    }
