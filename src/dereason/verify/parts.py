"""The parts of an answer as they are compared: sets without repetitions, unions, directed relations."""

from __future__ import annotations

from collections.abc import Iterable

from dereason.verify.kinds import Answer, Kind
from dereason.verify.reading import by_letter
from dereason.verify.text import normalise


def all_of(results: Iterable[bool | None]) -> bool | None:
    """Three-valued and: False as soon as one is; None where one is undecided and none False."""
    undecided = False
    for result in results:
        if result is False:
            return False
        undecided = undecided or result is None
    return None if undecided else True


def distinct(answer: Answer, braces: bool) -> list[Answer]:
    """The values of a set in braces, each once; those of a list as they are."""
    if not braces:
        return list(answer.parts)
    return list({normalise(part.text): part for part in answer.parts}.values())


def in_values(answer: Answer) -> tuple[Answer, ...]:
    """The parts of a tuple or list; those of ``y = 1, x = 2`` in the order of their letters."""
    equations = [part for part in answer.parts if part.kind is Kind.EQUATION and part.marks == ("=",)]
    return by_letter([part.parts[0].text for part in equations], answer.parts)


def as_intervals(answer: Answer) -> list[Answer] | None:
    """The intervals of a union; an ordered pair in parentheses may be an open one."""
    if answer.kind is Kind.INTERVAL:
        return list(answer.parts) or None
    if answer.kind is Kind.TUPLE and answer.marks == ("(", ")") and len(answer.parts) == 2:
        return [Answer(Kind.INTERVAL, answer.text, answer.parts, answer.marks)]
    return [answer] if answer.kind is Kind.SET and answer.marks[:1] == ("\\{",) else None


def directed(answer: Answer) -> tuple[tuple[Answer, ...], tuple[str, ...]]:
    """The sides of a relation with its signs, read from small to large."""
    if answer.marks[0][0] != ">":
        return answer.parts, answer.marks
    return answer.parts[::-1], tuple(sign.replace(">", "<") for sign in answer.marks[::-1])
