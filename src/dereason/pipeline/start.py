"""Choosing where an RL phase begins: the kept model of the SFT phase before it with the best pass@k.

An SFT model that answers best greedily need not be the best start for RL, which learns from problems that some of
several samples solve. pass@k on problems of the RL set itself, drawn as the phase's rollouts are and judged under the
marks that its rewards count, measures that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Outcomes, outcomes
from dereason.evaluation.statistics import accuracy_interval, paired_difference
from dereason.lm.base import Sampling, check_draws
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import check_template
from dereason.pipeline.store import SCRATCH
from dereason.problems.schema import write_table
from dereason.settings import Settings
from dereason.verify.confusion import confusion
from dereason.verify.samples import draw_samples
from dereason.verify.span import Mark
from dereason.verify.verifier import Verifier, item_of

if TYPE_CHECKING:
    from dereason.pipeline.actions import Context


class Start(Settings):
    """How an RL phase chooses its start among the models that the SFT phase before it kept."""

    by: Literal["pass_at_k"] = "pass_at_k"
    """What decides: the chance that one of k samples is correct (unbiased estimate, arXiv 2107.03374)."""
    k: int = Field(default=8, gt=0)
    """Samples of which one has to be correct."""
    problems: int = Field(default=32, gt=0)
    """Problems of the phase's set, drawn at random, that every candidate answers."""
    samples: int = Field(default=8, gt=0)
    """Responses to each problem; at least k."""
    sampling: Sampling | None = None
    """How responses are drawn; null takes the phase's temperature and length limit."""
    seed: int = 0
    """Seed of the problems, of the sampling and of the intervals."""

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if self.samples < self.k:
            raise ValueError(f"samples is {self.samples}: pass@{self.k} needs at least {self.k} responses a problem")
        if self.sampling is not None:
            check_draws(self.sampling, self.samples, "samples", endpoint=False)
        return self


def do_choose_start(
    work: Path,
    problems: pl.DataFrame,
    candidates: Mapping[str, ModelSettings],
    settings: Start,
    sampling: Sampling,
    *,
    marks: Collection[Mark] | None,
    identity: str,
    expected_hash: str | None,
    ctx: Context,
) -> dict[str, Any]:
    """Write ``samples.parquet`` and ``candidates.parquet``; the name of the best candidate goes to ``step.json``.

    Args:
        work: the step's folder.
        problems: PROBLEM table of the RL set.
        candidates: the kept models by the name of their folder, the last one last.
        settings: see :class:`Start`.
        sampling: how responses are drawn.
        marks: those that the phase's rewards count; None: any answer counts.
        identity: name of the step that kept the models.
        expected_hash: template hash of the run.
        ctx: what steps share.

    Raises:
        DereasonError: no problem has k judged samples from every candidate.
    """
    subset = draw_problems(problems, settings.problems, settings.seed)
    tables: dict[str, pl.DataFrame] = {}
    for name, model in candidates.items():
        lm = ctx.model(model, f"{identity}/{name}")
        check_template(lm.identity, lm.template_hash(), expected_hash)
        tables[name] = draw_samples(
            lm,
            subset,
            ctx.prompt,
            n=settings.samples,
            sampling=sampling,
            seed=settings.seed,
            purpose="start",
            store=work / "batches" / name,
            verifier=ctx.verifier,
            progress=ctx.progress(),
        )
    samples = pl.concat(list(tables.values()))
    write_table(samples, work / "samples.parquet")
    paid = {name: outcomes(under_marks(table, subset, ctx.verifier, marks)) for name, table in tables.items()}
    found = choose(paid, settings)
    write_table(pl.DataFrame(found["candidates"]), work / "candidates.parquet")
    tokens = int(samples["tokens"].sum())
    return found | {SCRATCH: ["batches"], "confusion": confusion(samples), "tokens_generated": tokens}


def under_marks(
    samples: pl.DataFrame, problems: pl.DataFrame, verifier: Verifier, marks: Collection[Mark] | None
) -> pl.DataFrame:
    """The samples with the verdicts that a phase which counts these marks would learn from.

    Args:
        samples: SAMPLE table.
        problems: PROBLEM table with the problems of all samples.
        verifier: judges.
        marks: None: any answer counts, and the verdicts stay.
    """
    if marks is None:
        return samples
    known = {row["id"]: row for row in problems.iter_rows(named=True)}
    asked = samples.select("problem_id", "response", "hit_limit").iter_rows()
    judged = verifier.judge_many([item_of(response, limit, known[p]) for p, response, limit in asked], marks)
    return samples.with_columns(pl.Series("verdict", [str(judgement.verdict) for judgement in judged]))


def draw_problems(problems: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """At most ``count`` problems at random, in their own order."""
    drawn = np.random.default_rng(seed).permutation(problems.height)[:count]
    return problems[sorted(drawn.tolist())]


def choose(counts: Mapping[str, Outcomes], settings: Start) -> dict[str, Any]:
    """The candidate with the best pass@k, the last one of equals, and what all of them have.

    Only problems with k judged samples from every candidate count.

    Args:
        counts: correct and judged samples of each problem, by candidate; the last candidate last.
        settings: see :class:`Start`.
    """
    k, names = settings.k, list(counts)
    shared = [p for p in counts[names[-1]] if all(counts[n].get(p, (0, 0))[1] >= k for n in names)]
    if not shared:
        raise DereasonError(
            f"no problem has {k} samples from every candidate that could be judged: no start can be chosen",
            "look at the reasons of the verdicts 'error' in samples.parquet, or raise start.samples above start.k",
        )
    intervals = {n: accuracy_interval([counts[n][p] for p in shared], seed=settings.seed, k=k) for n in names}
    best = max(range(len(names)), key=lambda at: (round(intervals[names[at]].estimate, 9), at))
    chosen, last = names[best], names[-1]
    rows = [
        {
            "model": name,
            "chosen": name == chosen,
            "k": k,
            "pass_at_k": found.estimate,
            "low": found.low,
            "high": found.high,
            "level": found.level,
            "n_problems": found.n_problems,
            "n_samples": found.n_samples,
        }
        for name, found in intervals.items()
    ]
    mine = intervals[chosen]
    words = f"{chosen}: pass@{k} {100 * mine.estimate:.1f} % [{100 * mine.low:.1f}, {100 * mine.high:.1f}]"
    if chosen == last:
        words += f", best of {len(names)}"
    else:
        of = {p: counts[last][p] for p in shared}, {p: counts[chosen][p] for p in shared}
        above = paired_difference(*of, seed=settings.seed, k=k)
        words += (
            f", best of {len(names)}; the last one is "
            f"{100 * above.estimate:.1f} points [{100 * above.low:.1f}, {100 * above.high:.1f}] below"
        )
    return {"chosen": chosen, "candidates": rows, "words": f"{words}, {mine.n_problems} problems"}
