"""Which problems and responses the page shows: chosen by stated rules, so that none is picked to please."""

from __future__ import annotations

from typing import Any

import polars as pl

from dereason.report.data import Run, columns, matching
from dereason.report.difficulty import set_names

HEAD, TAIL = 600, 400
"""Of longer texts the first and the last so many characters are shown, and the page says how many are not."""


def clip(text: Any) -> dict[str, Any]:
    """A text as shown: its head, its tail where it is long, and how many characters between are left out."""
    whole = "" if text is None else str(text)
    rest = max(0, len(whole) - HEAD - TAIL)
    head, tail = (whole[:HEAD], whole[-TAIL:]) if rest else (whole, "")
    return {"head": head, "tail": tail, "rest": rest, "empty": not whole.strip()}


def problems(run: Run) -> list[dict[str, Any]]:
    """For each arm and set the easiest, the middle and the hardest problem; without a profile those by id.

    Order of difficulty: pass rate falling, then judge expectation rising, then problem id; a measure that a
    problem lacks counts as the hardest.
    """
    picks: list[tuple[str, str, int, list[tuple[str, dict[str, Any]]]]] = []
    for arm, table in run.routes.items():
        if run.profiles is not None:
            table = table.join(run.profiles, on="problem_id", how="left")
        else:
            none = [pl.lit(None).alias(c) for c in ("n", "correct", "pass_rate", "judge_expectation")]
            table = table.with_columns(none)
        for name in set_names(run):
            mine = table.filter(pl.col("set") == name).sort(
                ["pass_rate", "judge_expectation", "problem_id"],
                descending=[True, False, False],
                nulls_last=True,
            )
            if mine.is_empty():
                continue
            last = mine.height - 1
            names = ("easiest", "middle", "hardest") if run.profiles is not None else ("first", "middle", "last")
            places = dict(zip(names, (0, last // 2, last), strict=True))
            rows = [(label, mine.row(at, named=True)) for label, at in places.items()]
            unique = {row["problem_id"]: (label, row) for label, row in reversed(rows)}
            picks.append((arm, name, mine.height, list(reversed(unique.values()))))
    wanted = sorted({row["problem_id"] for _, _, _, rows in picks for _, row in rows})
    texts = {row["id"]: row for row in matching(run.folder, run.summary["artifacts"]["train_problems"], "id", wanted)}
    out = []
    for arm, name, size, rows in picks:
        targets = _targets(run, arm, name, [row["problem_id"] for _, row in rows])
        cards = [
            {
                "label": label,
                "route": row,
                "problem": texts[row["problem_id"]],
                "question": clip(texts[row["problem_id"]]["question"]),
                "target": targets.get(row["problem_id"]),
            }
            for label, row in rows
            if row["problem_id"] in texts
        ]
        out.append({"arm": arm, "set": name, "n": size, "cards": cards})
    return out


def _targets(run: Run, arm: str, name: str, wanted: list[str]) -> dict[str, dict[str, Any]]:
    """One target a problem, of the first phase that imitates this set, at the first seed.

    Of several targets of a problem the one that replies to the problem itself is taken before a diagnosis or a
    repair; ``others`` counts those not shown.
    """
    phases = [p for a in run.arms if a["name"] == arm for p in a["phases"] if name in p["sets"] and p["targets"]]
    for phase in phases:
        for paths in run.built.get((arm, phase["index"]), [])[:1]:
            rows = matching(run.folder, paths.targets, "problem_id", wanted)
            rows.sort(key=lambda row: (row["prompt"] is not None, row["prefix"] is not None))
            found: dict[str, list[dict[str, Any]]] = {}
            for row in rows:
                found.setdefault(row["problem_id"], []).append(row)
            return {
                problem: {
                    **first,
                    "shown": clip(first["response"]),
                    "begun": clip(first["prefix"]) if first["prefix"] else None,
                    "others": len(rest),
                    "path": paths.targets,
                }
                for problem, (first, *rest) in found.items()
            }
    return {}


def responses(run: Run) -> list[dict[str, Any]]:
    """For each arm, at its lowest seed: how verdicts moved from the first to the last stage, with examples.

    A problem counts by its first response (the lowest ``index``). From each group the first problem in order
    of id is shown with that response of every stage.
    """
    out = []
    for arm in run.arms:
        name = arm["name"]
        keys = sorted(key for key in run.samples if key[0] == name)
        if not keys:
            continue
        seed = keys[0][1]
        stages = [stage for stage in run.stages(name) if (name, seed, stage) in run.samples]
        if not stages:
            continue
        paths = {stage: run.samples[name, seed, stage] for stage in stages}
        first, last = _right(run, paths[stages[0]]), _right(run, paths[stages[-1]])
        shared = sorted(first.keys() & last.keys())
        groups: list[dict[str, Any]] = []
        for label, before, after in _moves(len(stages) > 1):
            mine = [p for p in shared if (first[p], last[p]) == (before, after)]
            groups.append({"label": label, "n": len(mine), "problem": mine[0] if mine else None})
        wanted = sorted({g["problem"] for g in groups if g["problem"]})
        texts = {
            row["id"]: row for row in matching(run.folder, run.summary["artifacts"]["test_problems"], "id", wanted)
        }
        shown = {stage: _first_responses(run, path, wanted) for stage, path in paths.items()}
        for group in groups:
            group["text"] = texts.get(group["problem"])
            group["question"] = clip(group["text"]["question"]) if group["text"] else None
            group["stages"] = [(stage, shown[stage].get(group["problem"])) for stage in stages]
        out.append({"arm": name, "seed": seed, "stages": stages, "groups": groups, "n": len(shared)})
    return out


def _moves(trained: bool) -> list[tuple[str, bool, bool]]:
    if not trained:
        return [("correct", True, True), ("not correct", False, False)]
    return [
        ("gained: not correct, then correct", False, True),
        ("lost: correct, then not correct", True, False),
        ("correct before and after", True, True),
        ("correct neither before nor after", False, False),
    ]


def _right(run: Run, path: str) -> dict[str, bool]:
    table = columns(run.folder, path, ["problem_id", "index", "verdict"])
    first = table.filter(pl.col("verdict") != "error").sort("problem_id", "index")
    first = first.unique("problem_id", keep="first", maintain_order=True)
    return {row["problem_id"]: row["verdict"] == "correct" for row in first.to_dicts()}


def _first_responses(run: Run, path: str, wanted: list[str]) -> dict[str, dict[str, Any]]:
    rows = matching(run.folder, path, "problem_id", wanted)
    rows.sort(key=lambda row: (row["verdict"] == "error", row["index"]), reverse=True)
    return {row["problem_id"]: {**row, "shown": clip(row["response"]), "path": path} for row in rows}
