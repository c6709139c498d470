"""Bridge (arXiv 2606.04466): a worked trace of a hard problem, rewritten so that this student can learn it.

The paper says that raw traces of hard problems become supervision that a small model can learn; how is not known to
us. Ours: a teacher gets the problem, a verified trace and a failed attempt of the student, and rewrites the trace in
short explicit steps. A rewrite has to verify and to reason before it answers; of those that do, the one with the
student's lowest negative log-likelihood per token becomes the target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from dereason.problems.schema import Origin, frame
from dereason.supervision.candidates import candidates, choose
from dereason.supervision.checks import (
    chat,
    failed_attempts,
    question,
    refusals,
    refuse,
    score_accepted,
    spoken,
)
from dereason.supervision.desk import Desk
from dereason.supervision.reference import NOTE_ANSWER, reference_candidates
from dereason.supervision.settings import BridgeTargets
from dereason.supervision.wording import fill

NO_ATTEMPT = "(the student gave no answer)"
MAX_ATTEMPT = 2000
"""Characters of a failed attempt that the teacher sees: a long one would push the trace out of its mind."""

NO_TRACE = "no raw trace"
NOT_CORRECT = "the raw trace is not correct"
FALLBACK = "raw trace, no rewrite accepted"

LEVEL = 0.95
RESAMPLES = 10_000


def bridge_candidates(
    desk: Desk, problems: pl.DataFrame, entry: BridgeTargets, profile_samples: pl.DataFrame | None
) -> pl.DataFrame:
    """Rewrite a trace of every problem and choose what the student finds likeliest.

    Args:
        desk: where the teacher is asked and the student scores.
        problems: PROBLEM table of those to cover.
        entry: whom, what, how often, and what is accepted.
        profile_samples: SAMPLE table of the student's responses, of any problems, for failed attempts; None where
            there is none.

    Returns:
        CANDIDATE table: the raw traces (``raw``), then ``n`` rewrites of every problem whose raw trace is correct, then
        the raw traces that ``fallback`` takes. ``tokens`` of what was scored are the student's, so that lengths
        before and after compare.

    Raises:
        DereasonError: what asking or scoring raises.
    """
    raw = _raw_traces(desk, problems, entry)
    traces = dict(raw.filter("accepted").select("problem_id", "response").iter_rows())
    hard = problems.filter(pl.col("id").is_in(list(traces)))
    rewrites = frame("candidate", [])
    if not hard.is_empty():
        rewrites = _rewrites(desk, hard, traces, entry, profile_samples)
    scored = score_accepted(desk, pl.concat([raw, rewrites]), problems, "likelihood")
    raw, rewrites = scored.filter("raw"), scored.filter(~pl.col("raw"))
    rewrites = choose(rewrites, "likelihood", 1)
    parts = [raw, rewrites]
    if entry.fallback == "raw":
        covered = rewrites.filter("chosen")["problem_id"].implode()
        parts.append(
            raw.filter("accepted")
            .filter(~pl.col("problem_id").is_in(covered))
            .with_columns(raw=pl.lit(False), chosen=pl.lit(True), reason=pl.lit(f"{FALLBACK}: ") + pl.col("reason"))
        )
    return pl.concat(parts)


def _raw_traces(desk: Desk, problems: pl.DataFrame, entry: BridgeTargets) -> pl.DataFrame:
    """The raw traces as CANDIDATE table, of each problem only the one accepted that is rewritten.

    A bare answer is no trace, and stands there, not judged, to say so.
    """
    if entry.traces == "teacher":
        samples = desk.ask(
            entry.teacher,
            problems,
            name="bridge-raw",
            n=entry.trace_n,
            sampling=entry.sampling,
            seed=entry.seed,
            purpose="teacher",
        )
        table = candidates(spoken(samples), Origin.TEACHER)
        whole = pl.Series(~samples["hit_limit"]) & (table["response"] != "")
        table = table.with_columns(accepted=pl.col("accepted") & whole)
        bare = pl.lit(False)
    else:
        table = reference_candidates(problems, entry.traces, desk.verifier)
        bare = pl.col("reason").str.starts_with(NOTE_ANSWER)
    table = table.with_columns(
        raw=pl.lit(True),
        verdict=pl.when(~bare).then(pl.col("verdict")),
        accepted=pl.col("accepted") & ~bare,
        reason=pl.when(bare).then(pl.lit(f"{NO_TRACE}: ")).otherwise(pl.lit("")) + pl.col("reason"),
    )
    correct = pl.col("accepted")
    lacking = pl.col("verdict").is_not_null() & ~correct.any().over("problem_id")
    best = correct & (pl.struct("tokens", "index").rank("ordinal").over("problem_id", "accepted") == 1)
    return table.with_columns(
        accepted=best,
        reason=pl.when(lacking).then(pl.lit(f"{NOT_CORRECT}: ")).otherwise(pl.lit(""))
        + pl.col("reason")
        + pl.when(correct & ~best).then(pl.lit("; not rewritten: a shorter one was")).otherwise(pl.lit("")),
    )


def _rewrites(
    desk: Desk,
    problems: pl.DataFrame,
    traces: dict[str, str],
    entry: BridgeTargets,
    profile_samples: pl.DataFrame | None,
) -> pl.DataFrame:
    attempts = {} if profile_samples is None else failed_attempts(profile_samples)
    rows = list(problems.iter_rows(named=True))
    samples = desk.ask(
        entry.teacher,
        problems,
        name="bridge",
        n=entry.n,
        sampling=entry.sampling,
        seed=entry.seed,
        purpose="bridge",
        chats=[
            chat(
                fill(
                    entry.instructions,
                    problem=question(row),
                    trace=traces[row["id"]],
                    attempt=_shortened(attempts.get(row["id"], NO_ATTEMPT)),
                )
            )
            for row in rows
        ],
    )
    samples = spoken(samples)
    why = refusals(samples, problems, entry.min_words, entry.stray)
    return refuse(candidates(samples, Origin.BRIDGE), why, "rewrite by")


def _shortened(attempt: str) -> str:
    return attempt if len(attempt) <= MAX_ATTEMPT else f"{attempt[:MAX_ATTEMPT].rstrip()} [...]"


def bridge_facts(candidates: pl.DataFrame, level: float = LEVEL, seed: int = 0) -> dict[str, Any] | None:
    """Before and after: how the chosen rewrites compare with the raw traces of the same problems.

    Args:
        candidates: CANDIDATE table of :func:`bridge_candidates`.
        level: nominal coverage of the interval.
        seed: of the bootstrap.

    Returns:
        ``n``: problems with a raw trace and a chosen rewrite, both measured. ``raw`` and ``rewrite``: ``verified`` of
        how many (``of``: texts), and over the n problems the mean of ``tokens`` (the student's), the mean of ``nll``
        (nats per token; a mean over problems of means over tokens) and its exponential ``perplexity``.
        ``difference``: the mean over problems of nll after less nll before, with a percentile bootstrap over
        problems (no interval for fewer than two). ``rewrite.nll_accepted`` is the mean over the same problems of the
        mean over *all* accepted rewrites: the chosen one is the least of several, and would look better than the
        trace by chance alone. None where there is neither a raw trace nor a rewrite.
    """
    raw = candidates.filter(pl.col("raw") & pl.col("verdict").is_not_null())
    rewrites = candidates.filter(~pl.col("raw") & (pl.col("origin") == str(Origin.BRIDGE)))
    if raw.is_empty() and rewrites.is_empty():
        return None
    accepted = rewrites.filter("accepted").group_by("problem_id").agg(_accepted=pl.col("nll").mean())
    pairs = (
        raw.filter("accepted")
        .join(rewrites.filter("chosen"), on="problem_id", suffix="_after", maintain_order="left")
        .join(accepted, on="problem_id", maintain_order="left")
        .drop_nulls(["nll", "nll_after"])
        .sort("problem_id")  # the bootstrap depends on the order
    )
    before, after = pairs["nll"].to_numpy(), pairs["nll_after"].to_numpy()
    difference = after - before
    low, high = _interval(difference, level, seed)
    return {
        "n": pairs.height,
        "raw": _side(raw, pairs["tokens"], before),
        "rewrite": {
            **_side(rewrites, pairs["tokens_after"], after),
            "nll_accepted": pairs["_accepted"].mean(),
        },
        "difference": {
            "nll": float(difference.mean()) if difference.size else None,
            "low": low,
            "high": high,
            "level": level,
        },
    }


def _side(texts: pl.DataFrame, tokens: pl.Series, nll: np.ndarray) -> dict[str, Any]:
    mean = float(nll.mean()) if nll.size else None
    return {
        "verified": int((texts["verdict"] == "correct").sum()),
        "of": texts.height,
        "tokens": tokens.mean(),
        "nll": mean,
        "perplexity": None if mean is None else float(np.exp(mean)),
    }


def _interval(values: np.ndarray, level: float, seed: int) -> tuple[float | None, float | None]:
    """Percentile bootstrap of the mean of values of shape (problems,)."""
    if values.size < 2:
        return None, None
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(values.size, size=values.size)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
