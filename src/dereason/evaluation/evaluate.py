"""Scoring a model on held-out problems: accuracy, lenient and strict, with intervals, and the verdicts beside it."""

from __future__ import annotations

from typing import Any, Self

import polars as pl
from pydantic import Field, model_validator

from dereason.evaluation.statistics import Interval, accuracy_interval, paired_difference
from dereason.lm.base import Sampling, check_draws
from dereason.settings import Settings
from dereason.verify.confusion import confusion, found_by
from dereason.verify.verdict import verdict_counts


class EvaluationSampling(Sampling):
    """How scored responses are drawn: greedily, unless said otherwise."""

    temperature: float | None = Field(default=0.0, ge=0)
    """Softmax temperature; 0 takes the most probable token (greedy), null leaves it to the endpoint
    (`backend: api` only)."""
    max_new_tokens: int = Field(default=1024, gt=0)
    """Length limit of a response, in tokens, the end token included."""


class Evaluation(Settings):
    """How models are scored; the same for the base and for every trained model."""

    samples: int = Field(default=1, gt=0)
    """Responses per problem; accuracy is the mean over problems of the mean over responses (avg@n)."""
    sampling: EvaluationSampling = EvaluationSampling()
    """How responses are drawn; temperature 0 is greedy."""
    seed: int = 0
    """Seed of the sampling streams and of the bootstrap."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Confidence level of all intervals."""

    @model_validator(mode="after")
    def _draws(self) -> Self:
        check_draws(self.sampling, self.samples, "samples")
        return self


Outcomes = dict[str, tuple[int, int]]
"""problem id -> (correct, n), verifier errors left out of n."""


def outcomes(samples: pl.DataFrame, *, strict: bool = False) -> Outcomes:
    """Count correct responses per problem.

    Args:
        samples: SAMPLE table.
        strict: count those whose answer is marked as one.
    """
    correct = pl.col("strict") if strict else pl.col("verdict") == "correct"
    counted = samples.group_by("problem_id", maintain_order=True).agg(
        correct.sum().alias("c"), (pl.col("verdict") != "error").sum().alias("n")
    )
    return {p: (int(c), int(n)) for p, c, n in counted.iter_rows()}


def score(samples: pl.DataFrame, problems: pl.DataFrame, settings: Evaluation) -> dict[str, Any]:
    """Accuracy with its interval (bootstrap clustered by problem), overall and by domain, and verdict counts.

    Returns:
        The fields of one entry of ``summary.json``'s ``results`` that do not name the arm; ``strict`` is null where a
        sample came without.
    """
    found = outcomes(samples)
    overall = accuracy_interval(list(found.values()), level=settings.level, seed=settings.seed)
    strict = None
    if not samples["strict"].has_nulls():
        marked = list(outcomes(samples, strict=True).values())
        interval = accuracy_interval(marked, level=settings.level, seed=settings.seed)
        strict = {"accuracy": interval.estimate, "low": interval.low, "high": interval.high}
    by_kind = confusion(samples)
    verdicts = verdict_counts(samples["verdict"].to_list())
    answered = verdicts["correct"] + verdicts["wrong"]
    domains = dict(problems.select("id", "domain").iter_rows())
    by_domain = {}
    for domain in sorted(set(domains[p] for p in found)):
        inside = [o for p, o in found.items() if domains[p] == domain]
        if not any(n for _, n in inside):
            continue  # the verifier failed on all of them
        part = accuracy_interval(inside, level=settings.level, seed=settings.seed)
        by_domain[domain] = {
            "accuracy": part.estimate,
            "low": part.low,
            "high": part.high,
            "n_problems": part.n_problems,
        }
    return {
        "accuracy": overall.estimate,
        "low": overall.low,
        "high": overall.high,
        "level": settings.level,
        "strict": strict,
        "n_problems": overall.n_problems,
        "n_samples": overall.n_samples,
        "problems_left_out": overall.left_out,
        "verdicts": verdicts,
        "found_by": found_by(by_kind["rules"]),
        "confusion": by_kind,
        "answered_accuracy": verdicts["correct"] / answered if answered else None,
        "mean_tokens": float(samples["tokens"].mean() or 0.0),  # type: ignore[arg-type]
        "pass_at_k": _pass_at(found, settings),
        "by_domain": by_domain,
    }


def _pass_at(found: Outcomes, settings: Evaluation) -> dict[str, dict[str, float]]:
    """pass@k, unbiased (arXiv 2107.03374), with its interval, for k = 1, 2, 4, ... up to the most judged responses.

    A problem counts where k of its responses were judged: an error of the verifier costs its problem the largest k, and
    no k its figure.
    """
    out = {}
    for power in range(max(n for _, n in found.values()).bit_length()):
        part = accuracy_interval(list(found.values()), level=settings.level, seed=settings.seed, k=2**power)
        out[str(2**power)] = {
            "pass": part.estimate,
            "low": part.low,
            "high": part.high,
            "n_problems": part.n_problems,
            "problems_left_out": part.left_out,
        }
    return out


def compare(before: pl.DataFrame, after: pl.DataFrame, settings: Evaluation) -> dict[str, Any]:
    """Difference of two models' accuracies on the same problems, paired by problem.

    ``problems_left_out`` are those that one side lacks, or has no judged response to. ``strict`` is the difference of
    the strict accuracies, null where a sample came without.
    """

    def difference(strict: bool) -> Interval:
        sides = outcomes(before, strict=strict), outcomes(after, strict=strict)
        return paired_difference(*sides, level=settings.level, seed=settings.seed)

    interval = difference(strict=False)
    marked = None
    if not (before["strict"].has_nulls() or after["strict"].has_nulls()):
        strict = difference(strict=True)
        marked = {"difference": strict.estimate, "low": strict.low, "high": strict.high}
    return {
        "difference": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "strict": marked,
        "level": settings.level,
        "n_problems": interval.n_problems,
        "problems_left_out": interval.left_out,
    }
