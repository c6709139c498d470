"""Judge scores and pass rates, from a model to a profile table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import beta

from dereason.difficulty.judge import SCORES, Judge, judge_scores
from dereason.difficulty.pass_rate import pass_rates
from dereason.difficulty.profiles import build_profiles
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.problems.schema import frame


def problems(count: int) -> pl.DataFrame:
    return frame(
        "problem",
        [
            {
                "id": f"p{i}",
                "question": f"What is {i} + {i}?",
                "answer": str(2 * i),
                "domain": "sum",
                "source": "test",
            }
            for i in range(count)
        ],
    )


def sample(problem: str, verdict: str) -> dict[str, object]:
    return {"problem_id": problem, "model": "m", "purpose": "profile", "verdict": verdict}


def test_judge_scores_are_a_distribution_and_its_moments(tiny_model: Path, tmp_path: Path) -> None:
    lm = LocalModel(ModelSettings(name=str(tiny_model)))
    table = judge_scores(lm, problems(7), Judge(batch_size=3), store=tmp_path)
    probs = np.array(table["judge_probs"].to_list())
    assert probs.shape == (7, 5)
    assert probs.sum(1) == pytest.approx(np.ones(7))
    assert table["judge_expectation"].to_list() == pytest.approx((probs @ [1, 2, 3, 4, 5]).tolist())
    assert table["judge_mode"].to_list() == (probs.argmax(1) + 1).tolist()
    assert table["problem_id"].to_list() == [f"p{i}" for i in range(7)]


class CountingJudge:
    """A judge that counts its calls and fails at the given one."""

    identity = "counting"

    def template_hash(self) -> str:
        return "counting"

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls = 0
        self.fail_at = fail_at

    def choice_probabilities(
        self, prompts: Sequence[object], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        assert tuple(choices) == SCORES
        yield np.full((len(prompts), 5), 0.2)


def test_an_interrupted_judge_asks_nothing_twice(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        judge_scores(CountingJudge(fail_at=3), problems(8), Judge(batch_size=2), store=tmp_path)  # type: ignore[arg-type]
    again = CountingJudge()
    table = judge_scores(again, problems(8), Judge(batch_size=2), store=tmp_path)  # type: ignore[arg-type]
    assert again.calls == 2
    assert table.height == 8


def test_pass_rate_leaves_errors_out_of_n() -> None:
    samples = frame(
        "sample",
        [
            *[sample("a", v) for v in ("correct", "wrong", "error", "truncated", "unparsable", "correct")],
            *[sample("b", v) for v in ("error", "error")],
        ],
    )
    a, b = pass_rates(samples).to_dicts()
    assert (a["n"], a["correct"], a["error"], a["pass_rate"]) == (5, 2, 1, 0.4)
    assert a["pass_low"] == pytest.approx(beta.ppf(0.025, 2.5, 3.5))
    assert a["pass_high"] == pytest.approx(beta.ppf(0.975, 2.5, 3.5))
    assert (b["n"], b["error"], b["pass_rate"], b["pass_low"]) == (0, 2, None, None)


def test_few_and_many_failures_are_different_profiles() -> None:
    few = pass_rates(frame("sample", [sample("a", "wrong")] * 8))
    many = pass_rates(frame("sample", [sample("a", "wrong")] * 64))
    assert few["pass_rate"].item() == many["pass_rate"].item() == 0
    assert few["pass_high"].item() > 5 * many["pass_high"].item()


def test_profiles_hold_one_row_a_problem_with_provenance() -> None:
    pool = problems(2)
    rates = pass_rates(frame("sample", [sample("p1", "correct"), sample("p0", "wrong")]))
    table = build_profiles(pool, model="m", scores=None, rates=rates, judge_model=None, provenance={"verifier": "1"})
    assert table["problem_id"].to_list() == ["p0", "p1"]
    assert table["pass_rate"].to_list() == [0.0, 1.0]
    assert table["judge_expectation"].to_list() == [None, None]
    assert json.loads(table["provenance"][0]) == {"verifier": "1"}
    judged_only = build_profiles(pool, model="m", scores=None, rates=None, judge_model=None, provenance={})
    assert judged_only["n"].to_list() == [0, 0]
