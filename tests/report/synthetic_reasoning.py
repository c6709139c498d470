"""Made-up findings of an analysis, with hostile text: shapes as of real ones, numbers from a seed."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

Row = dict[str, Any]

SCRIPT = "<script>alert(1)</script>"
MARKUP = "<b onclick=alert(1)>x</b> $x^2$ &amp; {{ 7 * 7 }} %{y}"
LONE = "lone \ud800 half"
CHAIN = {"base": (None, None), "sft": ("base", "sft"), "rl": ("base", "rl"), "sft-then-rl": ("sft", "rl")}
"""Model -> what it was made of, and by which phase."""
METRICS = (
    "edge_density", "clustering", "assortativity", "modularity", "centralisation", "path_length", "global_efficiency",
    "algebraic_connectivity",
)  # fmt: skip
GRAPHLETS = ("path", "star", "cycle", "paw", "diamond", "clique")
QUANTITIES = ("visits", "degree", "betweenness")
CUTS = [round(0.3 + 0.05 * i, 2) for i in range(13)]
_WAYS = {"base": (24.0, 3.0), "sft": (26.0, 7.0), "rl": (11.0, 4.0), "sft-then-rl": (13.0, 6.5)}
_BETA = {"base": 0.020, "sft": 0.011, "rl": 0.048, "sft-then-rl": 0.028}
_PASS = {"base": (0.10, 0.55), "sft": (0.16, 0.68), "rl": (0.30, 0.52), "sft-then-rl": (0.36, 0.64)}


def interval(rng: random.Random, value: float, n: int = 16, spread: float = 0.13) -> Row:
    """An interval around a value that grows with it."""
    width = abs(value) * spread + 1e-6
    return {
        "estimate": value, "low": value - width * rng.uniform(0.8, 1.2), "high": value + width * rng.uniform(0.8, 1.2),
        "n": n,
    }  # fmt: skip


def findings(seeds: int = 1, n: int = 16, m: int = 64, graphs: bool = True, long: str = "") -> Row:
    """Findings of base, SFT, RL and SFT then RL; with several seeds those after base once a seed.

    Args:
        seeds: training seeds.
        n: problems.
        m: responses per problem and model.
        graphs: whether graphs were built.
        long: put into every label, to make it long.
    """
    rng = random.Random(7)
    kinds = {"base": "base"}
    comparisons = []
    for seed in range(seeds):
        end = f", seed {seed}" if seeds > 1 else ""
        for kind, (before, phase) in CHAIN.items():
            if before is None:
                continue
            kinds[kind + end] = kind
            old = before if before == "base" else before + end
            comparisons.append({"before": old, "after": kind + end, "phase": phase})
            if kind == "sft-then-rl":
                comparisons.append({"before": "base", "after": kind + end, "phase": None})
    problems = [
        {"id": f"p{i:02d}", "question": f"Ann has {i + 3} apples and buys {i}. How many? {MARKUP if i == 1 else ''}",
         "band": ("hard", "medium", "easy")[0 if i < n // 2 else 1 if i < n - 2 else 2]}
        for i in range(n)
    ]  # fmt: skip
    bands = {band: sum(p["band"] == band for p in problems) for band in ("hard", "medium", "easy")}
    models = [
        {"name": name, "label": f"{name}{long}", "n_problems": n, "n_samples": n * m, "base": name == "base",
         "verdicts": {"correct": n * m // 3, "wrong": n * m // 2, "unparsable": 9, "truncated": 4, "error": 2}}
        for name in kinds
    ]  # fmt: skip
    correct = 8
    return {
        "schema_version": 1,
        "settings": {"trajectories": {"order": 6, "beta": 2.0, "cut": 0.6},
                     "graphs": {"weighted": False, "responses": "all"}, "resamples": 2000, "note": SCRIPT},
        "provenance": {"dereason": "0.1", "embedding": "minilm@0.1.0"},
        "level": 0.95, "warnings": [f"2 of 18 problems left out {SCRIPT}"],
        "responses": m, "side_responses": correct, "problems": problems, "bands": bands,
        "models": models, "comparisons": comparisons,
        "trajectories": _trajectories(rng, kinds, problems, m, n),
        "graphs": _graphs(rng, kinds, problems[:2], n) if graphs else None,
        "pass_at_k": [_pass(name, *_PASS[kind], m) for name, kind in kinds.items()],
        "verdicts": [
            _verdict(rng, kinds, row, band, size, graphs)
            for row in comparisons for band, size in {"all": n, **bands}.items()
        ],
    }  # fmt: skip


def write(folder: Path, found: Row) -> None:
    """Write ``folder/findings.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "findings.json").write_text(json.dumps(found), encoding="utf-8")


