"""From responses to targets: what may become one, what is chosen, and which problems were left without.

A *candidate* is a response that could become a target. Its table keeps all of them, the refused ones too, each with
the reason: what a phase imitates can be traced back, and what it does not can be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import polars as pl

from dereason.errors import DereasonError
from dereason.problems.schema import CANDIDATE, COVERAGE, TARGET, Origin, Verdict, validate
from dereason.supervision.settings import Choice

Keep = Literal["accepted", "all"]

_PASSED_OVER: dict[Choice, str] = {
    "first": "an earlier one was taken",
    "shortest": "a shorter one was taken",
    "likelihood": "one that the student finds likelier was taken",
    "diverse": "one less like those taken was taken",
}

_NOTES = {
    Origin.TEACHER: "response of",
    Origin.SELF: "own response of",
    Origin.BRIDGE: "rewrite by",
    Origin.DIAGNOSIS: "diagnosis by",
    Origin.REPAIR: "repair by",
    Origin.NEW_TRACE: "new trace by",
}

_NOUNS = {"teacher": "response", "self": "response", "bridge": "rewrite", "critique": "candidate"}
"""What the candidates of a style are called; those of the data are targets as they stand."""


def candidates(samples: pl.DataFrame, origin: Origin, **columns: Any) -> pl.DataFrame:
    """Responses as candidates: accepted where the verdict is ``correct`` and they ended by themselves, none chosen yet.

    A response with a correct answer that the length limit cut later is refused: the student would learn to end there.

    Args:
        samples: SAMPLE table.
        origin: of the targets that they could become.
        columns: columns of the CANDIDATE schema that are something else than this: a scalar for all rows, one value
            a row (a sequence or a series), or an expression over ``samples``.

    Returns:
        CANDIDATE table, a row a sample, in their order. ``reason`` says what it is, by whom, and its verdict unless
        it was accepted; then, behind a colon, why.
    """
    made = {
        "origin": str(origin),
        "raw": False,
        "prompt": None,
        "prefix": None,
        "chosen": False,
        "nll": None,
        **columns,
    }
    if unknown := set(made) - set(CANDIDATE):
        raise TypeError(f"a candidate has no column {', '.join(sorted(unknown))}")
    table = samples.with_columns(**{name: _column(name, value) for name, value in made.items()})
    if "accepted" not in columns:
        table = table.with_columns(accepted=(pl.col("verdict") == Verdict.CORRECT) & ~pl.col("hit_limit"))
    if "reason" not in columns:
        cut = pl.col("hit_limit") & (pl.col("verdict") == Verdict.CORRECT)
        refused = pl.format("not verified ({})", pl.when(cut).then(pl.lit("cut")).otherwise("verdict"))
        checked = pl.when(pl.col("accepted")).then(pl.lit("verified")).otherwise(refused)
        words = pl.format("{} {}, {}", pl.lit(_NOTES.get(origin, "text by")), pl.col("model"), checked)
        why = pl.col("reason")
        table = table.with_columns(reason=pl.when(why.is_null()).then(words).otherwise(pl.format("{}: {}", words, why)))
    return validate("candidate", table, "candidates")


def _column(name: str, value: Any) -> pl.Expr | pl.Series:
    if isinstance(value, pl.Expr | pl.Series):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return pl.Series(name, value, dtype=CANDIDATE[name])
    return pl.lit(value, dtype=CANDIDATE[name])


def eligible(keep: Keep) -> pl.Expr:
    """What :func:`choose` may take: never a raw trace, and never an empty text, which teaches nothing.

    ``accepted``: only what was accepted. ``all``: whatever the verdict, except ``error``: nobody judged it.
    """
    usable = ~pl.col("raw") & (pl.col("response").str.strip_chars() != "")
    if keep == "accepted":
        return usable & pl.col("accepted")
    return usable & pl.col("verdict").ne_missing(str(Verdict.ERROR))


def choose(candidates: pl.DataFrame, rule: Choice, per_problem: int, *, keep: Keep = "accepted") -> pl.DataFrame:
    """Choose the best candidates of every problem.

    Ties go to the lower ``index``, then to the earlier row, so the same table gives the same choice. Candidates with
    the same prompt, the same prefix and, white space at the ends aside, the same response count once.

    ``first`` takes them as drawn, ``shortest`` by ``tokens``, ``likelihood`` by ``nll``. ``diverse`` is ours: it
    starts with the shortest and then takes, again and again, the candidate whose greatest similarity to those taken is
    least (ties: the shorter one). Similarity is Jaccard's (what both have, over what either has) of the sets of runs of
    three words, case aside; a text of fewer words is one run.

    Args:
        candidates: CANDIDATE table.
        rule: how the best are found.
        per_problem: most that are chosen of one problem, whatever their origins.
        keep: see :func:`eligible`.

    Returns:
        The same rows, ``chosen`` set. The ``reason`` of a row that might have been chosen, and was not, goes on with
        ``; not chosen: ...``; that of a chosen one that is not accepted with ``; chosen unverified``.

    Raises:
        DereasonError: ``likelihood``, and a candidate that might be chosen has no ``nll``.
    """
    table = candidates.with_row_index("_row").with_columns(pl.col("response").str.strip_chars().alias("_text"))
    pool = table.filter(eligible(keep))
    if rule == "likelihood" and (unmeasured := pool.filter(pl.col("nll").is_null())).height:
        raise DereasonError(
            f"{unmeasured.height} of {pool.height} candidates have no nll, the first for problem "
            f"{unmeasured['problem_id'][0]!r}: the likeliest cannot be found",
            "measure them first (dereason.supervision.likelihood.score)",
        )
    first = {"first": [], "shortest": ["tokens"], "likelihood": ["nll"], "diverse": ["tokens"]}[rule]
    ranked = (
        pool.sort(*first, "index", "_row", nulls_last=True)
        .unique(["problem_id", "prompt", "prefix", "_text"], keep="first", maintain_order=True)
        .select("_row", "problem_id", "_text", pl.int_range(pl.len()).over("problem_id").alias("_rank"))
    )
    taken = ranked.filter(pl.col("_rank") < per_problem)["_row"]
    if rule == "diverse" and per_problem > 1:
        taken = _diverse(ranked, per_problem)
    row, words = pl.col("_row"), pl.lit(_PASSED_OVER[rule])
    wanted = ~pl.col("raw") & (pl.col("accepted") if keep == "accepted" else pl.lit(True))
    out = (
        pl.when(row.is_in(taken.implode()))
        .then(pl.when(pl.col("accepted")).then(pl.lit("")).otherwise(pl.lit("; chosen unverified")))
        .when(row.is_in(ranked["_row"].implode()))
        .then(pl.lit("; not chosen: ") + words)
        .when(row.is_in(pool["_row"].implode()))
        .then(pl.lit("; not chosen: the same text as another"))
        .when(wanted & (pl.col("_text") == ""))
        .then(pl.lit("; not chosen: empty"))
        .when(wanted)
        .then(pl.lit("; not chosen: the verifier failed"))
        .otherwise(pl.lit(""))
    )
    return table.with_columns(
        row.is_in(taken.implode()).alias("chosen"), (pl.col("reason").fill_null("") + out).alias("reason")
    ).select(list(CANDIDATE))


def _diverse(ranked: pl.DataFrame, per_problem: int) -> pl.Series:
    """The ``_row`` of every candidate that the rule ``diverse`` takes; see :func:`choose`."""
    # Only where there is something to leave out does likeness decide.
    counted = ranked.with_columns(pl.len().over("problem_id").alias("_count"))
    taken: list[int] = counted.filter(pl.col("_count") <= per_problem)["_row"].to_list()
    crowded = counted.filter(pl.col("_count") > per_problem)
    for group in crowded.partition_by("problem_id", maintain_order=True):
        rows, runs = group["_row"].to_list(), [_runs(text) for text in group["_text"]]
        likeness, left, last = [0.0] * len(rows), list(range(1, len(rows))), 0
        taken.append(rows[0])
        for _ in range(per_problem - 1):
            for i in left:
                likeness[i] = max(likeness[i], len(runs[i] & runs[last]) / len(runs[i] | runs[last]))
            last = min(left, key=likeness.__getitem__)  # the first of equals, which is the shortest
            left.remove(last)
            taken.append(rows[last])
    return pl.Series("_row", taken, dtype=ranked["_row"].dtype)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def targets(candidates: pl.DataFrame) -> pl.DataFrame:
    """The chosen candidates as TARGET table, in their order; what a reason says first (:func:`says`) is the note."""
    chosen = candidates.filter(pl.col("chosen"))
    return validate("target", chosen.with_columns(note=says(pl.col("reason"))).select(list(TARGET)), "targets")


def says(reason: pl.Expr) -> pl.Expr:
    """What a candidate is: its reason up to the first ``": "`` or ``"; "``. Few different ones, to be counted."""
    return reason.str.extract(r"(?s)^(.*?)(?:[:;] |$)")


def coverage(candidates: pl.DataFrame, problems: pl.DataFrame, style: str) -> pl.DataFrame:
    """How many targets every problem got, and where it got none, why.

    Args:
        candidates: CANDIDATE table, after :func:`choose`.
        problems: PROBLEM table: those that were to be covered.
        style: the style of the entry of ``targets``.

    Returns:
        COVERAGE table, one row a problem, in the problems' order. There are few different reasons, so that they can be
        counted. A problem of which there is only a raw trace has the trace's (:func:`says`).
    """
    noun, counted = _NOUNS.get(style, "target"), ~pl.col("raw")
    verdict, empty = pl.col("verdict"), pl.col("response").str.strip_chars() == ""
    counts = candidates.group_by("problem_id").agg(
        candidates=counted.sum(),
        accepted=(counted & pl.col("accepted")).sum(),
        targets=(counted & pl.col("chosen")).sum(),
        _empty=(counted & empty).sum(),
        _error=(counted & (verdict == Verdict.ERROR)).sum(),
        _cut=(counted & (verdict == Verdict.TRUNCATED)).sum(),
        _correct=(counted & (verdict == Verdict.CORRECT)).sum(),
        _raw=says(pl.col("reason")).filter(pl.col("raw")).first(),
    )
    table = problems.select(problem_id="id").join(counts, on="problem_id", how="left", maintain_order="left")
    n = pl.col("candidates")
    why = (
        pl.when(pl.col("targets") > 0)
        .then(None)
        .when(n == 0)
        .then(pl.coalesce("_raw", pl.lit(f"there is no {noun} to choose from")))
        .when(pl.col("_empty") == n)
        .then(pl.lit(f"every {noun} is empty or was refused by the model"))
        .when(pl.col("accepted") > 0)
        .then(pl.lit(f"no accepted {noun} was chosen"))
        .when(pl.col("_correct") > 0)
        .then(pl.lit(f"no correct {noun} passed the other checks"))
        .when(pl.col("_error") == n)
        .then(pl.lit(f"the verifier failed on every {noun}"))
        .when(pl.col("_error") > 0)
        .then(pl.lit(f"no {noun} is correct, and the verifier failed on some"))
        .when(pl.col("_cut") == n)
        .then(pl.lit(f"every {noun} was cut at the length limit"))
        .otherwise(pl.lit(f"no {noun} is correct"))
    )
    filled = table.with_columns(pl.exclude("problem_id", "_raw").fill_null(0))
    return validate("coverage", filled.with_columns(style=pl.lit(style), reason=why).select(list(COVERAGE)), "coverage")
