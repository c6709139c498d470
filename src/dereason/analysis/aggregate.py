"""From what was found on each problem to means, ratios and verdicts with intervals over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dereason.analysis.comparison import Comparison, Info, as_json
from dereason.analysis.parts import CUTS, SIDES, Scale
from dereason.analysis.ranks import QUANTITIES
from dereason.analysis.settings import Analysis
from dereason.analysis.verdict import FOLLOWING, MEASURES, read
from dereason.evaluation.statistics import Interval, accuracy_interval, mean_interval, ratio_interval

BANDS = ("hard", "medium", "easy")
_EXAMPLES = 4

Floats = NDArray[np.float64]
Pick = Callable[[Info], float | None]
"""From one model's findings on one problem to a number; None where undefined."""


class _Over:
    """Numbers of each model over the problems, and their intervals."""

    def __init__(self, parts: Sequence[Info], settings: Analysis) -> None:
        self.parts = parts
        self.settings = settings

    def values(self, model: str, pick: Pick) -> Floats:
        """(P,), NaN where undefined."""
        found = [pick(part["models"][model]) for part in self.parts]
        return np.array([np.nan if x is None else x for x in found], dtype=np.float64)

    def mean(self, values: Floats) -> Interval | None:
        return mean_interval(values, self.settings.level, self.settings.seed, self.settings.resamples)

    def difference(self, before: Floats, after: Floats) -> Interval | None:
        return self.mean(after - before)

    def ratio(self, before: Floats, after: Floats) -> Interval | None:
        s = self.settings
        return ratio_interval(before, after, s.level, s.seed, s.resamples)

    def curve(self, rows: Sequence[Floats]) -> dict[str, list[float | None]]:
        """Unique trajectories and their interval at each place of a curve: rows of (P,)."""
        found = [self.mean(row) for row in rows]
        return {
            "unique": [None if i is None else i.estimate for i in found],
            "low": [None if i is None else i.low for i in found],
            "high": [None if i is None else i.high for i in found],
        }


def findings(
    verdicts: Mapping[str, Mapping[str, int]],
    scale: Scale,
    problems: Sequence[str],
    parts: Sequence[Info],
    questions: Mapping[str, str],
    comparisons: Sequence[Comparison],
    settings: Analysis,
) -> Info:
    """Everything in ``findings.json`` that is computed from the parts.

    Args:
        verdicts: model -> verdict -> count over all its samples, the base first.
        scale: what models are compared at.
        problems: P ids.
        parts: of each problem, what :func:`dereason.analysis.parts.work_on` returned.
        questions: id -> question, where known.
        comparisons: what is judged.
        settings: of the analysis.
    """
    over = _Over(parts, settings)
    models = list(verdicts)
    base = models[0]
    bands = [_band(part["models"][base]) for part in parts]
    return {
        "problems": [
            {"id": p, "question": questions.get(p, ""), "band": band} for p, band in zip(problems, bands, strict=True)
        ],
        "bands": {band: bands.count(band) for band in BANDS},
        "models": [
            {
                "name": name,
                "label": name,
                "n_problems": len(parts),
                "n_samples": sum(counts.values()),
                "verdicts": dict(counts),
                "base": name == base,
            }
            for name, counts in verdicts.items()
        ],
        "comparisons": [{"before": c.before, "after": c.after, "phase": c.phase} for c in comparisons],
        "trajectories": _trajectories(over, models, scale, problems),
        "graphs": _graphs(over, models, problems, bands) if parts[0]["graphs"] is not None else None,
        "pass_at_k": [_pass_at_k(over, model, scale) for model in models],
        "verdicts": [row for c in comparisons for row in _judged(over, c, bands)],
    }


def _band(model: Info) -> str:
    correct, wrong = (model["trajectories"][side]["n"] for side in SIDES)
    rate = correct / (correct + wrong)
    return "hard" if rate < 1 / 3 else "medium" if rate < 2 / 3 else "easy"


def _side(side: str, field: str) -> Pick:
    return lambda model: model["trajectories"][side][field]


def _at(side: str, field: str, at: int) -> Pick:
    return lambda model: model["trajectories"][side][field][at]