def _around(values: list[float], spread: float = 0.12) -> Row:
    return {"low": [v * (1 - spread) for v in values], "high": [v * (1 + spread) for v in values]}


def _trajectories(rng: random.Random, kinds: dict[str, str], problems: list[Row], m: int, n: int) -> Row:
    unique, by_responses, by_cut, diversity, examples = [], [], [], [], []
    grid = sorted({2**i for i in range(m.bit_length()) if 2**i <= m} | {m})
    for name, kind in kinds.items():
        for side, ways in zip(("incorrect", "correct"), _WAYS[kind], strict=True):
            ways *= rng.uniform(0.95, 1.05)
            row = {"model": name, "side": side}
            unique.append(row | {"unique": interval(rng, ways, n), "per_response": interval(rng, ways / 40, n)})
            drawn = [ways * (1 - math.exp(-k / (0.4 * m))) / (1 - math.exp(-2.5)) for k in grid]
            by_responses.append(row | {"m": grid, "unique": drawn, **_around(drawn)})
            cut = [ways * 1.5 / (1 + math.exp(-(c - 0.55) * 12)) for c in CUTS]
            by_cut.append(row | {"cut": CUTS, "unique": cut, **_around(cut)})
            for problem in problems[:2]:
                clusters = [
                    {"size": size, "response": f"Step 1: {SCRIPT if size == 5 else MARKUP} {LONE}\n" * size}
                    for size in (12, 5, 2)
                ]
                few = clusters[:0] if name == "rl" and side == "correct" else clusters
                examples.append(row | {"problem": problem["id"], "clusters": few, "more": 3 if few else 0})
            diversity.append(row | {"unique": interval(rng, ways * 0.6, n - 3)})
    return {
        "unique": unique, "by_responses": by_responses, "by_cut": by_cut, "diversity": diversity, "examples": examples,
    }  # fmt: skip


def _pass(name: str, first: float, last: float, m: int) -> Row:
    ks = [2**i for i in range(m.bit_length()) if 2**i <= m]
    values = [first + (last - first) * (i / (len(ks) - 1)) ** 0.8 for i in range(len(ks))]
    return {"model": name, "k": ks, "value": values, **_around(values, 0.2)}


def _verdict(rng: random.Random, kinds: dict[str, str], row: Row, band: str, size: int, graphs: bool) -> Row:
    before, after = kinds[row["before"]], kinds[row["after"]]
    ratios: dict[str, float | None] = {
        "incorrect": _WAYS[after][0] / _WAYS[before][0], "correct": _WAYS[after][1] / _WAYS[before][1],
        "diversity_incorrect": 0.9, "diversity_correct": None if band == "hard" else 1.02,
    }  # fmt: skip
    for at, quantity in enumerate(QUANTITIES):
        ratios[quantity] = _BETA[after] / _BETA[before] * (1 + 0.1 * at) if graphs else None
    verdict = "squeezed" if after == "rl" else "expanded" if after == "sft" else "both"
    said = f"unique incorrect trajectories ×{ratios['incorrect']:.2f} [0.31, 0.59] (intervals at 99.2 %)"
    because = f"{'expanded' if verdict == 'expanded' else 'squeezed'}: {said}"
    effects = {name: None if value is None else interval(rng, value, size) for name, value in ratios.items()}
    return {**row, "band": band, "n_problems": size, "verdict": verdict, "because": because, "effects": effects}


