"""The student's own pass rate: k responses a problem, verdict counts, and an interval.

The interval is the Jeffreys posterior Beta(1/2 + c, 1/2 + n - c): 0 of 8 and 0 of 64 are different profiles.
A verifier ``error`` is left out of n.
"""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field, model_validator

from dereason.lm.base import Sampling, check_draws
from dereason.problems.schema import Verdict
from dereason.settings import Settings
from dereason.statistics import beta_interval


class PassRate(Settings):
    """The pass-rate profiler: k responses of the student to each problem."""

    enabled: bool | None = None
    """Whether it runs; null: where an arm reads pass rates or their responses (`dereason profile`: always)."""
    k: int = Field(default=8, gt=0)
    """Responses per problem."""
    sampling: Sampling = Sampling()
    """How they are drawn."""
    seed: int = 0
    """Seed of the sampling streams."""

    @model_validator(mode="after")
    def _draws(self) -> Self:
        check_draws(self.sampling, self.k, "k")
        return self


def pass_rates(samples: pl.DataFrame) -> pl.DataFrame:
    """Count verdicts per problem.

    Args:
        samples: SAMPLE table.

    Returns:
        problem_id, n, the five verdict counts, pass_rate (null at n = 0), pass_low, pass_high (95 %).
    """
    counts = samples.group_by("problem_id", maintain_order=True).agg(
        *[(pl.col("verdict") == str(v)).sum().cast(pl.Int32).alias(str(v)) for v in Verdict]
    )
    counts = counts.with_columns(
        (pl.sum_horizontal("correct", "wrong", "unparsable", "truncated")).cast(pl.Int32).alias("n")
    )
    bounds = [beta_interval(c, n) if n else (None, None) for c, n in counts.select("correct", "n").iter_rows()]
    return counts.with_columns(
        pl.when(pl.col("n") > 0).then(pl.col("correct") / pl.col("n")).alias("pass_rate"),
        pl.Series("pass_low", [b[0] for b in bounds], dtype=pl.Float64),
        pl.Series("pass_high", [b[1] for b in bounds], dtype=pl.Float64),
    )
