r"""The kinds of answers. The reference's kind decides how answers are compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dereason.verify.units import Quantity

# Longer answers are compared as text.
MAX_LENGTH = 4000
MAX_LEVEL = 3


class Kind(StrEnum):
    """The kinds of answers."""

    NUMBER = "number"
    """One number, written out."""
    QUANTITY = "quantity"
    """A number or expression with a unit."""
    CHOICE = "choice"
    """One of the options of a multiple-choice problem."""
    BOOLEAN = "boolean"
    """True or false, yes or no."""
    SET = "set"
    """Values without order: a set, or a list without brackets."""
    INTERVAL = "interval"
    """An interval, a union of them, or an inequality that says the same."""
    TUPLE = "tuple"
    """Values in order; ``(2,4)`` too, which may be an open interval."""
    MATRIX = "matrix"
    """Rows of entries."""
    EQUATION = "equation"
    """A relation between two or more sides."""
    EXPRESSION = "expression"
    """A value to be computed, a formula, or a number in another base."""
    LITERAL = "literal"
    """Signs, a board, or several lines: compared sign by sign."""
    TEXT = "text"
    """Anything in words."""


MATHEMATICS = frozenset({Kind.SET, Kind.INTERVAL, Kind.TUPLE, Kind.MATRIX, Kind.EQUATION, Kind.EXPRESSION})
"""Kinds whose answers are no prose."""


@dataclass(frozen=True)
class Answer:
    """An answer, taken apart as far as its kind says."""

    kind: Kind
    text: str
    """As :func:`dereason.verify.text.as_latex` gives it."""
    parts: tuple[Answer, ...] = ()
    """The elements of a set or tuple, the ends of an interval, the intervals of a union, the rows of a matrix,
    the sides of a relation."""
    marks: tuple[str, ...] = ()
    """The brackets, or the signs of a relation; of an interval given by an inequality the variable. Empty for a list
    without brackets and for a union."""
    quantity: Quantity | None = None
    """The magnitude and the unit of a quantity."""


MAX_SIZE, MAX_RATIO = 1000, 10
"""An answer of more characters, and so many times as long as its reference, is wrong."""
MAX_NESTED = 40
"""An answer whose brackets are nested deeper than this, and than those of its reference, is wrong."""


def too_large(answer: str, reference: str) -> bool:
    """Whether an answer is far beyond what the reference needs.

    It is wrong then, not an error: an error counts for nothing, so a model would be spared by writing without end.
    """
    size = len(reference)
    if len(answer) > min(max(MAX_SIZE, MAX_RATIO * size), max(MAX_LENGTH, 2 * size)):
        return True
    return sum(map(answer.count, "([{")) > MAX_NESTED and _nested(answer) > max(MAX_NESTED, _nested(reference))


def _nested(text: str) -> int:
    """How deep the brackets of a text are nested."""
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return deepest
