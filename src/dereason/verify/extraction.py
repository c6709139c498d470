"""What extraction gives back, and the little that all its rules share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dereason.verify.text import strip_markup

How = Literal["tag", "boxed", "final_answer", "hash", "number", "letter", "alone"]

MAX_TAIL = 500
"""A conclusion is short. Longer tails and lines are prose."""
MAX_TRIES = 200
"""So many places of one rule are looked at, from the last one backwards: a text that announces its answer more often
without giving one gives none."""


@dataclass(frozen=True)
class Extraction:
    """An answer and its place in the response."""

    text: str
    """The answer, without LaTeX and Markdown dress."""
    start: int
    """Where the answer, as it was written, begins in the response (character offset)."""
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
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def as_written(text: str, start: int, end: int, how: How) -> Extraction | None:
    """The span as an answer, None where nothing is left of it without its dress."""
    start, end = trim(text, start, end)
    bare = strip_markup(text[start:end])
    return Extraction(bare, start, end, how) if bare else None
