"""The tables that rooms exchange, and the words for them.

problem   a question with a reference answer (and maybe options, a worked solution, a domain)
sample    one generated response to a problem by one model, with its verdict: ONE schema for every response
          anywhere (profiling, rollouts, evaluation)
verdict   see :class:`Verdict`
profile   what is known of one problem's difficulty for one model: counts behind a pass rate, the judge's
          score distribution, and provenance. A bare float is not a profile: 0/8 and 0/64 differ
route     the assignment of a problem to a named set (``sft``, ``rl``, ``drop``, ...), with the reason
target    a worked response to imitate, with its origin and whether the verifier accepted it
candidate a response that could have become a target: accepted or not, chosen or not, and why
coverage  how many targets each problem of a set got, and where it got none, why

Every table is a polars DataFrame in memory and a Parquet file on disk. :func:`validate` checks one against
its schema and names the row that is wrong.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

import polars as pl

from dereason.errors import DereasonError
from dereason.problems.files import read_parquet


class Verdict(StrEnum):
    """What the verifier says of one response."""

    CORRECT = "correct"
    """An answer was found and it equals the reference."""
    WRONG = "wrong"
    """An answer was found and it does not equal the reference."""
    UNPARSABLE = "unparsable"
    """The response ended by itself and no answer was found in it."""
    TRUNCATED = "truncated"
    """The response hit the length limit before any answer."""
    ERROR = "error"
    """The verifier failed. Never counted as wrong, and never in n."""


class Origin(StrEnum):
    """Where a target came from."""

    HUMAN = "human"
    """A worked solution written by people, carried by the data."""
    REFERENCE = "reference"
    """The source's own or generated solution, or the bare reference answer."""
    TEACHER = "teacher"
    """A response by a stronger model."""
    SELF = "self"
    """A response by the student itself."""
    BRIDGE = "bridge"
    """A teacher trace rewritten so that the student can learn it."""
    DIAGNOSIS = "diagnosis"
    """Where and why a failed attempt fails."""
    REPAIR = "repair"
    """A correct continuation of a failed attempt."""
    NEW_TRACE = "new_trace"
    """A fresh correct solution to a problem that the student fails."""


Schema = dict[str, pl.DataType | type[pl.DataType]]

PROBLEM: Schema = {
    "id": pl.String,  # unique in its table
    "question": pl.String,
    "answer": pl.String,  # the reference; never empty after loading
    "domain": pl.String,
    "source": pl.String,
    "options": pl.List(pl.String),  # null where the question is free-form
    "solution": pl.String,  # a worked solution, null where there is none
    "solution_origin": pl.String,  # Origin.HUMAN or Origin.REFERENCE, null where there is no solution
    "metadata": pl.String,  # JSON: whatever else the source said
}

SAMPLE: Schema = {
    "problem_id": pl.String,
    "model": pl.String,  # identity of the model that answered
    # "profile", "rollout", "guided" (a rollout behind a prefix), "early_warning", "start", "eval", "probe" (for the
    # analysis), "given" (it came from elsewhere); for targets "teacher", "self" or the origin's name
    "purpose": pl.String,
    "index": pl.Int32,  # 0..n-1 within its problem
    "step": pl.Int32,  # optimiser step for rollouts, null elsewhere
    "response": pl.String,
    "prompt_tokens": pl.Int32,
    "tokens": pl.Int32,  # generated, the end token included; of a guided rollout, the prefix counts as prompt
    "hit_limit": pl.Boolean,
    "verdict": pl.String,  # lenient: of an answer found by any rule
    "strict": pl.Boolean,  # correct, and the answer is marked as one; null where the verdict came from elsewhere
    "extracted": pl.String,  # null where no answer was found
    "reason": pl.String,  # why this verdict, in words; for an error its cause
    "kind": pl.String,  # the reference's answer kind, which decides how answers are compared
    "how": pl.String,  # the rule that found the answer, null where none was found
}

PROFILE: Schema = {
    "problem_id": pl.String,
    "model": pl.String,  # whose difficulty this is
    "n": pl.Int32,  # samples judged by the verifier, errors left out; 0 where only the judge ran
    "correct": pl.Int32,
    "wrong": pl.Int32,
    "unparsable": pl.Int32,
    "truncated": pl.Int32,
    "error": pl.Int32,
    "pass_rate": pl.Float64,  # correct / n, null at n = 0
    "pass_low": pl.Float64,  # Beta(1/2 + c, 1/2 + n - c), 95 %
    "pass_high": pl.Float64,
    "judge_probs": pl.List(pl.Float64),  # P(score = 1..5), sums to 1; null where no judge ran
    "judge_expectation": pl.Float64,
    "judge_mode": pl.Int32,  # the most probable integer
    "judge_model": pl.String,
    "provenance": pl.String,  # JSON: model revision, template hash, sampling settings, verifier version
}

ROUTE: Schema = {
    "problem_id": pl.String,
    "set": pl.String,
    "policy": pl.String,
    "reason": pl.String,
}

