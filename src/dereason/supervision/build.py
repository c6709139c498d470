"""From the entries of ``targets`` to tables: what an SFT phase imitates, what else there was, and what is lacking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from dereason.lm.local.model import load_tokenizer
from dereason.problems.schema import frame
from dereason.supervision.bridge import bridge_candidates, bridge_facts
from dereason.supervision.candidates import coverage, targets
from dereason.supervision.critique import critique_candidates, failed_problems
from dereason.supervision.desk import Desk
from dereason.supervision.likelihood import score
from dereason.supervision.reference import data_candidates
from dereason.supervision.settings import (
    BridgeTargets,
    CritiqueTargets,
    DataTargets,
    SelfTargets,
    Targets,
    TeacherTargets,
    scores,
)
from dereason.supervision.teacher import self_candidates, teacher_candidates


@dataclass(frozen=True)
class Built:
    """What building gave.

    Attributes:
        targets: TARGET table, entry by entry.
        candidates: CANDIDATE table of all entries.
        coverage: COVERAGE table, a row for each entry and problem.
        samples: SAMPLE table of everything that was drawn.
        sources: for each entry what came of it, for the report.
    """

    targets: pl.DataFrame
    candidates: pl.DataFrame
    coverage: pl.DataFrame
    samples: pl.DataFrame
    sources: list[dict[str, Any]]


def build_targets(
    desk: Desk,
    entries: Sequence[tuple[Targets, pl.DataFrame]],
    *,
    attempts: pl.DataFrame | None = None,
    rollouts: pl.DataFrame | None = None,
) -> Built:
    """Build the targets of one SFT phase.

    What was asked and scored stays in the desk's store, so that an interrupted call goes on where it stopped.

    Args:
        desk: see :class:`~dereason.supervision.desk.Desk`.
        entries: each entry with the PROBLEM table that it covers.
        attempts: SAMPLE table, the student's responses from its profile; None where there are none.
        rollouts: SAMPLE table, the rollouts of the RL phase before; None where there is none.
    """
    if any(scores(entry) for entry, _ in entries):
        load_tokenizer(desk.student[0])  # a student that is not there is found before a teacher is paid
    tables: list[pl.DataFrame] = []
    covered: list[pl.DataFrame] = []
    sources = []
    for number, (entry, problems) in enumerate(entries):
        asked = len(desk.asked)
        mine = replace(desk, store=desk.store / f"{number}-{entry.style}")  # the counts stay shared
        found = _candidates(mine, entry, problems, attempts, rollouts)
        if entry.student_nll:
            wanted = pl.col("nll").is_null() & (pl.col("chosen") | pl.col("raw"))
            found = score(mine, found, problems, wanted, name="chosen")
        about = problems
        if isinstance(entry, CritiqueTargets):  # it is about the problems that failed, not about all
            about, _ = failed_problems(problems, entry, rollouts)
        rows = coverage(found, about, entry.style)
        tables.append(found)
        covered.append(rows)
        sources.append(_facts(entry, found, rows, desk.asked[asked:]))
    candidates = pl.concat(tables)
    samples = pl.concat(desk.drawn) if desk.drawn else frame("sample", [])
    return Built(targets(candidates), candidates, pl.concat(covered), samples, sources)


def _candidates(
    desk: Desk,
    entry: Targets,
    problems: pl.DataFrame,
    attempts: pl.DataFrame | None,
    rollouts: pl.DataFrame | None,
) -> pl.DataFrame:
    if problems.is_empty():
        return frame("candidate", [])
    match entry:
        case DataTargets():
            return data_candidates(desk, problems, entry)
        case TeacherTargets():
            return teacher_candidates(desk, problems, entry)
        case SelfTargets():
            return self_candidates(desk, problems, entry, attempts)
        case BridgeTargets():
            return bridge_candidates(desk, problems, entry, attempts)
        case CritiqueTargets():
            return critique_candidates(desk, problems, entry, rollouts)


def _facts(entry: Targets, found: pl.DataFrame, rows: pl.DataFrame, asked: list[dict[str, Any]]) -> dict[str, Any]:
    """What the report says of one entry."""
    drawn = found.filter(~pl.col("raw"))
    by_origin = (
        drawn.group_by("origin")
        .agg(
            pl.len().alias("candidates"),
            pl.col("accepted").sum(),
            pl.col("chosen").sum().alias("targets"),
            pl.col("tokens").filter(pl.col("chosen")).mean(),
            pl.col("nll").filter(pl.col("chosen")).mean(),
        )
        .sort("origin")
    )
    lacking = rows["reason"].drop_nulls().value_counts(sort=True)
    return {
        "style": entry.style,
        "sets": entry.sets(),
        "problems": rows.height,
        "candidates": drawn.height,
        "accepted": int(drawn["accepted"].sum()),
        "targets": int(drawn["chosen"].sum()),
        "covered": int((rows["targets"] > 0).sum()),
        "uncovered": dict(lacking.iter_rows()),
        "by_origin": {row.pop("origin"): row for row in by_origin.to_dicts()},
        "bridge": bridge_facts(found) if isinstance(entry, BridgeTargets) else None,
        "asked": asked,
    }
