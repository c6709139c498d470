"""chrF of all pairs of responses: ours against sacrebleu called on each pair, both ways; and what rarefaction assumes.

    python benchmarks/chrf_pairs.py [--data responses.jsonl] [--count 256] [--lengths 1090 4000] [--pairs 100]
        [--repeats 5] [--seed 0] [--subsets 200]

Data: JSON Lines with `problem_id` and `response`, at least 25 to a problem; the documented numbers are of responses of
29 public models to 40 questions of MMLU-Pro (hub id TIGER-Lab/MMLU-Pro, MIT; the models' outputs are in its GitHub
repository). Without `--data`: sentences of words that are drawn.

Texts of each length: the responses, shuffled, joined and cut to the length (all of them used
once before any is used again); then made ones, the hardest that we know for our method: near-copies of one text (each
character replaced with a chance of 2 %), which share most n-grams, and random texts over 2, 10 and 62 characters.

Sacrebleu scores `--pairs` random pairs, twice each; all pairs would take count * (count - 1) such calls, and the ratio
is that time against ours for all pairs. Sides take turns in every repeat. Both sides' time is this process's wall
clock; the threads of our matrix products are set by OMP_NUM_THREADS or OPENBLAS_NUM_THREADS. Prints the median of the
repeats and their range, the largest difference from sacrebleu on the pairs scored, and the peak of our memory.

Then, for the responses to each problem: unique trajectories expected among m of them, by rarefaction over the clusters
of all (what `analyze` reports) and by clustering random subsets of m anew. Writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
import tracemalloc
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sacrebleu.metrics import CHRF

from dereason.analysis.chrf import similarities
from dereason.analysis.settings import Trajectories
from dereason.analysis.trajectories import cluster, compare, rarefied

_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class Measured:
    """One set of texts, one entry a repeat."""

    seconds: list[float]
    """Ours, all pairs."""
    calls: list[float]
    """Calls of sacrebleu a second."""
    ratios: list[float]
    """Time of sacrebleu for all pairs against ours."""
    difference: float
    """The largest on the pairs that sacrebleu scored."""
    peak: int
    """Bytes that ours allocated at most, in a run of its own."""


def read(data: Path | None, seed: int) -> dict[str, list[str]]:
    """Responses by problem: those of the file, or made ones."""
    by_problem: dict[str, list[str]] = defaultdict(list)
    if data is not None:
        for line in data.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            by_problem[row["problem_id"]].append(row["response"])
        return by_problem
    rng = random.Random(seed)
    for problem in range(8):
        words = ["".join(rng.choices(_CHARACTERS[:26], k=rng.randint(2, 9))) for _ in range(40)]
        openings = [" ".join(rng.choices(words, k=60)) for _ in range(5)]  # some responses are alike
        for _ in range(29):
            by_problem[str(problem)].append(" ".join([rng.choice(openings), *rng.choices(words, k=60)]))
    return by_problem


def pooled(responses: list[str], count: int, length: int, seed: int) -> list[str]:
    """Responses joined and cut to the length; a further round over all of them comes in another order."""
    rng = random.Random(seed)
    waiting: list[str] = []
    texts = []
    for _ in range(count):
        text = ""
        while len(text) < length:
            waiting = waiting or rng.sample(responses, len(responses))
            text += waiting.pop() + "\n"
        texts.append(text[:length])
    return texts


def near_copies(text: str, count: int, share: float, seed: int) -> list[str]:
    """The text, each character replaced by a random one with the chance `share`."""
    rng = random.Random(seed)
    return ["".join(rng.choice(_CHARACTERS) if rng.random() < share else c for c in text) for _ in range(count)]


def drawn(characters: str, count: int, length: int, seed: int) -> list[str]:
    """Texts of independent characters."""
    rng = random.Random(seed)
    return ["".join(rng.choices(characters, k=length)) for _ in range(count)]


def measure(texts: list[str], pairs: int, repeats: int, seed: int) -> Measured:
    """Times both sides, which take turns, and compares their scores."""
    rng = random.Random(seed)
    metric = CHRF()
    found = similarities(texts)  # a warm-up too
    seconds, calls, ratios, difference = [], [], [], 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        similarities(texts)
        seconds.append(time.perf_counter() - started)
        chosen = [rng.sample(range(len(texts)), 2) for _ in range(pairs)]
        started = time.perf_counter()
        scores = [
            metric.sentence_score(texts[i], [texts[j]]).score + metric.sentence_score(texts[j], [texts[i]]).score
            for i, j in chosen
        ]
        calls.append(2 * pairs / (time.perf_counter() - started))
        ratios.append(len(texts) * (len(texts) - 1) / calls[-1] / seconds[-1])
        for (i, j), score in zip(chosen, scores, strict=True):
            difference = max(difference, abs(score / 200 - float(found[i, j])))
    tracemalloc.start()
    similarities(texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Measured(seconds, calls, ratios, difference, peak)


def clustered_anew(
    by_problem: dict[str, list[str]], cut: float, m: int, subsets: int, seed: int
) -> list[tuple[float, float]]:
    """For each problem with more than m responses: unique trajectories among m by rarefaction, and the mean over
    random subsets of m that are clustered by themselves."""
    rng = np.random.default_rng(seed)
    out = []
    for texts in by_problem.values():
        total = len(texts)
        if total <= m:
            continue
        similarity = compare(texts, Trajectories())
        fixed = float(rarefied(cluster(similarity, cut).sizes, total, m))
        chosen = (rng.permutation(total)[:m] for _ in range(subsets))
        anew = [len(cluster(similarity[np.ix_(part, part)], cut).sizes) for part in chosen]
        out.append((fixed, statistics.mean(anew)))
    return out


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="JSON Lines with problem_id and response")
    parser.add_argument("--count", type=int, default=256, help="texts of each set")
    parser.add_argument("--lengths", type=int, nargs="*", default=[1090, 4000], help="characters of a text")
    parser.add_argument("--pairs", type=int, default=100, help="random pairs that sacrebleu scores in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subsets", type=int, default=200, help="random subsets of a problem's responses")
    options = parser.parse_args()
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "all"
    print(f"{options.count} texts, {options.repeats} repeats of {options.pairs} pairs; median (range)")
    print(f"{len(os.sched_getaffinity(0))} cores, threads of matrix products: {threads}")
    by_problem = read(options.data, options.seed)
    responses = [text for texts in by_problem.values() for text in texts]
    for length in options.lengths:
        real = pooled(responses, options.count, length, options.seed)
        sets = {"responses": real, "near-copies": near_copies(real[0], options.count, 0.02, options.seed)}
        for letters in (2, 10, 62):
            sets[f"random over {letters}"] = drawn(_CHARACTERS[:letters], options.count, length, options.seed)
        for name, texts in sets.items():
            found = measure(texts, options.pairs, options.repeats, options.seed)
            print(
                f"{length:5} characters, {name:14} ours {_spread(found.seconds, '.3f')} s, sacrebleu "
                f"{_spread(found.calls, '.0f')} calls/s, ratio {_spread(found.ratios, '.0f')}, "
                f"difference {found.difference:.1e}, peak {found.peak / 1e6:.0f} MB"
            )
    print(f"unique trajectories among m of a problem's responses: mean over problems, {options.subsets} subsets each")
    for cut in (0.30, 0.40, 0.50, 0.60):
        for m in (8, 16, 24):
            both = clustered_anew(by_problem, cut, m, options.subsets, options.seed)
            differences = [anew - fixed for fixed, anew in both]
            print(
                f"cut {cut:.2f}, m {m:2}: rarefied {statistics.mean(fixed for fixed, _ in both):.3f}, clustered anew "
                f"{statistics.mean(anew for _, anew in both):.3f}, difference {statistics.mean(differences):+.3f} "
                f"({min(differences):+.3f}..{max(differences):+.3f} over {len(both)} problems)"
            )


if __name__ == "__main__":
    main()
