r"""Find the answer in a response, and say where it stands.

Tried in this order; within each the last one in the text wins:

``boxed``         ``\boxed{...}`` or ``\fbox{...}`` with balanced braces; neither empty nor left open
``final_answer``  "final answer: X", "the answer is X", "Answer: X"
``hash``          GSM8K's ``#### X``
``number``        where the reference is a number: the last number of the text
``letter``        where there are options: a choice letter as the conclusion, by itself in the last line;
                  never a first-letter guess, never a random letter

Where the reference is a number, an answer with words around its only number ("5 apples", "x = 3 + 2 = 5") is
reduced to that number, unless a word changes the meaning ("5 million" and "4 or 5" stay as they are).
Everything is linear in the length of the response: no recursion, and no pattern that can backtrack far.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dereason.verify.equivalence import is_numeric, option_index, strip_markup

How = Literal["boxed", "final_answer", "hash", "number", "letter"]


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


# A conclusion is short. Longer tails and lines are prose.
MAX_TAIL = 500

# The second branch is for JSON-escaped text, in which a box is written with two backslashes.
_BRACES = re.compile(r"(?P<box>(?:\\|(?<=\\))(?:boxed|fbox)\s*+\{)|\\.|[{}]", re.DOTALL)
_CONTENT = re.compile(r"[^\s.,;:*_$`~]")
_SPACING = frozenset({f"\\{mark}" for mark in "!,;:>()[]$ \n"})
_NUMBER = re.compile(
    r"""
    (?<![A-Za-z0-9_])(?<![0-9]\.)(?<!\^)(?<![\^_]\{)     # not in a word, an exponent or an index
    (?:(?<![A-Za-z0-9)\]}])[-+\u2212\u2013\uff0d\ufe63])?  # a sign, not a minus between two operands
    (?:\\?[$\u20ac\u00a3]\s?)?
    (?:
        \\[dt]?frac\s?\{\s?-?[0-9]{1,100}\s?\}\s?\{\s?[0-9]{1,100}\s?\}
      | (?<![0-9]/)[0-9]++/[0-9]++(?![/0-9])             # a/b; 1/2/2024 is no fraction
      | (?:[0-9]{1,3}(?:(?:,|\{,\}|\\,|\\!,)[0-9]{3}){1,40}+(?![0-9])|[0-9]++)  # thousands; bounded: linear
        (?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?
      | \.[0-9]++
    )
    (?!st\b|nd\b|rd\b|th\b)
    (?:\s?\\?%)?
    """,
    re.VERBOSE,
)
_PHRASE = re.compile(
    r"""
    \b(?:(?P<final>final)\s{1,3})?answer\b[*_`]{0,3}\s{0,3}
    (?: is\b(?:\s{1,3}that\b)?\s{0,3}:? | [:=] | (?(final)\n|(?!)) )
    [\s*_`:]*+
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bvs)[.!?](?=\s|$)")
_CLAUSE_END = re.compile(r",\s+(?!or\b|and\b)(?=[a-z]{2})|\s+(?:because|since|as|which|when|where|given)\b")
_HASH = re.compile(r"(?<!\S)####[ \t]*+(?P<tail>[^\n]*+)")
_STARTS_WITH_NUMBER = re.compile(
    r"(?:[\s$({\[*=\\\u2212-]|(?:approximately|about|exactly)\b)*+(?:\.?[0-9]|[dt]?frac\b)", re.IGNORECASE
)
# What may surround the only number of an answer: words and units, but nothing that computes with it ...
_WORDS = re.compile(r"(?:[A-Za-z\u00b0'\s.,:()/]|\^\\?\{?(?:\\?circ|[23])\}?)*+")
# ... and none of the words that change its value, nor a single letter that may be a variable.
_CHANGES_VALUE = re.compile(
    r"(?<!\u00b0)\b(?:not|or|and|to|between|from|more|less|fewer|least|most|over|under|above|below|than|never|plus"
    r"|minus|times|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|thirds?|quarters?"
    r"|squared|cubed|factorial|remainder|twice|double|pi|root|sqrt|[b-fi-kn-ru-z])\b",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_SEVERAL = re.compile(r"[,;]|\b(?:or|and)\b")
_LETTER_HEAD = re.compile(r"[(\[]\s?([A-Za-z])\s?[)\]]|([A-Z])(?=\s*(?:[.,:;)\]]|$)|\s(?:because|since|as)\b)")
_NAMED_LETTER = re.compile(
    r"\(([A-Z])\)|\b(?i:option|choice)\s+([A-Z])\b|\b(?i:option|choice)\s+is:?\s+([A-Z])(?=[.,;!]|\s*$)"
)
_TWO_LETTERS = re.compile(r"\b(?:or|and)\s+\(?[A-Z]\b")
_LABEL = re.compile(r"\s*[*_]{0,2}(?:\([A-Z]\)|[A-Z][.):])")


def extract(response: str, *, numeric: bool, options: Sequence[str] | None = None) -> Extraction | None:
    """The answer of a response, or None where it states none.

    Args:
        response: the generated text, of any length and content.
        numeric: whether the reference is a number; allows the last number as the answer.
        options: the choices of a multiple-choice problem; allows a choice letter as the conclusion.
    """
    return (
        _boxed(response, numeric)
        or _phrase(response, numeric, options)
        or _hash(response, numeric, options)
        or (_last_number(response) if numeric else None)
        or (_letter(response, options) if options else None)
    )


def _boxed(text: str, numeric: bool) -> Extraction | None:
    open_braces: list[int] = []  # where each open box's content starts, -1 for a brace that opens no box
    best: tuple[int, int] | None = None
    position = last_content = 0
    for match in _BRACES.finditer(text):
        token = match.group()
        if _CONTENT.search(text, position, match.start()):
            last_content = match.start()
        position = match.end()
        if match.lastgroup == "box":
            open_braces.append(position)
        elif token == "{":
            open_braces.append(-1)
        elif token == "}":
            start = open_braces.pop() if open_braces else -1
            # The innermost of nested boxes starts last, and is the one that holds the answer.
            if 0 <= start < last_content and (best is None or start > best[0]):
                best = (start, match.start())
        elif token not in _SPACING:
            last_content = position
    return _extraction(text, *best, "boxed", numeric) if best else None


def _phrase(text: str, numeric: bool, options: Sequence[str] | None) -> Extraction | None:
    until = len(text)
    for match in reversed(list(_PHRASE.finditer(text))):
        # Tails end where the next phrase begins, so that together they are no longer than the text.
        start, end = match.end(), _line_end(text, match.end(), until)
        until = match.start()
        tail = text[start:end]
        if (numeric or options or "is" in match.group().lower()) and (stop := _SENTENCE_END.search(tail)):
            end = start + stop.start()
        if numeric and (stop := _CLAUSE_END.search(text, start, end)):
            end = stop.start()
        if options:
            found = _choice(text, start, end, options, "final_answer")
        elif numeric and not (_reduce(text[start:end]) or _STARTS_WITH_NUMBER.match(text[start:end])):
            found = None  # "the answer is obtained by adding 3 and 4" states no answer
        else:
            found = _extraction(text, start, end, "final_answer", numeric)
        if found is not None:
            return found
    return None


def _hash(text: str, numeric: bool, options: Sequence[str] | None) -> Extraction | None:
    text_end = len(text.rstrip())
    for match in reversed(list(_HASH.finditer(text))):
        # "#### Step 2" is a Markdown heading: only a number, or what stands in the last line, is an answer.
        is_last = match.end() >= text_end
        start, end = match.span("tail")
        if end - start > MAX_TAIL:
            continue
        if options:
            found = _choice(text, start, end, options, "hash")
        elif is_numeric(text[start:end]) or (is_last and (not numeric or _STARTS_WITH_NUMBER.match(text[start:end]))):
            found = _extraction(text, start, end, "hash", numeric)
        else:
            found = None
        if found is not None:
            return found
    return None


def _last_number(text: str) -> Extraction | None:
    previous = last = None
    for match in _NUMBER.finditer(text):
        previous, last = last, match
    if last is None:
        return None
    start = last.start()
    if previous is not None and text[previous.end() : start].strip().lower() == "or":
        start = previous.start()  # "4 or 5" is a hedge, not 5
    return Extraction(strip_markup(text[start : last.end()]), start, last.end(), "number")


def _letter(text: str, options: Sequence[str]) -> Extraction | None:
    """A choice letter that stands by itself in the last line: "(B)", "B.", "B. its text", "... option B."."""
    end = len(text.rstrip())
    start = text.rfind("\n", 0, end) + 1
    if end - start > MAX_TAIL:
        start = end - MAX_TAIL
    bare = strip_markup(text[start:end])
    if len(bare.strip("()[]")) == 1 and option_index(bare, options) is not None:
        return Extraction(bare, start, end, "letter")
    if _LABEL.match(text, start, end):
        # The last line of a restated list of options is no conclusion.
        before = text[:start].rstrip()
        listed = _LABEL.match(before, before.rfind("\n") + 1)
        if listed or option_index(bare, options) is None:
            return None
        return Extraction(bare, start, end, "letter")
    named = list(_NAMED_LETTER.finditer(text, start, end))
    letters = {match.group(match.lastindex or 0) for match in named}
    if len(letters) != 1 or _TWO_LETTERS.search(text, start, end):
        return None
    letter = letters.pop()
    if option_index(letter, options) is None:
        return None
    return Extraction(letter, *named[-1].span(named[-1].lastindex or 0), "letter")


def _choice(text: str, start: int, end: int, options: Sequence[str], how: How) -> Extraction | None:
    """The option that a tail names: by itself, or by a letter at its head."""
    bare = strip_markup(text[start:end])
    if option_index(bare, options) is not None:
        return Extraction(bare, start, end, how)
    head = _LETTER_HEAD.match(bare)
    if head is None:
        return None
    if _TWO_LETTERS.search(bare):
        return Extraction(bare, start, end, how)  # "(C) or (G)" is an answer, and a wrong one
    letter = head.group(1) or head.group(2)
    return Extraction(letter, start, end, how) if option_index(letter, options) is not None else None


def _line_end(text: str, start: int, until: int) -> int:
    end = text.find("\n", start, until)
    return min(until if end < 0 else end, start + MAX_TAIL)


def _extraction(text: str, start: int, end: int, how: How, numeric: bool) -> Extraction | None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    bare = (_reduce(text[start:end]) if numeric else None) or strip_markup(text[start:end])
    return Extraction(bare, start, end, how) if bare else None


def _reduce(raw: str) -> str | None:
    """The one number that a short answer amounts to, or None: "5 apples" is 5, "3 + 2 = 5" is 5."""
    if len(raw) > MAX_TAIL:
        return None
    bare = strip_markup(raw)
    if is_numeric(bare):
        return bare
    left, equals, right = bare.rpartition("=")
    if equals and not _SEVERAL.search(_THOUSANDS.sub("", left)):
        bare = right.strip()
    numbers = list(_NUMBER.finditer(bare))
    if len(numbers) != 1 or "=" in bare:
        return None
    number = numbers[0]
    around = f"{bare[: number.start()]} {bare[number.end() :]}"
    if not _WORDS.fullmatch(around) or _CHANGES_VALUE.search(around):
        return None
    return number.group().strip()
