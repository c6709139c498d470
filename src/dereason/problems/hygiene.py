"""Clean problem tables: unique ids, answers present, no duplicates, no test question in training.

Duplicates are found by equality of the normalised question. Near-duplicates (a reworded question, found by
MinHash or the like) are not handled here yet.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from dereason.errors import DereasonError
from dereason.problems.files import Place, listed

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
_CLOSING = re.compile(r"(?:(?<=[^\W\d_]{2})|(?<=[\d$]))\s?[.?]$")


def normalise_question(text: str) -> str:
    """The question as it is compared.

    One form of accented letters, quotes and minus, single spaces; the small first letter of a sentence's first word,
    no full stop or question mark behind a word or number. Everything else may be what is asked: ``5!`` is not ``5.``,
    ``CO`` not ``Co``, ``a.`` as a pattern not ``a``.
    """
    plain = " ".join(unicodedata.normalize("NFC", text).translate(_FORMS).split())
    first, space, rest = plain.partition(" ")
    if space and first.isalpha() and len(first) > 2 and first[1:].islower():
        plain = first.lower() + space + rest
    return _CLOSING.sub("", plain)


@dataclass(frozen=True)
class Repeated:
    """Problems of one table that ask the same.

    Attributes:
        kept: id of the first.
        others: ids of those behind it.
        answers: their different answers, in order; one where they agree.
    """

    kept: str
    others: tuple[str, ...]
    answers: tuple[str, ...]


def repeated(table: pl.DataFrame) -> list[Repeated]:
    """The problems with the same normalised question and the same options, in the order of the first of each."""
    groups: dict[tuple[str, tuple[str, ...] | None], list[tuple[str, str | None]]] = {}
    for id, question, answer, options in table.select("id", "question", "answer", "options").iter_rows():
        choices = None if options is None else tuple(" ".join(option.split()) for option in options)
        groups.setdefault((normalise_question(question), choices), []).append((id, answer))
    return [
        Repeated(
            kept=rows[0][0],
            others=tuple(id for id, _ in rows[1:]),
            answers=tuple(dict.fromkeys(" ".join(answer.split()) for _, answer in rows if answer is not None)),
        )
        for rows in groups.values()
        if len(rows) > 1
    ]


def deduplicate(table: pl.DataFrame) -> tuple[pl.DataFrame, list[Repeated]]:
    """Keep the first of the problems with the same normalised question and options.

    Returns:
        The table without the others, in its order, and what was repeated.
    """
    found = repeated(table)
    return table.filter(~pl.col("id").is_in([id for group in found for id in group.others])), found


def disagreeing(found: Sequence[Repeated], limit: int = 5) -> str | None:
    """The repeated problems whose answers differ, as written, in words; None where there are none."""
    odd = [group for group in found if len(group.answers) > 1]
    if not odd:
        return None
    named = "; ".join(
        f"{', '.join((group.kept, *group.others))} ({' against '.join(map(repr, group.answers))})"
        for group in odd[:limit]
    )
    more = f"; and {len(odd) - limit:,} more" if len(odd) > limit else ""
    what = "repeated question has" if len(odd) == 1 else "repeated questions have"
    return f"{len(odd):,} {what} different answers: {named}{more}"


def remove_overlap(train: pl.DataFrame, test: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Drop the training problems whose normalised question stands in the test set, whatever their options.

    Returns:
        The training table without them, in its order, and how many were dropped.
    """
    held_out = {normalise_question(question) for question in test["question"].to_list()}
    keep = [normalise_question(question) not in held_out for question in train["question"].to_list()]
    return train.filter(pl.Series(keep, dtype=pl.Boolean)), len(keep) - sum(keep)


def check_unique_ids(table: pl.DataFrame, where: str, places: Sequence[Place] | None = None) -> None:
    """Refuse a table in which two problems have the same id.

    Args:
        table: a problem table.
        where: the file or step that it came from, for the message.
        places: of its rows; None counts them from 1.

    Raises:
        DereasonError: naming the first duplicated ids with their places.
    """
    rows: dict[str, list[Place]] = {}
    for place, id in zip(places or _counted(table), table["id"].to_list(), strict=True):
        rows.setdefault(id, []).append(place)
    twice = [(id, found) for id, found in rows.items() if len(found) > 1]
    if twice:
        named = "; ".join(f"{id!r} in {listed(found)}" for id, found in twice[:3])
        more = f"; and {len(twice) - 3} more ids" if len(twice) > 3 else ""
        raise DereasonError(f"{where}: duplicated ids: {named}{more}", "give every problem an id of its own")


def drop_unanswered(
    table: pl.DataFrame, where: str, drop: bool, places: Sequence[Place] | None = None
) -> tuple[pl.DataFrame, int]:
    """Deal with rows whose answer is null or blank.

    Args:
        table: a problem table; its answers may still be null.
        where: the file or step that it came from, for the message.
        drop: drop such rows and count them, rather than refuse the table.
        places: of its rows; None counts them from 1.

    Returns:
        The rows that have an answer, in their order, and how many were dropped.

    Raises:
        DereasonError: there are such rows and ``drop`` is false; names their places.
    """
    answered = [answer is not None and bool(str(answer).strip()) for answer in table["answer"].to_list()]
    missing = [place for place, has in zip(places or _counted(table), answered, strict=True) if not has]
    if missing and not drop:
        raise DereasonError(
            f"{where}: no answer in {listed(missing)}",
            "fill them in, or set problems.drop_unanswered: true to drop and count them",
        )
    return table.filter(pl.Series(answered, dtype=pl.Boolean)), len(missing)


def _counted(table: pl.DataFrame) -> list[Place]:
    return [Place("row", number) for number in range(1, table.height + 1)]
