"""Drawing responses to (id, chat) rows, batch by batch, so that no finished model call is lost.

What becomes of a response is the caller's: a batch is handed over as it finishes, and the table that comes back is
stored under its number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dereason.lm.base import Completion, LanguageModel, Message, Progress, Sampling
from dereason.lm.cost import usage
from dereason.lm.stored import begin, whole_tables

Row = tuple[str, Sequence[Message]]
"""An id and the chat that is put to the model."""


@dataclass(frozen=True)
class Drawn:
    """One response."""

    id: str
    """Of the row that it answers."""
    row: int
    """The place of that row, from 0."""
    completion: Completion


def draw(
    lm: LanguageModel,
    rows: Sequence[Row],
    *,
    n: int,
    sampling: Sampling,
    seed: int,
    store: Path,
    tabulate: Callable[[list[Drawn]], pl.DataFrame],
    asked: Any = None,
    progress: Progress = lambda done, total, words: None,
    words: Callable[[pl.DataFrame], str] = lambda batch: "",
) -> pl.DataFrame:
    """Draw n responses to every row.

    Every finished batch is written to ``store`` at once; a second call with the same arguments and the same
    ``store`` draws only what is missing and returns the same table as an uninterrupted call. A call that asks
    something else begins anew: batches are known by number, and would be taken for other rows' responses.

    Args:
        lm: the model that answers.
        rows: what is asked.
        n: responses per row.
        sampling: temperature, length limit, batch size.
        seed: of the sampling streams.
        store: folder for finished batches; belongs to this one call.
        tabulate: makes a table of a finished batch; called once for each.
        asked: whatever else decides what ``tabulate`` makes of a batch; JSON or settings.
        progress: told of each finished batch.
        words: said with it, of the batch that was finished.

    Returns:
        The batches' tables, one under the other in the order of their numbers.
    """
    chats = [chat for _, chat in rows]
    model = [lm.identity, lm.template_hash()]
    begin(store, "batch-*.parquet", model, [id for id, _ in rows], chats, asked, n, sampling, seed)
    total = lm.batches(chats, n, sampling)
    done = {int(p.stem.split("-")[1]) for p in whole_tables(store, "batch-*.parquet")}
    progress(len(done), total, "")
    for number, completions in lm.generate(chats, n, sampling, seed, frozenset(done)):
        batch = tabulate([Drawn(rows[c.request][0], c.request, c) for c in completions])
        path = store / f"batch-{number:06d}.parquet"
        partial = path.with_name(path.name + ".part")
        with partial.open("wb") as handle:
            batch.write_parquet(handle)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
        done.add(number)
        spent = usage(lm).words()
        progress(len(done), total, "; ".join(part for part in (words(batch), spent) if part))
    return pl.concat([pl.read_parquet(store / f"batch-{i:06d}.parquet") for i in sorted(done)])
