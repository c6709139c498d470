"""The place of an answer in a response, and the little that all the rules that find one share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dereason.verify.text import strip_markup

Mark = Literal["tag", "boxed", "final_answer", "hash", "letter"]
"""A rule whose answers say that they are one."""
How = Literal[Mark, "number", "alone"]
"""The rules by which answers are found; see :mod:`dereason.verify.locate`."""
MARKS: tuple[Mark, ...] = get_args(Mark)
"""All marks: what was found by another rule is a guess at what the response means to answer."""

MAX_TAIL = 500
"""A conclusion is short. Longer tails and lines are prose."""
MAX_TRIES = 200
"""So many places of one rule are looked at, from the last one backwards: a text that announces its answer more often
without giving one gives none."""


@dataclass(frozen=True)
class Span:
    """Where an answer stands in the response; nothing is taken out of it."""

    text: str
    """The answer as it was written, with its markup and whatever else stands in its place."""
    start: int
    """Where it begins in the response (character offset)."""
    end: int
    """Where it ends, exclusive."""
    how: How
    """The rule that found it."""

    def survives_cut(self, response: str) -> bool:
        """Whether the answer counts in a response that was cut off at its length limit.

        A bare last number or last line is an intermediate result there, and an answer at the very end may itself
        be cut: "The answer is 4" of 42. A letter cannot be.
        """
        if self.how in ("number", "alone"):
            return False
        return self.how == "letter" or self.end < len(response)


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace() and text[max(start, end - 2) : end] != "\\ ":
        end -= 1
    return start, end


def as_written(text: str, start: int, end: int, how: How) -> Span | None:
    """The span as an answer, None where nothing is left of it without its markup."""
    start, end = trim(text, start, end)
    raw = text[start:end]
    return (
        Span(raw, start, end, how)
        if strip_markup(raw) or (any(not c.isspace() for c in raw) and len(raw) < 4)
        else None
    )
