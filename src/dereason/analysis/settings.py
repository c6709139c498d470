"""Settings of the analysis: trajectories, steps, reasoning graphs. The paper is arXiv 2509.21128."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dereason.settings import Settings


class Trajectories(Settings):
    """When two responses are the same trajectory."""

    order: int = Field(default=6, gt=0)
    """Longest character n-gram of chrF (the paper leaves it open: this is chrF's own)."""
    beta: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Weight of chrF's recall against its precision (the paper leaves it open: this is chrF's own)."""
    cut: float = Field(default=0.60, gt=0, lt=1)
    """Similarity at which average linkage is cut: clusters that are as alike, or more, are one trajectory."""


class Steps(Settings):
    """How responses become sequences of nodes."""

    embedding: str = "minilm"
    """`minilm` is the packaged all-MiniLM-L6-v2, which needs no download; else the id or folder of any
    sentence-transformers model (the paper's is BAAI/bge-large-en-v1.5)."""
    nodes: int = Field(default=2000, gt=1)
    """Most nodes of a graph: k of k-means over the sentences of all compared models."""
    sentences_per_node: float = Field(default=4.0, ge=1)
    """Where there are few sentences, k is the number of distinct ones divided by this (ours)."""
    scope: Literal["problem", "all"] = "problem"
    """Whether each problem has nodes of its own or all problems share theirs (ours: the paper leaves it open)."""


class Graphs(Settings):
    """What is measured on a reasoning graph; what the paper leaves open is ours."""

    responses: Literal["all", "correct", "incorrect"] = "all"
    """Which responses a graph is made of."""
    equal: Literal["visits", "responses"] = "visits"
    """What graphs of different models have equally many of, per problem. Decay falls with the number of visits, and so
    with the length of responses, unless it is exactly exponential; the paper has equal responses."""
    directed: bool = False
    """Whether degree and betweenness follow the direction of the edges."""
    weighted: bool = False
    """Whether degree counts each passage of an edge, and betweenness takes centroid distances as lengths."""
    metric: Literal["euclidean", "cosine"] = "euclidean"
    """Distance between the centroids of two nodes, where `weighted` or `nearest` asks for one."""
    nearest: int | None = Field(default=None, gt=0)
    """Link each node also with this many nearest nodes by centroid distance, as a check of robustness; null: no."""
    null_model: Literal["degrees", "edges"] = "degrees"
    """Random graphs that clustering and path length are divided by: with the same degrees, or only the same number of
    edges."""
    null_samples: int = Field(default=10, gt=0)
    """Random graphs for each graph."""
    communities: Literal["louvain", "leiden", "fast_greedy"] = "louvain"
    """Algorithm whose partition modularity is measured on."""


class Analysis(Settings):
    """The analysis of samples of several models on the same problems."""

    trajectories: Trajectories = Trajectories()
    """When two responses are the same trajectory."""
    steps: Steps | None = Steps()
    """How responses become sequences of nodes; null leaves out the reasoning graphs."""
    graphs: Graphs = Graphs()
    """What is measured on the graphs."""
    responses: int | None = Field(default=None, gt=1)
    """Compare all models at this many responses per problem; null takes the fewest that any of them has."""
    side_responses: int | None = Field(default=None, gt=1)
    """Compare diversity at this many correct, and as many incorrect, responses per problem; null takes an eighth of
    ``responses``, and 4 at least (ours)."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of k-means, of random graphs, of subsamples and of the bootstrap."""
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples of problems."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Confidence level of all intervals."""
    workers: int | None = Field(default=None, gt=0)
    """Processes that problems are spread over; null takes one for each core."""
