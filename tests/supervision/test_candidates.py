"""What may become a target, what is chosen, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from dereason.errors import DereasonError
from dereason.problems.schema import Origin, frame, validate
from dereason.supervision.candidates import candidates, choose, coverage, targets


def samples(*rows: dict[str, Any]) -> pl.DataFrame:
    base = {"problem_id": "p", "model": "m@1", "purpose": "teacher", "tokens": 5, "hit_limit": False}
    base |= {"verdict": "correct", "reason": "boxed: same number"}
    return frame("sample", [base | {"index": i, "response": f"text {i}"} | row for i, row in enumerate(rows)])


def chosen(table: pl.DataFrame) -> list[int]:
    return table.with_row_index("row").filter("chosen")["row"].to_list()


def test_samples_become_candidates() -> None:
    drawn = samples({}, {"verdict": "wrong"}, {"verdict": "truncated"}, {"hit_limit": True})
    table = candidates(drawn, Origin.TEACHER)
    assert validate("candidate", table, "t").equals(table)
    assert table["accepted"].to_list() == [True, False, False, False]
    assert table["reason"].to_list() == [
        "response of m@1, verified: boxed: same number",
        "response of m@1, not verified (wrong): boxed: same number",
        "response of m@1, not verified (truncated): boxed: same number",
        "response of m@1, not verified (cut): boxed: same number",
    ]
    assert not table["chosen"].any()
    assert not table["raw"].any()


def test_columns_of_candidates_can_be_given() -> None:
    table = candidates(
        samples({}, {}), Origin.REPAIR, prompt=["a", None], raw=True, index=pl.col("index") + 4, accepted=[False, True]
    )
    assert table["prompt"].to_list() == ["a", None]
    assert table["index"].to_list() == [4, 5]
    assert table["raw"].all()
    assert table["reason"][0].startswith("repair by m@1, not verified (correct)")
    assert candidates(samples({"verdict": "wrong"}), Origin.DIAGNOSIS, verdict="correct")["accepted"].all()
    with pytest.raises(TypeError, match="no column note"):
        candidates(samples({}), Origin.SELF, note="x")


def test_first_shortest_and_likeliest() -> None:
    table = candidates(
        samples({"tokens": 9}, {"tokens": 4}, {"tokens": 4}, {"tokens": 1, "verdict": "wrong"}, {"tokens": 6}),
        Origin.TEACHER,
        nll=[0.5, 0.9, 0.8, 0.1, 0.2],
    )
    assert chosen(choose(table, "first", 1)) == [0]
    assert chosen(choose(table, "first", 2)) == [0, 1]
    assert chosen(choose(table, "shortest", 1)) == [1]  # the tie goes to the lower index
    assert chosen(choose(table, "shortest", 3)) == [1, 2, 4]
    assert chosen(choose(table, "likelihood", 1)) == [4]
    assert chosen(choose(table, "likelihood", 9)) == [0, 1, 2, 4]
    reasons = choose(table, "shortest", 1)["reason"].to_list()
    assert reasons[1] == "response of m@1, verified: boxed: same number"
    assert reasons[0].endswith("; not chosen: a shorter one was taken")
    assert reasons[3] == "response of m@1, not verified (wrong): boxed: same number"


def test_every_problem_is_chosen_for_by_itself_in_any_order_of_rows() -> None:
    rows = [{"problem_id": f"p{i % 3}", "index": i // 3, "tokens": (7 * i) % 11} for i in range(12)]
    table = candidates(samples(*rows), Origin.TEACHER)
    picked = choose(table, "shortest", 1).filter("chosen")
    assert picked.height == 3
    for id, tokens in picked.select("problem_id", "tokens").rows():
        assert tokens == table.filter(problem_id=id)["tokens"].min()
    shuffled = choose(table.sample(fraction=1, shuffle=True, seed=1), "shortest", 1).filter("chosen")
    assert shuffled.sort("problem_id").equals(picked.sort("problem_id"))


def test_the_likeliest_needs_measured_candidates() -> None:
    table = candidates(samples({}, {}, {"verdict": "wrong"}), Origin.TEACHER, nll=[0.1, None, None])
    with pytest.raises(DereasonError, match="1 of 2 candidates have no nll, the first for problem 'p'"):
        choose(table, "likelihood", 1)


def test_diverse_takes_the_least_alike() -> None:
    texts = [
        "Add two and two to get four",  # shortest: the start
        "add two and two to get Four .",  # nearly the same
        "Count on from two by two steps and you stand at four",  # another way
        "Count on from two by two steps and you stand at four indeed",  # nearly the same as that
        "four",  # a run of its own
    ]
    tokens = [7, 8, 12, 13, 20]
    table = candidates(
        samples(*({"response": t, "tokens": n} for t, n in zip(texts, tokens, strict=True))), Origin.TEACHER
    )
    assert chosen(choose(table, "diverse", 1)) == [0]
    assert chosen(choose(table, "diverse", 2)) == [0, 2]
    assert chosen(choose(table, "diverse", 3)) == [0, 2, 4]
    assert chosen(choose(table, "diverse", 5)) == [0, 1, 2, 3, 4]
    assert chosen(choose(table, "shortest", 2)) == [0, 1]


def test_equal_texts_count_once_and_other_prompts_make_other_texts() -> None:
    same = samples({"response": "x"}, {"response": " x\n"}, {"response": "x"}, {"response": "y"})
    table = choose(candidates(same, Origin.SELF), "first", 4)
    assert chosen(table) == [0, 3]
    assert table["reason"][1].endswith("; not chosen: the same text as another")
    table = candidates(same, Origin.DIAGNOSIS, prompt=["a", "b", "a", None], prefix=[None, None, None, "z"])
    assert chosen(choose(table, "first", 4)) == [0, 1, 3]


def test_unverified_ones_are_chosen_only_when_asked_for_by_name() -> None:
    drawn = samples(
        {"verdict": "truncated", "reason": "the length limit came before any answer"},
        {"verdict": "error", "problem_id": "e", "reason": "out of time"},
        {"response": "  ", "verdict": "unparsable", "problem_id": "r", "reason": "the model refused: no"},
        {"problem_id": "c"},
        {"problem_id": "w", "verdict": "wrong"},
    )
    table = candidates(drawn, Origin.TEACHER)
    assert chosen(choose(table, "first", 1)) == [3]
    everything = choose(table, "first", 1, keep="all")
    assert chosen(everything) == [0, 3, 4]
    assert everything["reason"].to_list() == [
        "response of m@1, not verified (truncated): the length limit came before any answer; chosen unverified",
        "response of m@1, not verified (error): out of time; not chosen: the verifier failed",
        "response of m@1, not verified (unparsable): the model refused: no; not chosen: empty",
        "response of m@1, verified: boxed: same number",
        "response of m@1, not verified (wrong): boxed: same number; chosen unverified",
    ]
    made = targets(everything)
    assert made["accepted"].to_list() == [False, True, False]
    assert made["note"].to_list() == [
        "response of m@1, not verified (truncated)",
        "response of m@1, verified",
        "response of m@1, not verified (wrong)",
    ]


def test_raw_traces_are_never_chosen() -> None:
    table = candidates(samples({}, {}), Origin.TEACHER, raw=[True, False])
    assert chosen(choose(table, "shortest", 2)) == [1]
    assert chosen(choose(table, "shortest", 2, keep="all")) == [1]


def test_targets_carry_what_the_student_is_trained_on() -> None:
    table = candidates(samples({}, {}), Origin.BRIDGE, prompt="ask", prefix="so", nll=0.7, reason="raw trace; chosen")
    row = targets(choose(table, "first", 1)).row(0, named=True)
    assert row == {
        "problem_id": "p",
        "response": "text 0",
        "origin": "bridge",
        "accepted": True,
        "note": "raw trace",
        "prompt": "ask",
        "prefix": "so",
        "model": "m@1",
        "nll": 0.7,
    }


def test_coverage_counts_and_says_why_not() -> None:
    cases: dict[str, list[dict[str, Any]]] = {
        "got": [{}, {"verdict": "wrong"}],
        "wrong": [{"verdict": "wrong"}, {"verdict": "truncated"}],
        "cut": [{"verdict": "truncated"}, {"verdict": "truncated"}],
        "error": [{"verdict": "error"}],
        "some": [{"verdict": "error"}, {"verdict": "wrong"}],
        "refused": [{"response": "", "verdict": "unparsable"}],
    }
    drawn = samples(*({"problem_id": id} | row for id, rows in cases.items() for row in rows))
    table = choose(candidates(drawn, Origin.TEACHER), "first", 1)
    unseen = candidates(samples({"problem_id": "raw"}), Origin.HUMAN, raw=True, accepted=False, reason="no trace: x")
    refused = candidates(samples({"problem_id": "stray"}), Origin.BRIDGE, accepted=False)
    ids = ["none", "raw", "stray", *reversed(cases)]
    pool = frame("problem", [{"id": i, "question": "q", "answer": "1", "domain": "d", "source": "s"} for i in ids])
    found = coverage(pl.concat([table, unseen, refused]), pool, "teacher")
    assert found["problem_id"].to_list() == ids
    assert found["style"].unique().to_list() == ["teacher"]
    assert {id: (n, accepted, made, why) for id, _, n, accepted, made, why in found.rows()} == {
        "none": (0, 0, 0, "there is no response to choose from"),
        "raw": (0, 0, 0, "no trace"),
        "stray": (1, 0, 0, "no correct response passed the other checks"),
        "got": (2, 1, 1, None),
        "wrong": (2, 0, 0, "no response is correct"),
        "cut": (2, 0, 0, "every response was cut at the length limit"),
        "error": (1, 0, 0, "the verifier failed on every response"),
        "some": (2, 0, 0, "no response is correct, and the verifier failed on some"),
        "refused": (1, 0, 0, "every response is empty or was refused by the model"),
    }


def test_no_candidates_at_all() -> None:
    empty = candidates(samples(), Origin.TEACHER)
    for rule in ("first", "shortest", "likelihood", "diverse"):
        assert choose(empty, rule, 2).equals(frame("candidate", []))
    assert targets(empty).equals(frame("target", []))
