"""Targets that a model writes without being shown more than the problem: a teacher, or the student itself."""

from __future__ import annotations

import polars as pl

from dereason.problems.schema import CANDIDATE, Origin, Verdict
from dereason.supervision.candidates import Keep, candidates, choose, eligible
from dereason.supervision.checks import spoken
from dereason.supervision.desk import Desk
from dereason.supervision.likelihood import score
from dereason.supervision.settings import SelfTargets, TeacherTargets


def teacher_candidates(desk: Desk, problems: pl.DataFrame, entry: TeacherTargets) -> pl.DataFrame:
    """Draw a teacher's responses, judge them and choose the best.

    Args:
        desk: where the teacher is asked.
        problems: PROBLEM table of those to cover.
        entry: whom, how often, and how to choose.

    Returns:
        CANDIDATE table, ``n`` rows a problem, in the problems' order.

    Raises:
        DereasonError: what asking or scoring raises.
    """
    samples = desk.ask(
        entry.teacher, problems, name="teacher", n=entry.n, sampling=entry.sampling, seed=entry.seed, purpose="teacher"
    )
    if entry.thoughts == "drop":
        samples = spoken(samples)
    return _choose(desk, candidates(samples, Origin.TEACHER), problems, entry, entry.keep)


def self_candidates(
    desk: Desk, problems: pl.DataFrame, entry: SelfTargets, profile_samples: pl.DataFrame | None
) -> pl.DataFrame:
    """Draw the student's own responses and choose the best of the correct ones (rejection sampling).

    Args:
        desk: where the student is asked.
        problems: PROBLEM table of those to cover.
        entry: how often, and how to choose.
        profile_samples: SAMPLE table that the profile drew from the same student, of any problems; its correct
            responses are candidates too, and come first. None where there is none.

    Returns:
        CANDIDATE table, in the problems' order.

    Raises:
        DereasonError: what asking or scoring raises.
    """
    parts = []
    if profile_samples is not None and entry.from_profile:
        parts.append(profile_samples.filter(pl.col("verdict") == Verdict.CORRECT))
    if entry.n:
        drawn = desk.ask(
            None, problems, name="self", n=entry.n, sampling=entry.sampling, seed=entry.seed, purpose="self"
        )
        parts.append(drawn)
    own = pl.concat([candidates(part, Origin.SELF) for part in parts] or [pl.DataFrame(schema=CANDIDATE)])
    own = (
        problems.select(problem_id="id").join(own, on="problem_id", maintain_order="left_right").select(list(CANDIDATE))
    )
    own = own.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("problem_id").alias("index"))
    return _choose(desk, own, problems, entry, "accepted")


def _choose(
    desk: Desk, table: pl.DataFrame, problems: pl.DataFrame, entry: TeacherTargets | SelfTargets, keep: Keep
) -> pl.DataFrame:
    if entry.choose == "likelihood":
        table = score(desk, table, problems, eligible(keep))
    return choose(table, entry.choose, entry.per_problem, keep=keep)
