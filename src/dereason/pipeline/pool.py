"""Problems out of their files: the pool and the held-out ones of a run, and what a single command is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from dereason.errors import DereasonError
from dereason.pipeline.actions import Context
from dereason.pipeline.store import Info
from dereason.problems.fields import Loaded
from dereason.problems.hygiene import (
    Repeated,
    check_unique_ids,
    deduplicate,
    disagreeing,
    drop_unanswered,
    remove_overlap,
    repeated,
)
from dereason.problems.schema import validate, write_table
from dereason.problems.sources import ProblemFile, Source, read_file, read_source
from dereason.verify.verifier import item_of


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
    table, dropped = _usable(loaded, how.drop_unanswered)
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


def load_problems(source: Source, base: Path, where: str, drop: bool) -> tuple[pl.DataFrame, int, list[str]]:
    """Read a source and check it: unique ids, answers.

    Returns:
        PROBLEM table, how many rows without an answer were dropped, and how the data was read, in words.
    """
    loaded = read_source(source, base)
    table, unanswered = _usable(loaded, drop)
    return table, unanswered, [f"{where}: {note}" for note in loaded.notes]


def do_problems(work: Path, train: Source, test: Source, base: Path, drop: bool) -> Info:
    """Write ``train.parquet`` and ``test.parquet``.

    Repeated questions, and those that stand in the test set, are dropped from the pool. The test set stays as it is: a
    published score is one of all its rows.
    """
    pool, unanswered, notes = load_problems(train, base, "problems.train", drop)
    held_out, test_unanswered, test_notes = load_problems(test, base, "problems.test", drop)
    pool, again = deduplicate(pool)
    pool, overlap = remove_overlap(pool, held_out)
    if pool.is_empty():
        raise DereasonError("problems.train: every problem stands in problems.test", "use another pool or test set")
    write_table(pool, work / "train.parquet")
    write_table(held_out, work / "test.parquet")
    test_again = repeated(held_out)
    kept = _others(test_again)
    if kept:
        test_notes.append(f"problems.test: questions that another problem asks already, all of them kept: {kept:,}")
    return {
        "train": {
            "n": pool.height,
            "domains": domains(pool),
            "dropped": {
                "duplicate question": _others(again),
                "unanswered": unanswered,
                "also in the test set": overlap,
            },
            "differing": _differing(again),
        },
        "test": {
            "n": held_out.height,
            "domains": domains(held_out),
            "dropped": {"unanswered": test_unanswered},
            "differing": _differing(test_again),
        },
        "reading": notes + test_notes,
        "warnings": [
            f"problems.{name}: {words}; {what}"
            for name, found, what in (("train", again, "the first is kept"), ("test", test_again, "all are kept"))
            if (words := disagreeing(found)) is not None
        ],
        "words": f"{pool.height:,} to train on, {held_out.height:,} held out",
    }


def _usable(loaded: Loaded, drop: bool) -> tuple[pl.DataFrame, int]:
    """The problems that have an answer, ids checked, and how many were dropped."""
    check_unique_ids(loaded.table, loaded.where, loaded.places)
    _check_references(loaded)
    table, dropped = drop_unanswered(loaded.table, loaded.where, drop, loaded.places)
    if table.is_empty():
        raise DereasonError(f"{loaded.where}: no problem in it has an answer", "add problems with answers")
    return validate("problem", table, loaded.where), dropped


def _check_references(loaded: Loaded) -> None:
    """Refuse further references, tolerances and checks that the verifier could not use, before a response is drawn."""
    named = loaded.table.with_row_index("at").filter(
        pl.col("metadata").str.contains('"accepted"|"tolerance"|answer_check')
    )
    for row in named.iter_rows(named=True):
        item_of("", False, row | {"id": f"{loaded.where}: {loaded.places[row['at']]}"})


def _differing(found: Sequence[Repeated]) -> list[Info]:
    """All repeated problems whose answers differ; a warning names the first of them."""
    return [
        {"ids": [group.kept, *group.others], "answers": list(group.answers)}
        for group in found
        if len(group.answers) > 1
    ]


def _others(found: Sequence[Repeated]) -> int:
    return sum(len(group.others) for group in found)


def domains(table: pl.DataFrame) -> dict[str, int]:
    """Problems per domain, in alphabetical order."""
    return dict(table.group_by("domain").len().sort("domain").iter_rows())