def _trajectories(over: _Over, models: Sequence[str], scale: Scale, problems: Sequence[str]) -> Info:
    unique, by_responses, by_cut, diversity = [], [], [], []
    # Diversity at equal correctness is compared between models, so it takes the problems that all models can give.
    every = {side: [over.values(m, _side(side, "diversity")) for m in models] for side in SIDES}
    common = {side: np.isfinite(np.stack(rows)).all(axis=0) for side, rows in every.items()}
    for at, model in enumerate(models):
        for side in SIDES:
            head = {"model": model, "side": side}
            values = over.values(model, _side(side, "unique"))
            counts = over.values(model, _side(side, "n"))
            every_n = sum(over.values(model, _side(one, "n")) for one in SIDES)
            # Among m of M responses, a side has n m / M on average.
            shared = values / np.where(counts > 0, counts * scale.m / every_n, np.nan)
            unique.append({**head, "unique": as_json(over.mean(values)), "per_response": as_json(over.mean(shared))})
            rows = [over.values(model, _at(side, "by_responses", i)) for i in range(len(scale.grid()))]
            by_responses.append({**head, "m": scale.grid(), **over.curve(rows)})
            rows = [over.values(model, _at(side, "by_cut", i)) for i in range(len(CUTS))]
            by_cut.append({**head, "cut": list(CUTS), **over.curve(rows)})
            mean = over.mean(np.where(common[side], every[side][at], np.nan))
            diversity.append({**head, "unique": as_json(mean)})
    return {
        "unique": unique,
        "by_responses": by_responses,
        "by_cut": by_cut,
        "diversity": diversity,
        "examples": _examples(over.parts, models, problems),
    }


def _spread_out(count: int, parts: Sequence[Info], base: str) -> list[int]:
    """Problems from the hardest to the easiest for the base, evenly."""
    order = sorted(range(len(parts)), key=lambda at: (parts[at]["models"][base]["trajectories"]["correct"]["n"], at))
    return [order[round(i)] for i in np.linspace(0, len(order) - 1, min(count, len(order)))]


def _examples(parts: Sequence[Info], models: Sequence[str], problems: Sequence[str]) -> list[Info]:
    return [
        {
            "problem": problems[at],
            "model": model,
            "side": side,
            "clusters": found["examples"],
            "more": len(found["sizes"]) - len(found["examples"]),
        }
        for at in _spread_out(_EXAMPLES, parts, models[0])
        for model in models
        for side in SIDES
        if (found := parts[at]["models"][model]["trajectories"][side])["n"]
    ]


def _graphs(over: _Over, models: Sequence[str], problems: Sequence[str], bands: Sequence[str]) -> Info:
    nodes = np.concatenate([over.values(m, lambda model: model["graph"]["nodes"]) for m in models])
    curves: list[Info] = []
    decay: list[Info] = []
    topology: list[Info] = []
    graphlets: list[Info] = []
    base = models[0]
    for model in models:
        for quantity in QUANTITIES:
            alpha, beta = over.values(model, _decay(quantity, "alpha")), over.values(model, _decay(quantity, "beta"))
            known = np.isfinite(beta)
            head = {"model": model, "quantity": quantity}
            decay.append(
                {
                    **head,
                    "beta": as_json(over.mean(beta)),
                    "r2": as_json(over.mean(over.values(model, _decay(quantity, "r2")))),
                    "ratio": _to_base(over, base, model, quantity, "decay"),
                    "ratio_otherwise": _to_base(over, base, model, quantity, "decay_otherwise"),
                }
            )
            if known.any():
                line = {"alpha": float(alpha[known].mean()), "beta": float(beta[known].mean())}
                found = [part["models"][model]["graph"]["curves"][quantity] for part in over.parts]
                curves.append({**head, **_mean_curve(found), **line})
        for kind, rows, word in (("topology", topology, "metric"), ("graphlets", graphlets, "graphlet")):
            for name in over.parts[0]["models"][model]["graph"][kind]:
                values = over.values(model, _of_graph(kind, name))
                change = None if model == base else over.difference(over.values(base, _of_graph(kind, name)), values)
                value = {"value" if word == "metric" else "share": as_json(over.mean(values))}
                rows.append({"model": model, word: name, **value, "difference": as_json(change)})
    return {
        "nodes": {"mean": float(nodes.mean()), "max": int(nodes.max())},
        "sentences": sum(part["graphs"]["sentences"] for part in over.parts),
        "equal": over.settings.graphs.equal,
        "visits": [
            {"model": m, "visits": as_json(over.mean(over.values(m, lambda model: model["graph"]["visits"])))}
            for m in models
        ],
        "curves": curves,
        "decay": decay,
        "topology": topology,
        "graphlets": graphlets,
        "pictures": [
            {"problem": problems[at], **picture}
            for at in _spread_out(_EXAMPLES, over.parts, base)
            if (picture := over.parts[at]["graphs"]["picture"]) is not None
        ],
    }


