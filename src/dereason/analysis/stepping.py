"""From responses to numbered steps: sentences split and embedded, nodes found, for one problem or for all together.

Sentence vectors are kept on disk by problem, because embedding is most of the time on a CPU; k-means is not, because it
runs in the processes that problems are spread over (with ``scope: all`` it runs once, here).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dereason.analysis.comparison import Progress
from dereason.analysis.nodes import Nodes, quantise
from dereason.analysis.settings import Steps

if TYPE_CHECKING:
    from dereason.analysis.embeddings import Embedder

Sentences = Mapping[str, Sequence[Sequence[str]]]
"""Model -> its responses, each as sentences."""


def distinct(sentences: Sentences) -> Counter[str]:
    """The distinct sentences of all models with their counts, in alphabetical order."""
    counts = Counter(s for responses in sentences.values() for steps in responses for s in steps)
    return Counter(dict(sorted(counts.items())))


def embed(problems: Mapping[str, Sentences], embedder: Embedder, folder: Path, progress: Progress) -> dict[str, Path]:
    """Vectors of each problem's distinct sentences, on disk.

    Args:
        problems: id -> sentences.
        embedder: the embedding model.
        folder: where vectors are kept; those that are there are not made again.
        progress: told of finished problems.

    Returns:
        Id -> file of (number of distinct sentences, D), in the order of :func:`distinct`.
    """
    paths = {}
    for done, (id, sentences) in enumerate(problems.items()):
        words = list(distinct(sentences))
        key = hashlib.sha256(json.dumps([embedder.name, words]).encode()).hexdigest()[:16]
        paths[id] = path = folder / f"vectors-{key}.npy"
        if not path.is_file():
            progress(done, len(problems), "sentences embedded")
            part = path.with_suffix(".part")
            with part.open("wb") as handle:
                np.save(handle, embedder(words))
            part.replace(path)
    progress(len(problems), len(problems), "sentences embedded")
    return paths


def common_nodes(
    problems: Mapping[str, Sentences], vectors: Mapping[str, Path], settings: Steps, seed: int
) -> tuple[dict[str, int], Nodes]:
    """Nodes that all problems share: each distinct sentence's node, and the nodes.

    Args:
        problems: id -> sentences.
        vectors: of :func:`embed`.
        settings: of the steps.
        seed: of k-means.
    """
    counts: Counter[str] = Counter()
    found: dict[str, np.ndarray] = {}
    for id, sentences in problems.items():
        here = distinct(sentences)
        counts.update(here)
        found.update(zip(here, np.load(vectors[id]), strict=True))
    words = sorted(counts)
    nodes = quantise(words, [counts[w] for w in words], np.stack([found[w] for w in words]), settings, seed)
    return dict(zip(words, (int(n) for n in nodes.labels), strict=True)), nodes


def own_nodes(sentences: Sentences, vectors: Path, settings: Steps, seed: int) -> tuple[dict[str, int], Nodes]:
    """Nodes of one problem, as :func:`common_nodes`."""
    counts = distinct(sentences)
    words = list(counts)
    nodes = quantise(words, list(counts.values()), np.load(vectors), settings, seed)
    return dict(zip(words, (int(n) for n in nodes.labels), strict=True)), nodes


def walk(responses: Sequence[Sequence[str]], node_of: Mapping[str, int]) -> list[list[int]]:
    """Responses as node sequences."""
    return [[node_of[sentence] for sentence in steps] for steps in responses]
