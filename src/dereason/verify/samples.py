"""Drawing responses and judging them: the one way from (problems, model) to a sample table.

Profiling, teachers and evaluation all come here, so that a response is worded, cut and judged alike everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dereason.characters import REPLACEMENT
from dereason.errors import DereasonError
from dereason.lm.base import LanguageModel, Message, Progress, Sampling, check_draws
from dereason.lm.draw import Drawn, draw
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame, validate
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, Verifier, default_verifier, item_of


def draw_samples(
    lm: LanguageModel,
    problems: pl.DataFrame,
    prompt: Prompt,
    *,
    n: int,
    sampling: Sampling,
    seed: int,
    purpose: str,
    store: Path,
    verifier: Verifier | None = None,
    progress: Progress = lambda done, total, words: None,
    chats: Sequence[Sequence[Message]] | None = None,
    prefixes: Sequence[str] | None = None,
    judge: Callable[[Sequence[Item]], list[Judgement]] | None = None,
) -> pl.DataFrame:
    """Draw n responses to every problem and judge each.

    What is finished is kept: see :func:`dereason.lm.draw.draw`.

    Args:
        lm: the model that answers.
        problems: PROBLEM table.
        prompt: how the question is put.
        n: responses per problem.
        sampling: temperature, length limit, batch size.
        seed: of the sampling streams.
        purpose: written into the table; see the schema.
        store: folder for finished batches; belongs to this one call.
        verifier: judges the responses; the process-wide one where none is given.
        progress: told of each finished batch.
        chats: what is asked of each problem in place of the prompt's own chat.
        prefixes: text of each problem that is judged in front of the response; it stands in no response.
        judge: judges in place of the verifier.

    Returns:
        SAMPLE table, n rows a problem, in the problems' order.

    Raises:
        DereasonError: several greedy responses to a problem are asked for, which would all be the same.
    """
    verifier = verifier or default_verifier()
    try:
        check_draws(sampling, n, "n")
    except ValueError as error:
        raise DereasonError(str(error)) from error
    judge = judge or verifier.judge_many
    rows = list(problems.select("id", "question", "answer", "options", "source", "metadata").iter_rows(named=True))
    chats = chats or [prompt.messages(r["question"], r["options"]) for r in rows]
    correct = seen = 0

    def tabulate(batch: list[Drawn]) -> pl.DataFrame:
        given = [prefixes[d.row] if prefixes else "" for d in batch]
        items = [
            item_of(before + d.completion.text, d.completion.hit_limit, rows[d.row])
            for before, d in zip(given, batch, strict=True)
        ]
        judged = judge(items)
        return frame("sample", [_row(d, j, lm.identity, purpose) for d, j in zip(batch, judged, strict=True)])

    def words(batch: pl.DataFrame) -> str:
        nonlocal correct, seen
        correct += int((batch["verdict"] == "correct").sum())
        seen += batch.height
        return f"{correct}/{seen} correct"

    table = draw(
        lm,
        [(row["id"], chat) for row, chat in zip(rows, chats, strict=True)],
        n=n,
        sampling=sampling,
        seed=seed,
        store=store,
        tabulate=tabulate,
        asked=[purpose, verifier.settings.key(), rows, list(prefixes or ())],
        progress=progress,
        words=words,
    )
    order = pl.DataFrame({"problem_id": problems["id"], "_at": range(problems.height)})
    table = table.join(order, on="problem_id", how="left").sort("_at", "index").drop("_at")
    return validate("sample", table, "samples")


def replaced_characters(samples: pl.DataFrame, who: str) -> dict[str, Any]:
    """What a step says of an endpoint's characters that were no Unicode; nothing where there were none.

    Args:
        samples: SAMPLE table of an endpoint's responses.
        who: named in the warning.
    """
    count = int(samples["response"].str.count_matches(REPLACEMENT, literal=True).sum() or 0)
    if not count:
        return {}
    warning = f"{who}: {count:,} characters of the responses are U+FFFD, in place of ones that are no Unicode"
    return {"replaced_characters": count, "warnings": [warning]}


def _row(drawn: Drawn, judged: Judgement, model: str, purpose: str) -> dict[str, object]:
    c = drawn.completion
    return {
        "problem_id": drawn.id,
        "model": model,
        "purpose": purpose,
        "index": c.index,
        "response": c.text,
        "prompt_tokens": c.prompt_tokens,
        "tokens": c.tokens,
        "hit_limit": c.hit_limit,
        **judged.columns(),
        **({"reason": f"the model refused: {c.refusal}"} if c.refusal else {}),
    }
