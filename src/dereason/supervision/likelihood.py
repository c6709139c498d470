"""How likely the student finds a candidate: the negative log-likelihood per token that SFT on it would start from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import polars as pl

from dereason.errors import DereasonError
from dereason.lm.base import Message
from dereason.lm.local.model import model_identity
from dereason.lm.stored import whole_tables
from dereason.problems.schema import CANDIDATE, write_table
from dereason.supervision.desk import Desk

CHUNK = 64
"""Candidates that are scored and then stored together: what an interruption can cost."""

STORED = {"key": pl.String, "nll": pl.Float64, "tokens": pl.Int32}


def score(
    desk: Desk,
    candidates: pl.DataFrame,
    problems: pl.DataFrame,
    which: pl.Expr | pl.Series,
    name: str = "likelihood",
) -> pl.DataFrame:
    """Measure the student's negative log-likelihood of candidates.

    A candidate is put to the student exactly as SFT puts a target: behind its own ``prompt`` where it has one, else
    behind the problem as every phase asks it; a ``prefix`` is given, not scored; the end token is scored.

    Scores are kept in the desk's store: an interrupted call goes on where it ended, with the same result, and a text
    that was scored before is not scored again. The student is loaded only if there is something to score.

    Args:
        desk: gives the student, the prompt and the store.
        candidates: CANDIDATE table.
        problems: PROBLEM table with the problems of the candidates that are scored.
        which: boolean, a row each: which to score. An expression is over ``candidates``.
        name: of the folder in the store, and of the line on the screen.

    Returns:
        The same rows. ``nll`` is the mean over the reply's tokens, in nats, at temperature 1; rows that were not to be
        scored keep theirs. ``tokens`` is set where it was null.
    """
    rows = candidates.with_row_index("_row").filter(which)
    if rows.is_empty():
        return candidates
    asked = _asked(desk, rows, problems)
    folder = desk.store / name
    folder.mkdir(parents=True, exist_ok=True)
    files = whole_tables(folder, "chunk-*.parquet")
    first = int(files[-1].stem.split("-")[1]) + 1 if files else 0
    stored = [pl.DataFrame(schema=STORED), *(pl.read_parquet(file) for file in files)]
    known = {key for part in stored for key in part["key"]}
    # In order and without repeats: whoever goes on after an interruption cuts the rest into the same chunks.
    missing = {key: reply for key, reply in asked if key not in known}
    if missing:
        scorer, progress = desk.scorer(), desk.progress(name)
        left = list(missing.items())
        for number, start in enumerate(range(0, len(left), CHUNK), first):
            progress(start, len(left), "")
            part = left[start : start + CHUNK]
            logps = scorer.reply_logps(
                [r.chat for _, r in part], [r.text for _, r in part], [r.prefix for _, r in part]
            )
            measured = [(key, -float(lp.mean()), len(lp)) for (key, _), lp in zip(part, logps, strict=True)]
            chunk = pl.DataFrame(measured, schema=STORED, orient="row")
            write_table(chunk, folder / f"chunk-{number:06d}.parquet")
            stored.append(chunk)
        progress(len(left), len(left), "")
    scores = pl.DataFrame({"_row": rows["_row"], "key": [key for key, _ in asked]}).join(
        pl.concat(stored).unique("key", keep="first"), on="key", how="left"
    )
    found = scores.select("_row", _nll="nll", _tokens="tokens")
    return (
        candidates.with_row_index("_row")
        .join(found, on="_row", how="left", maintain_order="left")
        .with_columns(nll=pl.coalesce("_nll", "nll"), tokens=pl.coalesce("tokens", "_tokens"))
        .select(list(CANDIDATE))
    )


@dataclass(frozen=True)
class _Reply:
    chat: list[Message]
    text: str
    prefix: str | None


def _asked(desk: Desk, rows: pl.DataFrame, problems: pl.DataFrame) -> list[tuple[str, _Reply]]:
    """What the student is asked to score, a row each, and the key under which the score is kept."""
    questions = {id: (question, options) for id, question, options in problems[["id", "question", "options"]].rows()}
    if unknown := set(rows["problem_id"]) - set(questions):
        raise DereasonError(
            f"candidates are for problem {min(unknown)!r}, which is not among the problems",
            "score with the problems that the candidates were drawn for",
        )
    settings, identity = desk.student
    rendered = desk.prompt.model_dump(mode="json", include={"chat_template_kwargs", "date"})
    student = [settings.model_dump(mode="json"), identity or model_identity(settings), rendered]
    out = []
    for id, own, prefix, text in rows.select("problem_id", "prompt", "prefix", "response").rows():
        chat = desk.prompt.messages(*questions[id]) if own is None else desk.prompt.wrap(own)
        content = json.dumps([student, chat, prefix, text], sort_keys=True)
        out.append((hashlib.sha256(content.encode()).hexdigest()[:32], _Reply(chat, text, prefix)))
    return out
