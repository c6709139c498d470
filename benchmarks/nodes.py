"""Sentences to nodes: how fast responses are split and distinct sentences quantised, and Lloyd against mini-batches.

    python benchmarks/nodes.py [--sentences 40000] [--nodes 2000] [--dimensions 384] [--spread 0.6] [--data FILE]

Unit vectors in clumps of about fifteen (``--spread 0`` for none: the worst case, uniformly random), said a geometric
number of times each. Prints seconds of the processor and the weighted squared error. With ``--data``, JSON
Lines that have a ``response`` field, it also prints milliseconds per 4,000 characters of splitting.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

from dereason.analysis.nodes import quantise
from dereason.analysis.sentences import split
from dereason.analysis.settings import Steps


def clumps(sentences: int, dimensions: int, spread: float) -> np.ndarray:
    """Unit vectors (sentences, dimensions)."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(sentences, dimensions)) / np.sqrt(dimensions)
    if spread:
        centres = generator.normal(size=(max(2, sentences // 15), dimensions))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        vectors = centres[generator.integers(len(centres), size=sentences)] + spread * vectors
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def error(vectors: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> float:
    """Weighted sum of squared distances to the weighted means of the groups."""
    sums = np.zeros((labels.max() + 1, vectors.shape[1]))
    np.add.at(sums, labels, vectors * counts[:, None])
    means = sums / np.maximum(np.bincount(labels, counts), 1)[:, None]
    return float((counts * ((vectors - means[labels]) ** 2).sum(1)).sum())


def main() -> None:
    """Print what took how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("sentences", 40_000), ("nodes", 2000), ("dimensions", 384)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--spread", type=float, default=0.6)
    parser.add_argument("--data", type=Path, help="JSON Lines with response")
    args = parser.parse_args()

    vectors = clumps(args.sentences, args.dimensions, args.spread)
    counts = np.random.default_rng(1).geometric(0.5, size=args.sentences)
    words = [f"{i:07}" for i in range(args.sentences)]
    settings = Steps(nodes=args.nodes, sentences_per_node=1)
    began = time.process_time()
    ours = quantise(words, counts.tolist(), vectors.astype(np.float32), settings, 0)
    print(f"quantise: {time.process_time() - began:.1f} s, error {error(vectors, counts, ours.labels):.1f}", flush=True)
    for name, model in (
        ("Lloyd", KMeans(args.nodes, n_init=1, max_iter=100, random_state=0)),
        ("mini-batches", MiniBatchKMeans(args.nodes, n_init=1, max_iter=100, batch_size=8192, random_state=0)),
    ):
        began = time.process_time()
        model.fit(vectors, sample_weight=counts.astype(float))
        seconds = time.process_time() - began
        found = error(vectors, counts, model.labels_)
        print(f"{name}: {seconds:.1f} s, {model.n_iter_} iterations, error {found:.1f}", flush=True)
    if args.data:
        with args.data.open(encoding="utf-8") as lines:
            texts = [json.loads(line)["response"] for line in lines]
        began = time.process_time()
        pieces = sum(len(split(text)) for text in texts)
        each = 4000 * (time.process_time() - began) / sum(map(len, texts))
        print(f"split: {len(texts)} responses, {pieces} sentences, {1000 * each:.2f} ms per 4,000 characters")


if __name__ == "__main__":
    main()
