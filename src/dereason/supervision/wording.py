"""What teachers and critics are told by default. All of it is ours: no paper that we know of prints its own."""

from __future__ import annotations

import re

BRIDGE = """Problem: {problem}

Wrong attempt: {attempt}

Right solution:
{trace}

Write the right solution anew for whoever made the wrong attempt, in the way in which the attempt is written: short \
steps, one calculation a line, plain words, nothing skipped. Lead past the point where the attempt goes wrong, and do \
not speak of it. Write the solution alone, and end with the final answer within \\boxed{}."""

DIAGNOSIS = """Problem: {problem}

Attempt, its lines numbered:
{attempt}

Check the attempt line by line. Say what its first wrong line gets wrong and what would be right. Then write two lines:
First wrong line: its number, or none
Conclusion: right, or wrong"""

REPAIR = """Problem: {problem}
{shown}
A solution begins like this, and all of it is right so far:
{prefix}

Go on from there in short steps, one calculation a line, without repeating what stands there. End with the final \
answer within \\boxed{}."""

NEW_TRACE = """Problem: {problem}
{shown}
Solve it in short steps, one calculation a line. End with the final answer within \\boxed{}."""

SHOWN_ANSWER = "The right answer is {answer}."
SHOWN_SOLUTION = """A worked solution, which must not be mentioned:
{solution}"""

STRAY = (
    "the student",
    "the attempt",
    "wrong attempt",
    "right solution",
    "worked solution",
    "reference solution",
    "original solution",
    "rewritten solution",
)


_SLOT = re.compile(r"(?<![A-Za-z])\{(\w+)\}")
"""A name in braces, unless a LaTeX command stands before it."""


def fill(text: str, **values: str) -> str:
    r"""The text with its ``{name}`` slots filled in; other braces (``\boxed{answer}``) stay as they are."""
    return _SLOT.sub(lambda m: values.get(m[1], m[0]), text)


def check_slots(text: str, needed: set[str], optional: set[str]) -> str:
    """Refuse a text that lacks a slot or names one that nothing fills.

    Raises:
        ValueError: says which.
    """
    found = set(_SLOT.findall(text))
    if missing := needed - found:
        raise ValueError(f"the text lacks {', '.join(f'{{{name}}}' for name in sorted(missing))}")
    if unknown := found - needed - optional:
        raise ValueError(
            f"nothing fills {', '.join(f'{{{name}}}' for name in sorted(unknown))} "
            f"(there are {', '.join(f'{{{name}}}' for name in sorted(needed | optional))})"
        )
    return text
