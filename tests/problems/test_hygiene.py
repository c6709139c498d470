"""Hygiene of problem tables."""

from __future__ import annotations

import polars as pl
import pytest

from dereason.errors import DereasonError
from dereason.problems.hygiene import (
    check_unique_ids,
    deduplicate,
    disagreeing,
    drop_unanswered,
    normalise_question,
    remove_overlap,
)
from dereason.problems.schema import frame


def table(*questions: str, options: list[list[str] | None] | None = None) -> pl.DataFrame:
    choices = options or [None] * len(questions)
    return frame(
        "problem",
        [
            {"id": f"p{i}", "question": q, "answer": "1", "domain": "d", "source": "s", "options": o}
            for i, (q, o) in enumerate(zip(questions, choices, strict=True))
        ],
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is  2 + 3?", "what is 2 + 3"),
        ("a\n b\u00a0c", "a b c"),
        ("What is $2+3$?", "what is $2+3$"),
        ("Name two primes.", "Name two primes"),
        ("5 \u2212 3", "5 - 3"),
        ("caf\u00e9", "cafe\u0301"),
        ("it\u2019s \u201cso\u201d", 'it\'s "so"'),
    ],
)
def test_same_question(a: str, b: str) -> None:
    assert normalise_question(a) == normalise_question(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("2 + 3", "2 - 3"),
        ("2 + 3", "2 + 4"),
        ("x\u00b2", "x2"),
        ("-1", "1"),
        ("What is 5!", "What is 5."),
        ("Calculate 5!", "Calculate 5"),
        ("What is CO?", "What is Co?"),
        ("Which strings match a.", "Which strings match a"),
        ("Which strings match a?", "Which strings match a"),
        ("WHO is it?", "Who is it?"),
        ("In: is it a metal?", "in: is it a metal?"),
        ("Write f(x):", "Write f(x)"),
    ],
)
def test_different_question(a: str, b: str) -> None:
    assert normalise_question(a) != normalise_question(b)


def test_deduplicate_keeps_the_first() -> None:
    kept, found = deduplicate(table("Was it so?", "b", "was it so", "b ", "c"))
    assert kept["id"].to_list() == ["p0", "p1", "p4"]
    assert [(group.kept, group.others) for group in found] == [("p0", ("p2",)), ("p1", ("p3",))]
    assert disagreeing(found) is None


def test_duplicates_whose_answers_differ_are_named() -> None:
    pool = table("q", "q", "r", "r", "q").with_columns(answer=pl.Series(["1", "2", "3", " 3", "1"]))
    kept, found = deduplicate(pool)
    assert kept["answer"].to_list() == ["1", "3"]
    assert disagreeing(found) == "1 repeated question has different answers: p0, p1, p4 ('1' against '2')"


def test_deduplicate_looks_at_options() -> None:
    pool = table("q", "q", "q", "q", "q", options=[["x", "y"], ["y", "x"], ["x", "y "], None, ["X", "y"]])
    kept, found = deduplicate(pool)
    assert kept["id"].to_list() == ["p0", "p1", "p3", "p4"]
    assert [group.others for group in found] == [("p2",)]


def test_remove_overlap_drops_from_train_only() -> None:
    train, test = table("one", "Are two?", "three"), table("are two", "four", options=[["x"], None])
    kept, dropped = remove_overlap(train, test)
    assert kept["question"].to_list() == ["one", "three"]
    assert dropped == 1


def test_empty_tables() -> None:
    empty = table()
    assert deduplicate(empty)[1] == []
    assert remove_overlap(empty, empty)[0].height == 0
    check_unique_ids(empty, "t")
    assert drop_unanswered(empty, "t", drop=False)[1] == 0


def test_duplicated_ids_are_named_with_their_rows() -> None:
    pool = table("a", "b", "c", "d").with_columns(id=pl.Series(["x", "y", "x", "x"]))
    with pytest.raises(DereasonError, match=r"pool.jsonl: duplicated ids: 'x' in rows 1, 3, 4 "):
        check_unique_ids(pool, "pool.jsonl")
    check_unique_ids(pool.head(2), "pool.jsonl")


def test_unanswered_rows_are_named_or_dropped() -> None:
    pool = table("a", "b", "c", "d").with_columns(answer=pl.Series(["1", None, "  ", "0"]))
    with pytest.raises(DereasonError, match=r"pool.jsonl: no answer in rows 2, 3 .*drop_unanswered"):
        drop_unanswered(pool, "pool.jsonl", drop=False)
    kept, dropped = drop_unanswered(pool, "pool.jsonl", drop=True)
    assert kept["question"].to_list() == ["a", "d"]
    assert dropped == 2


def test_many_rows_are_abridged() -> None:
    pool = table(*"abcdefghijklmno").with_columns(answer=pl.lit(None, dtype=pl.String))
    with pytest.raises(DereasonError, match="9, 10 and 5 more"):
        drop_unanswered(pool, "t", drop=False)