def _to_base(over: _Over, base: str, model: str, quantity: str, which: str) -> Info | None:
    if model == base:
        return None
    before, after = (over.values(name, _decay(quantity, "beta", which)) for name in (base, model))
    return as_json(over.ratio(before, after))


def _decay(quantity: str, field: str, which: str = "decay") -> Pick:
    def pick(model: Info) -> float | None:
        graph = model["graph"]
        fitted = None if graph is None else graph[which][quantity]
        return None if fitted is None else float(fitted[field])

    return pick


def _of_graph(kind: str, name: str) -> Pick:
    return lambda model: model["graph"][kind][name]


def _mean_curve(found: Sequence[tuple[list[int], list[float]]]) -> dict[str, list[float]]:
    """The geometric mean over problems at each rank that at least half of them reach.

    Geometric, because it is logarithms that the lines are fitted to: where all problems reach as many ranks, the line
    with the mean alpha and the mean beta is the line of this curve. At a rank that some do not reach it is the mean of
    those that do, so it may bend there. Ranks between two kept ones are read off in between.
    """
    last = sorted((ranks[-1] for ranks, _ in found if ranks), reverse=True)
    if not last:
        return {"rank": [], "value": []}
    ranks = np.unique(np.linspace(1, last[(len(last) - 1) // 2], 100).round().astype(int))
    values = []
    for rank in ranks:
        there = [np.interp(rank, r, np.log10(v)) for r, v in found if r and r[-1] >= rank]
        values.append(float(10 ** np.mean(there)))
    return {"rank": [int(r) for r in ranks], "value": values}


def _pass_at_k(over: _Over, model: str, scale: Scale) -> Info:
    s = over.settings
    correct, wrong = (over.values(model, _side(side, "n")) for side in SIDES)
    counts = [(int(c), int(c + w)) for c, w in zip(correct, wrong, strict=True)]
    # The intervals that `dereason eval` gives: where all problems have the same share, these do not claim certainty.
    found = [accuracy_interval(counts, s.level, s.seed, s.resamples, k=k) for k in scale.grid()]
    return {
        "model": model,
        "k": scale.grid(),
        "value": [i.estimate for i in found],
        "low": [i.low for i in found],
        "high": [i.high for i in found],
    }


def _judged(over: _Over, pair: Comparison, bands: Sequence[str]) -> list[Info]:
    """The verdict on all problems, and on each band that has two."""
    settings = over.settings
    picks: dict[str, Pick] = {
        "incorrect": _side("incorrect", "unique"),
        "correct": _side("correct", "unique"),
        "diversity_incorrect": _side("incorrect", "diversity"),
        "diversity_correct": _side("correct", "diversity"),
    }
    if over.parts[0]["graphs"] is not None:
        picks |= {quantity: _decay(quantity, "beta") for quantity in QUANTITIES}
    before, after = ({m: over.values(name, pick) for m, pick in picks.items()} for name in (pair.before, pair.after))
    rows = []
    for band in ("all", *BANDS):
        inside = np.array([band in ("all", b) for b in bands])
        if inside.sum() < 2:
            continue
        reading = read(
            {m: v[inside] for m, v in before.items()},
            {m: v[inside] for m, v in after.items()},
            settings.level,
            settings.seed,
            settings.resamples,
        )
        rows.append(
            {
                "before": pair.before,
                "after": pair.after,
                "phase": pair.phase,
                "band": band,
                "n_problems": int(inside.sum()),
                "verdict": reading.verdict,
                "because": reading.because,
                "effects": {m: as_json(reading.effects.get(m)) for m in (*FOLLOWING, *MEASURES)},
            }
        )
    return rows


def measures(problems: Sequence[str], parts: Sequence[Info]) -> pl.DataFrame:
    """Every number that intervals are made of: problem_id, model, measure, value (null where undefined)."""
    rows: list[tuple[str, str, str, float | None]] = []
    for id, part in zip(problems, parts, strict=True):
        for model, found in part["models"].items():
            for side in SIDES:
                rows += [
                    (id, model, f"{field}_{side}", found["trajectories"][side][field])
                    for field in ("n", "unique", "diversity")
                ]
            if (graph := found["graph"]) is not None:
                rows += [(id, model, f"beta_{q}", f and f["beta"]) for q, f in graph["decay"].items()]
                rows += [
                    (id, model, name, value)
                    for kind in ("topology", "graphlets")
                    for name, value in graph[kind].items()
                ]
    schema = {"problem_id": pl.String, "model": pl.String, "measure": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row", strict=False)


def count_verdicts(table: pl.DataFrame) -> dict[str, int]:
    """Verdict -> samples."""
    return dict(sorted(Counter[Any](table["verdict"]).items()))
