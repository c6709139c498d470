"""Finished batches of a call, in a folder: an interrupted call goes on where it ended, and no other call takes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl


def begin(store: Path, pattern: str, *asked: Any) -> None:
    """Make the folder; empty it of batches that were made for another question.

    Batches are known by number alone: without this, another pool, model or setting would be given them as its own.

    Args:
        store: the folder.
        pattern: of the batches' files.
        asked: everything that decides what is in them; JSON values and settings.
    """
    store.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asked, default=lambda value: value.model_dump(mode="json"))
    mark, digest = store / "asked", hashlib.sha256(content.encode()).hexdigest()
    if mark.is_file() and mark.read_text() == digest:
        return
    for batch in store.glob(pattern):
        batch.unlink()
    mark.write_text(digest)


def whole_tables(store: Path, pattern: str) -> list[Path]:
    """The stored tables in the order of their names; what is no table is removed, so that it is made again."""
    found = []
    for file in sorted(store.glob(pattern)):
        try:
            pl.read_parquet_schema(file)
        except (pl.exceptions.PolarsError, OSError):
            file.unlink()
        else:
            found.append(file)
    return found
