"""Drawing responses and judging them: the one way from (problems, model) to a sample table.

Profiling, teachers and evaluation all come here, so that a response is worded, cut and judged alike everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dereason.lm.base import Completion, LanguageModel, Message, Progress, Sampling
from dereason.lm.cost import usage
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame, validate, write_table
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

    Every finished batch is written to ``store`` at once; a second call with the same arguments and the same
    ``store`` draws only what is missing and returns the same table as an uninterrupted call. A call that asks
    something else begins anew: batches are known by number, and would be taken for other problems' responses.

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
    """
    verifier = verifier or default_verifier()
    store.mkdir(parents=True, exist_ok=True)
    rows = list(problems.select("id", "question", "answer", "options", "source", "metadata").iter_rows(named=True))
    chats = chats or [prompt.messages(r["question"], r["options"]) for r in rows]
    judge = judge or verifier.judge_many
    _same_question(store, [r["id"] for r in rows], chats, prefixes, n, sampling, seed)
    total = lm.batches(chats, n, sampling)
    done = {int(p.stem.split("-")[1]) for p in store.glob("batch-*.parquet")}
    progress(len(done), total, "")

    def item(c: Completion) -> Item:
        problem = rows[c.request]
        given = prefixes[c.request] if prefixes else ""
        return item_of(given + c.text, c.hit_limit, problem)

    def row(c: Completion, judged: Judgement) -> dict[str, object]:
        problem = rows[c.request]
        return {
            "problem_id": problem["id"],
            "model": lm.identity,
            "purpose": purpose,
            "index": c.index,
            "response": c.text,
            "prompt_tokens": c.prompt_tokens,
            "tokens": c.tokens,
            "hit_limit": c.hit_limit,
            **judged.columns(),
            **({"reason": f"the model refused: {c.refusal}"} if c.refusal else {}),
        }

    correct = seen = 0
    for number, completions in lm.generate(chats, n, sampling, seed, frozenset(done)):
        drawn = list(completions)
        judged = judge([item(c) for c in drawn])
        batch = frame("sample", [row(c, j) for c, j in zip(drawn, judged, strict=True)])
        write_table(batch, store / f"batch-{number:06d}.parquet")
        done.add(number)
        correct += int((batch["verdict"] == "correct").sum())
        seen += batch.height
        spent = usage(lm).words()
        progress(len(done), total, f"{correct}/{seen} correct" + (f"; {spent}" if spent else ""))
    table = pl.concat([pl.read_parquet(store / f"batch-{i:06d}.parquet") for i in sorted(done)])
    order = pl.DataFrame({"problem_id": problems["id"], "_at": range(problems.height)})
    table = table.join(order, on="problem_id", how="left").sort("_at", "index").drop("_at")
    return validate("sample", table, "samples")


def _same_question(store: Path, *asked: Any) -> None:
    """Empty the store if what stands in it was drawn for another question."""
    content = json.dumps(asked, default=lambda value: value.model_dump(mode="json"))
    mark, digest = store / "asked", hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    if mark.is_file() and mark.read_text() == digest:
        return
    for batch in store.glob("batch-*.parquet"):
        batch.unlink()
    mark.write_text(digest)