def _graphs(rng: random.Random, kinds: dict[str, str], problems: list[Row], n: int) -> Row:
    curves, decay, topology, graphlets = [], [], [], []
    for name, kind in kinds.items():
        for at, quantity in enumerate(QUANTITIES):
            beta, alpha = _BETA[kind] * (1 + 0.1 * at), 2.4 - 0.8 * at
            ranks = list(range(1, 121))
            values = [10 ** (alpha - beta * r + rng.gauss(0, 0.05) + 0.5 * math.exp(-r / 4)) for r in ranks]
            values[-1] = 0.0
            row = {"model": name, "quantity": quantity}
            curves.append(row | {"rank": ranks, "value": values, "alpha": alpha, "beta": beta})
            ratio = None if name == "base" else interval(rng, beta / _BETA["base"] / (1 + 0.1 * at), n)
            other = None if name == "base" else interval(rng, 0.77 * beta / _BETA["base"] / (1 + 0.1 * at), n)
            row |= {"beta": interval(rng, beta, n), "r2": interval(rng, 0.93 + 0.01 * at, n, 0.1)}
            decay.append(row | {"ratio": ratio, "ratio_otherwise": other})
        for at, metric in enumerate(METRICS):
            value = None if metric == "assortativity" and kind == "rl" else interval(rng, 0.05 + 0.1 * at, n)
            gap = None if name == "base" or value is None else interval(rng, (-1) ** at * 0.02, n, 0.5 + at / 5)
            topology.append({"model": name, "metric": metric, "value": value, "difference": gap})
        for at, graphlet in enumerate(GRAPHLETS):
            gap = None if name == "base" else interval(rng, 0.01 * (at - 2), n, 0.9)
            share = interval(rng, (0.5, 0.3, 0.05, 0.1, 0.04, 0.01)[at], n)
            graphlets.append({"model": name, "graphlet": graphlet, "share": share, "difference": gap})
    return {
        "nodes": {"mean": 212.4, "max": 388}, "sentences": 23456, "equal": "visits",
        "visits": [{"model": name, "visits": interval(rng, 640, n)} for name in kinds],
        "curves": curves, "decay": decay, "topology": topology, "graphlets": graphlets,
        "pictures": [_picture(rng, kinds, problem["id"]) for problem in problems],
    }  # fmt: skip


def _picture(rng: random.Random, kinds: dict[str, str], problem: str) -> Row:
    nodes = [
        {"id": 100 + i, "x": math.cos(0.45 * i) * (1 + 0.1 * i), "y": math.sin(0.45 * i) * 2 + rng.gauss(0, 0.2),
         "label": f"Ann has {i + 3} apples, then she buys {i} more, so we add them up and check the sum. "
                  f"{(SCRIPT, MARKUP, LONE)[i % 3]}"}
        for i in range(14)
    ]  # fmt: skip
    models = []
    for name, kind in kinds.items():
        sharp = 40 * _BETA[kind] + 0.2
        visits = [int(60 * math.exp(-sharp * 0.12 * i) * rng.uniform(0.7, 1.2)) for i in range(13)] + [0]
        edges = [[i, j, 1 + visits[j] // (1 + 2 * (j - i))] for i in range(13) for j in range(i + 1, min(14, i + 4))]
        edges = [edge for edge in edges if edge[2] > 3 and rng.random() < 0.7] + [[3, 2, 4], [8, 1, 3]]
        models.append({"model": name, "visits": visits, "edges": edges, "shown": 0.4 + 5 * _BETA[kind]})
    return {"problem": problem, "nodes": nodes, "models": models}
