"""Examples of what was written for Bridge and critique, and what became of the critic's candidates.

Which examples are shown follows stated rules, so that none is picked to please.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from dereason.report.data import VERDICTS, Run, columns, matching
from dereason.report.examples import clip
from dereason.report.likelihood import pairs
from dereason.report.supervision import Build, refusals, top

KINDS = ("diagnosis", "repair", "new_trace")


def rewrites(run: Run, build: Build) -> list[dict[str, Any]]:
    """Up to three problems with their raw trace and its chosen rewrite.

    Those with the lowest, the middle and the highest difference of negative log-likelihoods, rewrite minus raw trace;
    where it was not measured, the first, the middle and the last problem in order of id.
    """
    table = pairs(run, build).with_columns(gap=pl.col("nll_new") - pl.col("nll_raw"))
    measured = table.drop_nulls("gap")
    if not measured.is_empty():
        table = measured.sort("gap", "problem_id")
        names = ("most in favour of the rewrite", "middle", "least in favour of the rewrite")
    else:
        names = ("first", "middle", "last")
    if table.is_empty():
        return []
    last = table.height - 1
    picked = {at: label for label, at in reversed(list(zip(names, (0, last // 2, last), strict=True)))}
    rows = [(label, table.row(at, named=True)) for at, label in sorted(picked.items())]
    texts = _problems(run, [row["problem_id"] for _, row in rows])
    return [
        {
            "label": label,
            **_problem(texts, row["problem_id"]),
            "gap": row["gap"],
            "sides": [
                {
                    "title": title,
                    "shown": clip(row[f"response_{tag}"]),
                    **{key: row[f"{key}_{tag}"] for key in ("tokens", "nll", "verdict", "model", "origin")},
                }
                for tag, title in (("raw", "raw trace"), ("new", "rewrite"))
            ],
        }
        for label, row in rows
    ]


def critiques(run: Run, build: Build) -> list[dict[str, Any]]:
    """For each kind of critique that a step built: counts of its candidates, why correct ones were refused, an example.

    The example is the first chosen candidate in order of problem id; where none was chosen the first accepted one,
    else the first.
    """
    kept = ["problem_id", "origin", "index", "raw", "accepted", "chosen", "verdict", "reason"]
    table = columns(run.folder, build.paths.candidates, kept).filter(pl.col("origin").is_in(KINDS) & ~pl.col("raw"))
    out = []
    for kind in KINDS:
        mine = table.filter(pl.col("origin") == kind)
        if mine.is_empty():
            continue
        first = mine.sort(~pl.col("chosen"), ~pl.col("accepted"), "problem_id", "index").row(0, named=True)
        said = mine["verdict"].value_counts().rows()
        out.append(
            {
                "kind": kind,
                "problems": mine["problem_id"].n_unique(),
                "candidates": mine.height,
                "verdicts": {verdict: dict(said).get(verdict, 0) for verdict in VERDICTS},
                "accepted": int(mine["accepted"].sum()),
                "chosen": int(mine["chosen"].sum()),
                "refused": top({why: n for (_, why), n in refusals(mine).items()}),
                "example": _example(run, build, first),
            }
        )
    return out


def _example(run: Run, build: Build, which: dict[str, Any]) -> dict[str, Any]:
    rows = matching(run.folder, build.paths.candidates, "problem_id", [which["problem_id"]])
    row = next(r for r in rows if not r["raw"] and (r["origin"], r["index"]) == (which["origin"], which["index"]))
    return {
        **row,
        **_problem(_problems(run, [row["problem_id"]]), row["problem_id"]),
        "asked": clip(row["prompt"]) if row["prompt"] else None,
        "begun": clip(row["prefix"]) if row["prefix"] else None,
        "shown": clip(row["response"]),
    }


def _problems(run: Run, ids: list[str]) -> dict[str, dict[str, Any]]:
    path = run.summary["artifacts"]["train_problems"]
    return {row["id"]: row for row in matching(run.folder, path, "id", sorted(set(ids)))}


def _problem(texts: dict[str, dict[str, Any]], problem_id: str) -> dict[str, Any]:
    """The problem of an example; one that the problem table lacks keeps its id and has an empty text."""
    found = texts.get(problem_id, {"id": problem_id, "domain": "", "answer": None, "question": ""})
    return {"problem": found, "question": clip(found["question"])}
