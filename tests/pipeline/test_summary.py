"""What the summary warns of."""

from __future__ import annotations

import polars as pl

from dereason.pipeline.summary import judge_warnings


def profiles(scores: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"judge_expectation": scores})


def test_a_judge_that_says_nothing_is_named() -> None:
    wide = profiles([1 + i / 10 for i in range(40)])
    assert judge_warnings(wide, {"value": -0.6, "low": -0.7, "high": -0.5}) == []
    (unrelated,) = judge_warnings(wide, {"value": -0.1, "low": -0.21, "high": 0.01})
    assert "Spearman -0.10 [-0.21, +0.01]" in unrelated
    assert "score: pass_rate" in unrelated
    (narrow,) = judge_warnings(profiles([1.5 + i / 100 for i in range(40)]), None)
    assert "within 0.3" in narrow
    assert (
        judge_warnings(
            pl.DataFrame({"judge_expectation": [None, None]}, schema={"judge_expectation": pl.Float64}), None
        )
        == []
    )
