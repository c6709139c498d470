"""The probe of a run's analysis: many responses of each of its models to a few held-out problems."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import polars as pl
from pydantic import Field, model_validator

from dereason.analysis.settings import Analysis
from dereason.lm.base import Sampling, check_draws
from dereason.lm.local.model import ModelSettings
from dereason.pipeline.actions import Context, drawn, shares, strictly
from dereason.pipeline.store import Info
from dereason.verify.confusion import confusion
from dereason.verify.verdict import verdict_counts


class ProbedAnalysis(Analysis):
    """The analysis of a recipe: what every model of it is asked, and what is made of the responses."""

    problems: int | None = Field(default=None, gt=1)
    """Ask only the first held-out problems, this many; null asks all."""
    samples: int = Field(default=64, gt=1)
    """Responses per problem and model (the paper's 256), drawn with `seed`."""
    sampling: Sampling = Sampling()
    """How they are drawn; the same for every model."""

    @model_validator(mode="after")
    def _draws(self) -> Self:
        check_draws(self.sampling, self.samples, "samples", endpoint=False)
        return self

    def asked(self) -> Info:
        """What decides the responses, for a key."""
        return self.model_dump(mode="json", include={"problems", "samples", "sampling", "seed"})


def do_probe(
    work: Path,
    problems: pl.DataFrame,
    settings: ProbedAnalysis,
    model: ModelSettings,
    *,
    identity: str | None,
    expected_hash: str | None,
    ctx: Context,
) -> Info:
    """Write ``samples.parquet`` of a model on the probe's problems.

    Raises:
        DereasonError: as :func:`~dereason.pipeline.actions.drawn`.
    """
    samples, info = drawn(
        work,
        problems.head(settings.problems) if settings.problems else problems,
        model,
        n=settings.samples,
        sampling=settings.sampling,
        seed=settings.seed,
        purpose="probe",
        identity=identity,
        expected_hash=expected_hash,
        ctx=ctx,
    )
    verdicts = verdict_counts(samples["verdict"].to_list())
    marked = strictly(int(samples["strict"].sum()), verdicts)
    words = f"{samples.height} responses, {shares(verdicts)}; {marked}"
    return info | {"verdicts": verdicts, "confusion": confusion(samples), "words": words}
