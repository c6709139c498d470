"""The problems that a single command is given."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dereason.errors import DereasonError
from dereason.pipeline.actions import Context
from dereason.problems.hygiene import check_unique_ids, drop_unanswered
from dereason.problems.sources import ProblemFile, read_file


def read_pool(path: Path, how: ProblemFile) -> tuple[pl.DataFrame, list[str]]:
    """Problems from any file that a file source reads, or from a PROBLEM table.

    Args:
        path: the file.
        how: which fields hold what.

    Returns:
        PROBLEM table, and how the data was read where it could be read in several ways.

    Raises:
        DereasonError: missing, malformed, duplicated ids, or rows without an answer.
    """
    loaded = read_file(path, how.fields, how.limit)
    check_unique_ids(loaded.table, str(path), loaded.places)
    table, dropped = drop_unanswered(loaded.table, str(path), how.drop_unanswered, loaded.places)
    if table.is_empty():
        raise DereasonError(f"{path}: no problem in it has an answer", "add problems with answers")
    notes = list(loaded.notes)
    if dropped:
        notes.append(f"problems left out because they have no answer: {dropped:,}")
    return table, [f"{path.name}: {note}" for note in notes]


def pool_of(path: Path, how: ProblemFile, ctx: Context) -> pl.DataFrame:
    """The problems of a step; how they were read is said before the work begins."""
    table, notes = read_pool(path, how)
    ctx.notes += notes
    for note in notes:
        ctx.screen.say(f"  {note}")
    return table