TARGET: Schema = {
    "problem_id": pl.String,
    "response": pl.String,
    "origin": pl.String,
    "accepted": pl.Boolean,  # did the verifier (of a diagnosis: its own check) accept it?
    "note": pl.String,  # what it is, in words: "bare answer", "steps derived from the expression", ...
    "prompt": pl.String,  # the user's message that it replies to; null: the problem as every phase asks it
    "prefix": pl.String,  # how the reply begins: given, not imitated; null: nothing
    "model": pl.String,  # identity of the model that wrote it; null where the data carries it
    "nll": pl.Float64,  # the student's negative log-likelihood in nats per token; null where not measured
}

CANDIDATE: Schema = {
    "problem_id": pl.String,
    "origin": pl.String,  # of the target that it could become; of a raw trace: where the trace is from
    "index": pl.Int32,  # 0, 1, ... within problem and origin
    "raw": pl.Boolean,  # a trace that others were rewritten from
    "model": pl.String,  # as in a target
    "prompt": pl.String,  # as in a target
    "prefix": pl.String,  # as in a target
    "response": pl.String,
    "tokens": pl.Int32,  # generated; of what the data carries: counted by the student's tokenizer where it was scored
    "verdict": pl.String,  # of prefix + response; of a diagnosis: "correct" where it says what the verifier said
    "accepted": pl.Boolean,  # may it be chosen? of a raw trace: is it the one that is rewritten?
    "chosen": pl.Boolean,  # did it become a target?
    "nll": pl.Float64,  # as in a target
    "reason": pl.String,  # why it was accepted or not, chosen or not, in words
}

COVERAGE: Schema = {
    "problem_id": pl.String,
    "style": pl.String,  # the entry of `targets` that was to cover it
    "candidates": pl.Int32,  # raw traces left out
    "accepted": pl.Int32,
    "targets": pl.Int32,
    "reason": pl.String,  # why it got no target; null where it got one
}

_REQUIRED: dict[str, tuple[str, ...]] = {
    "problem": ("id", "question", "answer", "domain", "source"),
    "sample": ("problem_id", "model", "purpose", "index", "response", "tokens", "hit_limit", "verdict"),
    "profile": ("problem_id", "model", "n"),
    "route": ("problem_id", "set", "policy", "reason"),
    "target": ("problem_id", "response", "origin", "accepted"),
    "candidate": ("problem_id", "origin", "index", "raw", "response", "accepted", "chosen"),
    "coverage": ("problem_id", "style", "candidates", "accepted", "targets"),
}
SCHEMAS: dict[str, Schema] = {
    "problem": PROBLEM,
    "sample": SAMPLE,
    "profile": PROFILE,
    "route": ROUTE,
    "target": TARGET,
    "candidate": CANDIDATE,
    "coverage": COVERAGE,
}


def frame(kind: str, rows: list[dict[str, object]]) -> pl.DataFrame:
    """Rows as a table of the named kind; columns that rows leave out become null."""
    schema = SCHEMAS[kind]
    return pl.DataFrame({name: [row.get(name) for row in rows] for name in schema}, schema=schema, strict=True)


def validate(kind: str, table: pl.DataFrame, where: str) -> pl.DataFrame:
    """Check a table against its schema and return it with the schema's columns in the schema's order.

    Args:
        kind: a key of :data:`SCHEMAS`.
        table: any frame; optional columns may be missing (they become null), others are dropped.
        where: the file or step that the table came from, for the error message.

    Raises:
        DereasonError: a column is missing, has another type, or a required value is null (row named).
    """
    schema = SCHEMAS[kind]
    missing = [c for c in _REQUIRED[kind] if c not in table.columns]
    if missing:
        raise DereasonError(
            f"{where}: a {kind} table needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}",
            f"it has {', '.join(table.columns) or 'no columns'}",
        )
    columns: list[pl.Series | pl.Expr] = []
    for name, dtype in schema.items():
        if name not in table.columns:
            columns.append(pl.lit(None, dtype=dtype).alias(name))
            continue
        try:
            columns.append(table[name].cast(dtype, strict=True))
        except pl.exceptions.PolarsError as exc:
            raise DereasonError(
                f"{where}: column {name} of the {kind} table is {table[name].dtype}, not {dtype}",
                "write it with the documented type",
            ) from exc
    out = table.select() if table.width == 0 else table.select(columns)
    for name in _REQUIRED[kind]:
        nulls = out[name].is_null()
        if nulls.any():
            raise DereasonError(f"{where}: row {int(nulls.arg_true()[0]) + 1} has no {name}", "fill it or drop the row")
    return out


def read_table(kind: str, path: str | Path) -> pl.DataFrame:
    """Read a Parquet table of the named kind, checked by :func:`validate`.

    Raises:
        DereasonError: the file is missing, is no Parquet file, or does not fit the schema.
    """
    path = Path(path)
    if not path.is_file():
        raise DereasonError(f"{path}: no such {kind} table", "check the path")
    return validate(kind, read_parquet(path), str(path))


def write_table(table: pl.DataFrame, path: str | Path) -> None:
    """Write a Parquet file by atomic rename: a reader sees the old file or the whole new one."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as handle:
        table.write_parquet(handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
