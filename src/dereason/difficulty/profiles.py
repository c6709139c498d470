"""Profiles: what is known of each problem's difficulty for one model, with where it comes from."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from dereason.difficulty.judge import Judge
from dereason.difficulty.pass_rate import PassRate
from dereason.problems.schema import PROFILE, validate
from dereason.settings import Settings


class Profile(Settings):
    """What is measured of each problem before routing."""

    judge: Judge = Judge()
    """The judge profiler."""
    pass_rate: PassRate = PassRate()
    """The pass-rate profiler."""


def build_profiles(
    problems: pl.DataFrame,
    *,
    model: str,
    scores: pl.DataFrame | None,
    rates: pl.DataFrame | None,
    judge_model: str | None,
    provenance: dict[str, Any],
) -> pl.DataFrame:
    """Join judge scores and pass rates into a PROFILE table, one row a problem in the problems' order.

    Args:
        problems: PROBLEM table.
        model: identity of the student.
        scores: from :func:`dereason.difficulty.judge.judge_scores`, or None.
        rates: from :func:`dereason.difficulty.pass_rate.pass_rates`, or None.
        judge_model: identity of the judge, None where no judge ran.
        provenance: revision, template hash, sampling, verifier version; written as JSON to each row.
    """
    table = problems.select(pl.col("id").alias("problem_id"))
    for part in (scores, rates):
        if part is not None:
            table = table.join(part, on="problem_id", how="left", maintain_order="left")
    counts = [c for c in ("n", "correct", "wrong", "unparsable", "truncated", "error") if c not in table.columns]
    table = table.with_columns(
        *[pl.lit(0, dtype=pl.Int32).alias(c) for c in counts],
        pl.lit(model).alias("model"),
        pl.lit(judge_model, dtype=pl.String).alias("judge_model"),
        pl.lit(json.dumps(provenance, sort_keys=True)).alias("provenance"),
    )
    return validate("profile", table, "profiles").select(list(PROFILE))
