"""Clean problem tables: unique ids, answers present, no duplicates, no test question in training.

Duplicates are found by equality of the normalised question. Near-duplicates (a reworded question, found by
MinHash or the like) are not handled here yet.
"""

from __future__ import annotations

import unicodedata

import polars as pl

from dereason.errors import DereasonError

_FORMS = str.maketrans(
    {
        "\u2212": "-",
        "\u2010": "-",
        "\u2011": "-",
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u200b": None,
        "\ufeff": None,
    }
)


def normalise_question(text: str) -> str:
    """The question as it is compared.

    One form of accented letters, quotes and minus, lower case, single spaces, no closing punctuation. Digits
    and operators stay: ``2 + 3`` and ``2 - 3`` are different questions.
    """
    plain = unicodedata.normalize("NFC", text).translate(_FORMS).casefold()
    return " ".join(plain.split()).rstrip(" .?!:;")


def deduplicate(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Keep the first of the problems with the same normalised question and options.

    Returns:
        The table without the others, in its order, and how many were dropped.
    """
    seen: set[tuple[str, tuple[str, ...]]] = set()
    keep = []
    options = table["options"].to_list() if "options" in table.columns else [None] * table.height
    for question, choices in zip(table["question"].to_list(), options, strict=True):
        key = (normalise_question(question), tuple(normalise_question(choice) for choice in choices or ()))
        keep.append(key not in seen)
        seen.add(key)
    return table.filter(pl.Series(keep, dtype=pl.Boolean)), len(keep) - sum(keep)


def remove_overlap(train: pl.DataFrame, test: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Drop the training problems whose normalised question stands in the test set, whatever their options.

    Returns:
        The training table without them, in its order, and how many were dropped.
    """
    held_out = {normalise_question(question) for question in test["question"].to_list()}
    keep = [normalise_question(question) not in held_out for question in train["question"].to_list()]
    return train.filter(pl.Series(keep, dtype=pl.Boolean)), len(keep) - sum(keep)


def check_unique_ids(table: pl.DataFrame, where: str) -> None:
    """Refuse a table in which two problems have the same id.

    Args:
        table: a problem table.
        where: the file or step that it came from, for the message.

    Raises:
        DereasonError: naming the first duplicated ids with their row numbers (counted from 1).
    """
    rows: dict[str, list[int]] = {}
    for number, id in enumerate(table["id"].to_list(), start=1):
        rows.setdefault(id, []).append(number)
    twice = [(id, numbers) for id, numbers in rows.items() if len(numbers) > 1]
    if twice:
        named = "; ".join(f"{id!r} in rows {_listed(numbers)}" for id, numbers in twice[:3])
        more = f"; and {len(twice) - 3} more ids" if len(twice) > 3 else ""
        raise DereasonError(f"{where}: duplicated ids: {named}{more}", "give every problem an id of its own")


def drop_unanswered(table: pl.DataFrame, where: str, drop: bool) -> tuple[pl.DataFrame, int]:
    """Deal with rows whose answer is null or blank.

    Args:
        table: a problem table; its answers may still be null.
        where: the file or step that it came from, for the message.
        drop: drop such rows and count them, rather than refuse the table.

    Returns:
        The rows that have an answer, in their order, and how many were dropped.

    Raises:
        DereasonError: there are such rows and ``drop`` is false; names their numbers (counted from 1).
    """
    answered = [answer is not None and bool(str(answer).strip()) for answer in table["answer"].to_list()]
    missing = [number for number, has in enumerate(answered, start=1) if not has]
    if missing and not drop:
        raise DereasonError(
            f"{where}: no answer in row{'s' * (len(missing) > 1)} {_listed(missing)}",
            "fill them in, or set problems.drop_unanswered: true to drop and count them",
        )
    return table.filter(pl.Series(answered, dtype=pl.Boolean)), len(missing)


def _listed(numbers: list[int], limit: int = 10) -> str:
    more = f" and {len(numbers) - limit} more" if len(numbers) > limit else ""
    return ", ".join(str(number) for number in numbers[:limit]) + more
