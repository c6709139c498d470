r"""Taking an answer apart: brackets, lists, intervals, matrices, relations. Text in, pieces of text out.

One scan, linear in the length, finds what stands outside all brackets; nothing here recurses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dereason.verify.text import DRESS

MAX_PARTS = 200
_EDGE = f" {DRESS}"

_SCAN = re.compile(
    r"""
    (?P<open>\\begin\{[a-zA-Z]*\*?\}(?:\{[lcr|]*\})?|\\\{|\\langle(?![a-zA-Z])|[(\[{])
    | (?P<close>\\end\{[a-zA-Z]*\*?\}|\\\}|\\rangle(?![a-zA-Z])|[)\]}])
    | (?P<relation>\\(?:leq?|geq?|leqslant|geqslant|lt|gt|neq?|in|approx|equiv)(?![a-zA-Z])|<=|>=|!=|[=<>])
    | (?P<cup>\\(?:cup|bigcup)(?![a-zA-Z])|(?<=[)\]}])\s?U(?=\s?[\[(\\]))
    | (?P<plusminus>\\(?:pm|mp)(?![a-zA-Z]))
    | (?P<row>\\\\(?:\s?\[-?[0-9.]{1,6}\s?[a-z]{2}\])?)
    | (?P<column>&)
    | (?P<comma>[,;])
    | (?P<word>(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))
    | \\[a-zA-Z]+ | \\.
    """,
    re.VERBOSE | re.DOTALL,
)
_RELATIONS = {
    "\\leq": "<=", "\\le": "<=", "\\leqslant": "<=", "\\geq": ">=", "\\ge": ">=", "\\geqslant": ">=", "\\lt": "<",
    "\\gt": ">", "\\ne": "!=", "\\neq": "!=", "\\in": "in", "\\approx": "~", "\\equiv": "=",
}  # fmt: skip
# Not vmatrix: |A| is a determinant.
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[lcr|]*\})?")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])\s?")
_THOUSANDS_LIST = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})*(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Mark:
    """A sign that stands outside all brackets."""

    kind: str
    """open, close, relation, cup, plusminus, row, column, comma or word."""
    start: int
    end: int
    text: str


def outside(text: str) -> list[Mark] | None:
    """The marks outside all brackets, with the outermost brackets themselves; None where brackets do not balance.

    Brackets need not be of one kind: ``(3,4]`` balances.
    """
    marks: list[Mark] = []
    depth = 0
    for match in _SCAN.finditer(text):
        kind = match.lastgroup
        if kind is None:
            continue
        if kind == "close":
            depth -= 1
            if depth < 0:
                return None
        if depth == 0:
            marks.append(Mark(kind, match.start(), match.end(), match.group()))
        if kind == "open":
            depth += 1
    return marks if depth == 0 else None


def cut(text: str, marks: list[Mark]) -> list[str]:
    """The text between the marks."""
    pieces, start = [], 0
    for mark in marks:
        pieces.append(text[start : mark.start].strip(_EDGE))
        start = mark.end
    pieces.append(text[start:].strip(_EDGE))
    return pieces


def list_items(text: str, marks: list[Mark]) -> list[str] | None:
    """The items of a list "a, b and c", or None where it is none: no separator, an item missing, or too many."""
    separators = [mark for mark in marks if mark.kind in ("comma", "word")]
    if not separators or len(separators) >= MAX_PARTS:
        return None
    # "1,000, 2,000": where the commas with a space after them separate whole numbers, the others do not.
    spaced = [m for m in separators if m.kind == "word" or m.text == ";" or text[m.end : m.end + 1] == " "]
    if spaced and len(spaced) < len(separators):
        items = cut(text, spaced)
        if all(_THOUSANDS_LIST.fullmatch(item) for item in items):
            return items
    items = cut(text, separators)
    # "2, 3, and 4" has an empty item between the comma and the word.
    kept = [
        item
        for i, item in enumerate(items)
        if item or not (0 < i < len(items) - 1 and separators[i].kind == "word" and separators[i - 1].kind == "comma")
    ]
    if kept and not kept[-1] and separators[-1].text in ",;":
        kept.pop()
    return kept if all(kept) and len(kept) > 1 else None


def relation(text: str, marks: list[Mark]) -> tuple[list[str], list[str]] | None:
    """The sides of a relation and the signs between them (``=``, ``<``, ``<=``, ``in``, ...), or None."""
    signs = [mark for mark in marks if mark.kind == "relation"]
    if not signs or len(signs) > 4:
        return None
    sides = cut(text, signs)
    return (sides, [_RELATIONS.get(sign.text, sign.text) for sign in signs]) if all(sides) else None


def enclosed(text: str, marks: list[Mark]) -> tuple[str, str, str] | None:
    """The opening bracket, the content and the closing bracket, where one pair encloses the whole text."""
    if len(marks) < 2 or marks[0].kind != "open" or marks[1].kind != "close":
        return None
    if marks[0].start != 0 or marks[1].end != len(text):
        return None
    return marks[0].text, text[marks[0].end : marks[1].start].strip(), marks[1].text


def matrix_rows(text: str) -> list[list[str]] | None:
    r"""The entries of one ``\begin{pmatrix} ... \end{pmatrix}``, row by row, or None."""
    begin = _MATRIX.match(text)
    ending = text.rfind("\\end{")
    if begin is None or ending < begin.end() or not text[ending:].startswith(f"\\end{{{begin.group(1)}}}"):
        return None
    if ending + len(f"\\end{{{begin.group(1)}}}") != len(text):
        return None
    body = text[begin.end() : ending].strip().removesuffix("\\\\").strip()
    marks = outside(body)
    if marks is None:
        return None
    rows = []
    for row in cut(body, [mark for mark in marks if mark.kind == "row"]):
        inner = outside(row) or []
        rows.append(cut(row, [mark for mark in inner if mark.kind == "column"]))
    if (
        len({len(row) for row in rows}) != 1
        or not all(all(row) for row in rows)
        or len(rows) * len(rows[0]) > MAX_PARTS
    ):
        return None
    return rows


def both_signs(text: str) -> tuple[str, str] | None:
    r"""The two readings of ``a \pm b``, upper signs and lower signs, or None where there is no such sign."""
    if _PLUS_MINUS.search(text) is None:
        return None
    upper = _PLUS_MINUS.sub(lambda m: "+" if m.group(1) == "pm" else "-", text)
    lower = _PLUS_MINUS.sub(lambda m: "-" if m.group(1) == "pm" else "+", text)
    return upper.lstrip("+").strip(), lower.lstrip("+").strip()
