"""Made-up targets steps of every origin, with hostile text: tables as a run writes them, facts counted from them."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from dereason.problems.schema import frame, write_table

Row = dict[str, Any]

TEACHER = "a-teacher@<b>1</b>"
STUDENT = "embedded@0.1.2"


def write_step(
    folder: Path, path: str, rng: random.Random, problems: list[Row], styles: list[str], hostile: list[str],
    sets: list[str], measured: bool = True,
) -> Row:  # fmt: skip
    """Write ``targets``, ``candidates`` and ``coverage`` under ``folder/path`` and return the step's facts.

    Args:
        folder: the run directory.
        path: of the step, relative to it; made here.
        rng: where all numbers come from.
        problems: the rows of the problem table that are to be covered.
        styles: one source each.
        hostile: texts that must not act.
        sets: what the sources say they cover.
        measured: whether the student's likelihood was measured.
    """
    everything: list[Row] = []
    coverage: list[Row] = []
    sources = []
    for style in styles:
        mine = problems[: len(problems) // 2] if style == "critique" else problems
        rows = [
            row for at, problem in enumerate(mine) for row in _MAKE[style](rng, problem, hostile[at % len(hostile)])
        ]
        for row in rows:
            row["nll"] = round(row["nll"], 4) if measured and (row["raw"] or row["chosen"]) else None
        covered = [_covered(style, problem["id"], rows) for problem in mine]
        everything += rows
        coverage += covered
        sources.append(_source(style, rows, covered, None if style == "critique" else sets))
    targets = [row | {"note": row["reason"].split(": ")[0]} for row in everything if row["chosen"]]
    (folder / path).mkdir(parents=True)
    for kind, table in (("target", targets), ("candidate", everything), ("coverage", coverage)):
        name = {"target": "targets", "candidate": "candidates", "coverage": "coverage"}[kind]
        write_table(frame(kind, table), folder / path / f"{name}.parquet")
    drawn = Counter(row["verdict"] for row in everything if row["model"])
    return {
        "n": len(targets), "built": sum(not row["raw"] for row in everything),
        "accepted": sum(row["accepted"] for row in targets),
        "origins": dict(Counter(row["origin"] for row in targets)),
        "notes": dict(Counter(row["note"] for row in targets).most_common(10)),
        "confusion": None if not drawn else {
            "kinds": {"number": {v: drawn[v] for v in ("correct", "wrong", "unparsable", "truncated", "error")}
                      | {"strict": drawn["correct"] // 2, "n": drawn.total() - drawn["error"]}},
            "errors": {}, "rules": {"boxed": drawn["correct"] + drawn["wrong"]},
        },
        "tokens_generated": sum(row["tokens"] or 0 for row in everything if row["model"]),
        "words": "", "warnings": [], "sources": sources,
    }  # fmt: skip


def _row(problem: Row, origin: str, index: int, response: str, **more: Any) -> Row:
    row: Row = {
        "problem_id": problem["id"], "origin": origin, "index": index, "raw": False, "model": None, "prompt": None,
        "prefix": None, "response": response, "tokens": 20 + 7 * index, "verdict": "correct", "accepted": True,
        "chosen": False, "nll": 1.0, "reason": f"{origin}: as made",
    }  # fmt: skip
    return row | more


def _work(problem: Row, hostile: str) -> str:
    return f"Step by step, {hostile}\n\\boxed{{{problem['answer']}}}"


def _judged(rng: random.Random, good: float) -> Row:
    verdict = rng.choices(["correct", "wrong", "truncated", "unparsable"], [good, 0.8 - 0.8 * good, 0.1, 0.1])[0]
    return {"verdict": verdict, "accepted": verdict == "correct"}


def _data(rng: random.Random, problem: Row, hostile: str) -> list[Row]:
    origin = rng.choice(["human", "reference"])
    made = _row(problem, origin, 0, _work(problem, hostile), nll=abs(rng.gauss(1.4, 0.35)), tokens=rng.randint(30, 90))
    made |= _judged(rng, 0.92)
    return [made | {"chosen": made["accepted"], "reason": f"worked solution{hostile[:8]}: the verifier's reason"}]


def _drawn(rng: random.Random, problem: Row, hostile: str, *, origin: str, good: float, nll: float) -> list[Row]:
    model = STUDENT if origin == "self" else TEACHER
    rows = []
    for index in range(4):
        row = _row(problem, origin, index, _work(problem, hostile) * (1 + index), model=model) | _judged(rng, good)
        words = "verified" if row["accepted"] else f"not verified ({row['verdict']})"
        rows.append(row | {"nll": abs(rng.gauss(nll, 0.25)), "reason": f"response of {model}, {words}: {hostile}"})
    for row in [row for row in rows if row["accepted"]][:1]:
        row["chosen"] = True
    return rows


def _bridge(rng: random.Random, problem: Row, hostile: str) -> list[Row]:
    origin = rng.choice(["human", "human", "teacher"])
    raw = _row(
        problem,
        origin,
        0,
        f"A dense trace. {hostile} " * 30,
        raw=True,
        nll=abs(rng.gauss(1.5, 0.3)),
        tokens=rng.randint(60, 160),
    )
    raw |= _judged(rng, 0.9) | {"model": TEACHER if origin == "teacher" else None}
    raw["reason"] = f"{'worked solution' if raw['accepted'] else 'the raw trace is not correct'}: {hostile}"
    if not raw["accepted"]:
        return [raw]
    new = _drawn(rng, problem, hostile, origin="bridge", good=0.35, nll=0.8)
    for row in new:
        row["tokens"] = rng.randint(40, 110)
        if row["accepted"] and not row["chosen"] and rng.random() < 0.5:
            row |= {"accepted": False, "reason": f"rewrite by {TEACHER}, refused (it says {hostile!r})"}
    return [raw, *new]


def _critique(rng: random.Random, problem: Row, hostile: str) -> list[Row]:
    rows = []
    attempt = f"Check an attempt.\n\nProblem: {problem['question']}\n\nAttempt:\n1: 2 + 2 = 5 {hostile}"
    for kind, good, nll in (("diagnosis", 0.5, 1.8), ("repair", 0.3, 1.1), ("new_trace", 0.25, 0.9)):
        made = _drawn(rng, problem, hostile, origin=kind, good=good, nll=nll)
        for row in made:
            row["prompt"] = attempt if kind == "diagnosis" else None
            row["prefix"] = f"First, {hostile}\n" if kind == "repair" else None
        rows += made
    return rows


_MAKE = {
    "solution": _data,
    "teacher": lambda *a: _drawn(*a, origin="teacher", good=0.7, nll=1.0),
    "self": lambda *a: _drawn(*a, origin="self", good=0.3, nll=0.35),
    "bridge": _bridge,
    "critique": _critique,
}


def _covered(style: str, problem: str, rows: list[Row]) -> Row:
    mine = [row for row in rows if row["problem_id"] == problem and not row["raw"]]
    why = "no candidate is correct" if mine else "the raw trace is not correct"
    chosen = sum(row["chosen"] for row in mine)
    return {
        "problem_id": problem, "style": style, "candidates": len(mine),
        "accepted": sum(row["accepted"] for row in mine), "targets": chosen, "reason": None if chosen else why,
    }  # fmt: skip


def _source(style: str, rows: list[Row], covered: list[Row], sets: list[str] | None) -> Row:
    drawn = [row for row in rows if not row["raw"]]
    by_origin: dict[str, list[Row]] = defaultdict(list)
    for row in drawn:
        by_origin[row["origin"]].append(row)
    asked = sorted({row["origin"] for row in rows if row["model"]})
    return {
        "style": style, "sets": sets, "problems": len(covered), "candidates": len(drawn),
        "accepted": sum(row["accepted"] for row in drawn), "targets": sum(row["chosen"] for row in drawn),
        "covered": sum(row["targets"] > 0 for row in covered),
        "uncovered": dict(Counter(row["reason"] for row in covered if row["reason"])),
        "by_origin": {
            origin: {
                "candidates": len(mine), "accepted": sum(row["accepted"] for row in mine),
                "targets": sum(row["chosen"] for row in mine),
                "tokens": _mean(mine, "tokens"), "nll": _mean(mine, "nll"),
            }
            for origin, mine in sorted(by_origin.items())
        },
        "bridge": _before_after(rows) if style == "bridge" else None,
        "asked": [
            {"name": f"{style}-{origin}", "model": STUDENT if origin == "self" else TEACHER, "problems": len(covered),
             "responses": 4 * len(covered), "prompt_tokens": 16160, "tokens": 43210, "stored": 12 * at,
             "price": None if origin == "self" else 0.0123}
            for at, origin in enumerate(asked)
        ],
    }  # fmt: skip


def _mean(rows: list[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row["chosen"] and row[key] is not None]
    return fmean(values) if values else None


def _before_after(rows: list[Row]) -> Row:
    raw = {row["problem_id"]: row for row in rows if row["raw"]}
    drawn = [row for row in rows if not row["raw"]]
    new = {row["problem_id"]: row for row in drawn if row["chosen"]}
    both = [(raw[i], new[i]) for i in raw if i in new]
    gaps = [b["nll"] - a["nll"] for a, b in both if a["nll"] is not None]

    def side(of: list[Row], mine: list[Row]) -> Row:
        nll = fmean(row["nll"] for row in mine) if mine and mine[0]["nll"] is not None else None
        return {
            "verified": sum(row["accepted"] for row in of), "of": len(of),
            "tokens": fmean(row["tokens"] for row in mine) if mine else None, "nll": nll,
            "perplexity": None if nll is None else math.exp(nll),
        }  # fmt: skip

    gap = fmean(gaps) if gaps else None
    return {
        "n": len(both), "raw": side(list(raw.values()), [a for a, _ in both]),
        "rewrite": side(drawn, [b for _, b in both]) | {"nll_accepted": None if gap is None else gap + 1.7},
        "difference": {
            "nll": gap, "low": None if gap is None else gap - 0.1, "high": None if gap is None else gap + 0.1,
            "level": 0.95,
        },
    }  # fmt: skip
