"""The verdicts by kind of answer, counted by hand."""

from __future__ import annotations

import pytest

from dereason.problems.schema import frame
from dereason.verify.confusion import confusion, lines, tabulate
from dereason.verify.verdict import Judgement, Verdict


def test_a_table_counted_by_hand() -> None:
    judged = [
        Judgement(Verdict.CORRECT, "1", "r", "number", "boxed", 0, 1),
        Judgement(Verdict.CORRECT, "1", "r", "number", "number", 0, 1),
        Judgement(Verdict.WRONG, "2", "r", "number", "number", 0, 1),
        Judgement(Verdict.WRONG, "2", "r", "number", "boxed", 0, 1),
        Judgement(Verdict.ERROR, "9", "took longer", "expression", "boxed", 0, 1),
        Judgement(Verdict.ERROR, "9", "took longer", "number", "boxed", 0, 1),
        Judgement(Verdict.ERROR, None, "failed", None),
        Judgement(Verdict.TRUNCATED, None, "cut", "set"),
    ]
    table = confusion(frame("sample", [j.columns() for j in judged]))
    zero = dict.fromkeys([*map(str, Verdict), "strict"], 0)
    assert table == {
        "kinds": {
            "number": zero | {"correct": 2, "strict": 1, "wrong": 2, "error": 1, "n": 4},
            "set": zero | {"truncated": 1, "n": 1},
            "expression": zero | {"error": 1, "n": 0},
            "unknown": zero | {"error": 1, "n": 0},
        },
        "errors": {"took longer": 2, "failed": 1},
        "rules": {"boxed": 4, "number": 2},
    }
    assert list(table["kinds"]) == ["number", "set", "expression", "unknown"], "in the order of the kinds"


def test_causes_are_the_most_frequent_ten() -> None:
    rows = [("error", False, "text", None, f"cause {i:02d}") for i in range(14) for _ in range(20 - i)]
    errors = tabulate(rows)["errors"]
    assert list(errors) == [*(f"cause {i:02d}" for i in range(10)), "other causes"]
    assert errors["other causes"] == 10 + 9 + 8 + 7
    assert sum(errors.values()) == len(rows)


def test_an_empty_table_has_no_lines() -> None:
    assert lines(confusion(frame("sample", []))) == []


def test_columns_line_up() -> None:
    rows = [("correct", True, "number", "boxed", None)] * 12345 + [("error", False, "expression", None, "why")]
    head, number, expression, rules, error = lines(tabulate(rows))
    assert len(head) == len(number) == len(expression)
    assert number.split() == ["number", "12,345", "0", "0", "0", "0", "12,345", "12,345"]
    assert rules == "answers found by: boxed 100 %"
    assert error == "1 × error: why"


def test_a_kind_that_nobody_knows_is_a_bug() -> None:
    with pytest.raises(ValueError, match="poem"):
        tabulate([("correct", True, "poem", None, None)])
