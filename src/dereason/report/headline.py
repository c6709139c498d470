"""The result in a sentence per arm and one between arms, phrased by rule from the summary's comparisons."""

from __future__ import annotations

from typing import Any

from dereason.report.data import Run
from dereason.report.results import arm_comparisons, excludes_zero
from dereason.report.text import count, interval, percent, points, points_interval, stage

_KINDS = {"sft": "SFT", "rl": "RL", "joint": "the joint phase"}


def sentences(run: Run) -> list[dict[str, str]]:
    """One entry an arm: the ``main`` sentence, its parts (``chain``, ``added``, ``reading``), and ``format``;
    ``against``, its last stage against the first arm's, empty for the first arm and where not compared.

    A difference whose interval leaves zero out is called a gain or a loss; any other is not distinguishable
    from zero. With several seeds the accuracies are means over seeds, and each seed keeps its own interval.
    """
    out = []
    for arm in run.arms:
        name = arm["name"]
        if not run.seeds(name):
            parts = {"chain": "no evaluation results", "added": "", "reading": ""}
        else:
            added, reading = _added(run, name)
            parts = {"chain": _chain(run, name), "added": added, "reading": reading}
        main = "; ".join(part for part in (parts["chain"], parts["added"]) if part)
        main += f", {parts['reading']}." if parts["reading"] else "."
        more = {"format": _format(run, name), "against": _against(run, name)}
        out.append({"arm": name, "main": main, **parts, **more})
    return out


def verdict(rows: list[dict[str, Any]]) -> str:
    """What the intervals of one comparison say, over its seeds."""
    ups = sum(row["low"] > 0 for row in rows)
    downs = sum(row["high"] < 0 for row in rows)
    clear = sum(map(excludes_zero, rows))
    if len(rows) == 1:
        return "a gain" if ups else "a loss" if downs else "not distinguishable from zero"
    if clear == 0:
        return "not distinguishable from zero with any seed"
    if ups == len(rows) or downs == len(rows):
        return f"a {'gain' if ups else 'loss'} with every seed"
    parts = [f"a gain with {ups} of {len(rows)} seeds"] if ups else []
    parts += [f"a loss with {downs} of {len(rows)} seeds"] if downs else []
    parts += ["otherwise not distinguishable from zero"] if clear < len(rows) else []
    return ", ".join(parts)


def mean(values: list[Any]) -> float | None:
    """The mean of what is not None; None if nothing is left."""
    kept = [float(value) for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None


def _chain(run: Run, arm: str) -> str:
    seeds, parts = run.seeds(arm), []
    for name in run.stages(arm):
        rows = _rows(run, arm, name)
        text = f"{stage(name)} {percent(mean([row['accuracy'] for row in rows]))}"
        if len(seeds) == 1:
            text += f" {interval(rows[0]['low'], rows[0]['high'])}"
        parts.append(text)
    rows = [row for name in run.stages(arm) for row in _rows(run, arm, name)]
    sizes = sorted({row["n_problems"] for row in rows})
    n = count(sizes[0]) if len(sizes) == 1 else f"{count(sizes[0])} to {count(sizes[-1])}"
    lead = f"mean of {len(seeds)} seeds: " if len(seeds) > 1 else ""
    return f"{lead}{' → '.join(parts)} on {n} held-out problems"


def _added(run: Run, arm: str) -> tuple[str, str]:
    """What the last phase adds over the stage before (over base if only that was compared); its reading."""
    stages = run.stages(arm)
    if len(stages) < 2:
        return "no phase was evaluated, so there is nothing to compare", ""
    last = stages[-1]
    for before in (stages[-2], stages[0]):
        rows = [
            row for row in run.summary["comparisons"] if (row["arm"], row["from"], row["to"]) == (arm, before, last)
        ]
        rows.sort(key=lambda row: row["seed"])
        if rows:
            return f"what {_who(run, arm, last)} adds over {_who(run, arm, before)}: {_sizes(rows)}", verdict(rows)
    return "the summary holds no paired comparison with the last stage", ""


def _against(run: Run, arm: str) -> str:
    """The last stage of an arm minus that of the first arm, with its reading."""
    rows = [row for row in arm_comparisons(run) if (row["from"], row["to"]) == (run.arms[0]["name"], arm)]
    return f"{_sizes(rows)}, {verdict(rows)}" if rows else ""


def _sizes(rows: list[dict[str, Any]]) -> str:
    """The differences of one comparison with their intervals, a seed each."""
    return ", ".join(
        f"{points(row['difference'])} points {points_interval(row['low'], row['high'])}"
        + (f" (seed {row['seed']})" if len(rows) > 1 else "")
        for row in rows
    )


def _who(run: Run, arm: str, name: str) -> str:
    """``SFT`` or ``RL`` where the arm has one such phase; with several the stage's own name."""
    if name == "base":
        return "the base model"
    kinds = [run.kind(arm, other) for other in run.stages(arm)]
    kind = run.kind(arm, name)
    return _KINDS.get(kind, name) if kinds.count(kind) == 1 else name


def _format(run: Run, arm: str) -> str:
    """How strict accuracy, answered responses and the accuracy among them moved from base to the last stage."""
    stages = run.stages(arm)
    if len(stages) < 2:
        return ""
    first, last = stages[0], stages[-1]
    parts = [
        f"{what} {percent(mean([get(row) for row in _rows(run, arm, first)]))} → "
        f"{percent(mean([get(row) for row in _rows(run, arm, last)]))}"
        for what, get in (
            ("strict accuracy", _strict),
            ("with an answer", answered),
            ("correct of answered", _of_answered),
        )
    ]
    return f"{parts[0].capitalize()} (the answer is marked as one); responses {parts[1]}; {parts[2]}."


def answered(row: dict[str, Any]) -> float | None:
    """The share of responses in which an answer was found, right or wrong; errors are left out."""
    verdicts = row["verdicts"]
    n = sum(value for key, value in verdicts.items() if key != "error")
    return (verdicts.get("correct", 0) + verdicts.get("wrong", 0)) / n if n else None


def _strict(row: dict[str, Any]) -> Any:
    return row["strict"]["accuracy"]


def _of_answered(row: dict[str, Any]) -> Any:
    return row["answered_accuracy"]


def _rows(run: Run, arm: str, name: str) -> list[dict[str, Any]]:
    found = (run.result(arm, seed, name) for seed in run.seeds(arm))
    return [row for row in found if row is not None]
