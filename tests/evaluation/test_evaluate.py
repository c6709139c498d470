"""Scores of sample tables, by hand."""

from __future__ import annotations

import polars as pl
import pytest

from dereason.evaluation.evaluate import Evaluation, compare, outcomes, score
from dereason.problems.schema import frame

SAMPLED = Evaluation(samples=4, sampling={"temperature": 0.6})
VERDICTS = {
    "a": ("correct", "correct", "wrong", "error"),
    "b": ("wrong", "truncated", "unparsable", "wrong"),
    "c": ("correct", "correct", "correct", "correct"),
    "d": ("correct", "wrong", "wrong", "wrong"),
}


def samples(verdicts: dict[str, tuple[str, ...]]) -> pl.DataFrame:
    return frame(
        "sample",
        [
            {"problem_id": p, "model": "m", "purpose": "eval", "index": i, "verdict": v, "tokens": 10 * (i + 1)}
            for p, found in verdicts.items()
            for i, v in enumerate(found)
        ],
    )


def problems() -> pl.DataFrame:
    return frame(
        "problem",
        [{"id": p, "question": p, "answer": "1", "domain": "x" if p < "c" else "y", "source": "s"} for p in VERDICTS],
    )


def test_score_by_hand() -> None:
    result = score(samples(VERDICTS), problems(), SAMPLED)
    assert outcomes(samples(VERDICTS)) == {"a": (2, 3), "b": (0, 4), "c": (4, 4), "d": (1, 4)}
    assert result["accuracy"] == pytest.approx((2 / 3 + 0 + 1 + 1 / 4) / 4)
    assert result["strict"] is None  # samples from elsewhere that do not say so: not known, which is not 0
    assert (result["n_problems"], result["n_samples"]) == (4, 15)
    assert result["verdicts"] == {"correct": 7, "wrong": 6, "unparsable": 1, "truncated": 1, "error": 1}
    assert result["answered_accuracy"] == pytest.approx(7 / 13)
    assert result["mean_tokens"] == pytest.approx(25)
    assert result["by_domain"]["y"]["accuracy"] == pytest.approx(5 / 8)
    # pass@2: one minus the chance that two responses drawn without replacement are both not correct
    assert {k: found["pass"] for k, found in result["pass_at_k"].items()} == {
        "1": pytest.approx(result["accuracy"]),
        "2": pytest.approx(((1 - 0) + 0 + 1 + (1 - (3 / 4) * (2 / 3))) / 4),
        "4": pytest.approx((0 + 1 + 1) / 3),  # without the problem that the verifier failed on once
    }
    assert {k: (found["n_problems"], found["problems_left_out"]) for k, found in result["pass_at_k"].items()} == {
        "1": (4, 0),
        "2": (4, 0),
        "4": (3, 1),
    }


def test_one_error_among_thousands_costs_one_problem_its_largest_k() -> None:
    """3,200 responses: 50 problems, 64 each."""
    verdicts = {f"p{i}": ("correct",) * i + ("wrong",) * (64 - i) for i in range(50)}
    verdicts["p7"] = ("error", *verdicts["p7"][1:])
    table = problems()[[0] * 50].with_columns(id=pl.Series(list(verdicts)))
    found = score(samples(verdicts), table, SAMPLED)["pass_at_k"]
    assert list(found) == ["1", "2", "4", "8", "16", "32", "64"]
    assert [found[k]["problems_left_out"] for k in found] == [0] * 6 + [1]
    assert found["64"]["pass"] == pytest.approx(48 / 49)  # p0 alone solves none
    assert found["64"]["low"] < 48 / 49 < found["64"]["high"]
    assert found["1"]["low"] < found["1"]["pass"] < found["1"]["high"]


def test_comparison_is_paired_by_problem() -> None:
    better = VERDICTS | {"b": ("correct",) * 4, "d": ("correct",) * 4}
    found = compare(samples(VERDICTS), samples(better), SAMPLED)
    assert found["difference"] == pytest.approx((1 + 3 / 4) / 4)
    assert (found["n_problems"], found["problems_left_out"]) == (4, 0)
    failed = compare(samples(VERDICTS), samples(better | {"a": ("error",) * 4}), SAMPLED)
    assert (failed["n_problems"], failed["problems_left_out"]) == (3, 1)
    same = compare(samples(VERDICTS), samples(VERDICTS), SAMPLED)
    assert same["difference"] == 0
    assert same["low"] <= 0 <= same["high"]


def test_a_domain_that_the_verifier_failed_on_is_left_out() -> None:
    verdicts = VERDICTS | {"c": ("error",) * 4, "d": ("error",) * 4}
    result = score(samples(verdicts), problems(), SAMPLED)
    assert list(result["by_domain"]) == ["x"]
    assert (result["n_problems"], result["problems_left_out"]) == (2, 2)
