r"""Numbers in running text: the last one of a response, and the one number that a short answer amounts to.

A number is taken whole, in whatever language it is written (``1.234,56``, ``1 234,56``, ``12,34,567``,
``3 \times 10^5``), and never out of a larger expression: of ``2\sqrt{3}``, ``\frac{\pi}{4}``, ``5 million`` or
``3^2`` the whole is the answer, not 3, 4, 5 or 2. A list without spaces (``1,2,3``) stays one piece too.
"""

from __future__ import annotations

import re

from dereason.verify.extraction import MAX_TAIL, MAX_TRIES, Extraction, as_written
from dereason.verify.kinds import Kind, kind_of
from dereason.verify.numbers import is_numeric, parse_number
from dereason.verify.text import strip_markup

_SIGN = r"[-+\u2212\u2013\uff0d\ufe63]"
_SPACE = r"(?:[ \u00a0\u2007-\u2009\u202f~]|\\[,;: ])"
_NUMBER = re.compile(
    rf"""
    (?<![A-Za-z0-9_])(?<!\d\.)(?<!\^)(?<![\^_]\{{)        # not in a word, an exponent or an index
    (?:(?<![A-Za-z0-9)\]}}]){_SIGN})?                     # a sign, not a minus between two operands
    (?:\\?[$\u20ac\u00a3\u00a5]\s?)?
    (?:
        (?:\d{{1,9}}\s?)?\\[dtc]?frac\s?\{{\s?-?\d{{1,100}}\s?\}}\s?\{{\s?\d{{1,100}}\s?\}}
      | (?:\d{{1,9}}[ ])?(?<!\d/)\d++/\d++(?![/\d])       # a/b and 1 a/b; 1/2/2024 is no fraction
      | (?:
          # Digits and whatever groups them or marks decimals. A space groups only threes: "1 234", not "1 and 2".
          \d++(?:(?:[.,'\u2019\u066b\u066c\uff0c\uff0e]|\{{,\}}|\\!,|\\,|,\\!|(?<!\d{{4}}){_SPACE}(?=\d{{3}}(?!\d)))\d++)*+
        | \.\d++
        )
        (?:[eE][-+]?\d++)?
        (?:\s?(?:\\times|\u00d7|\\cdot|\u00b7|\*|x)\s?10\s?(?:\^\s?\{{?\s?{_SIGN}?\d++(?:\s?\}})?
            |[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]++))?
        (?:\s?\^\s?\{{?\s?{_SIGN}?\d++(?:\s?\}})?|\*\*\d++)?
    )
    (?!st\b|nd\b|rd\b|th\b)
    (?:\s?\\?[%\uff05\u066a])?
    """,
    re.VERBOSE,
)
# What makes a larger expression of the number before it ...
_GOES_ON = re.compile(
    r"""\s?(?:\\?sqrt|\\?pi\b|\u03c0|\u221a|\\(?:cdot|times)\b|\*\*?|\^)[^\s$]{0,40}
    | [b-fi-kn-ru-z](?![A-Za-z]) | \s?(?:hundred|thousand|million|billion|trillion|dozen)s?\b
    | \s?[万亿億千百]""",
    re.VERBOSE,
)
# ... or of the number after it: an open brace of a fraction or root, or a division of something by the number.
_INSIDE = re.compile(
    r"(?:(?:\d[\d.]{0,10}\s?)?\\(?:[dtc]?frac|sqrt|binom|log_?|ln|sin|cos|tan)[^\n$]{0,40}\{[^{}$\n]{0,20}"
    r"|(?:sqrt|\u221a|log|ln|sin|cos|tan)\s?\(?|[^\s$]{0,30}(?:[A-Za-z)\]}\u03c0]|\\pi)\s?/\s?)\Z"
)
# ... or a word or sign before it that denies or bounds it, or an operator: "40 + 2" is not 2.
_BEFORE = re.compile(
    r"""(?:(?<![A-Za-z])(?:not|isn't|never|nicht|pas|no|non|não|не|ne|(?:more|less|fewer|greater|smaller|larger|other)
        \s+than|at\s+(?:least|most)|over|under|above|below)|不是|不等于|[≠≤≥±]|\\(?:neq?|[lg]eq?|[lg]t|pm|mp)
        # not the ">" of a quotation, of an arrow or of a tag
        |[\w)\]}$][ ][<>]|(?<![</\w])[A-Za-z][<>])[\s*_$(]{0,4}\Z
    | [^\s$=]{0,30}(?:[\w)\]}!][ ]?(?:[+/×÷^]|(?<!\*)\*|\\(?:times|cdot|div))|\d[)\]}]?[ ]?[-−–])[ ]?\Z""",
    re.IGNORECASE | re.VERBOSE,
)
# Numbers that name a place in the text, or stand in a question, are no answers.
_LABEL = re.compile(
    r"(?:(?<![A-Za-z])(?:step|case|part|equations?|eqs?\.?|figure|table|example|section|chapter|method|theorem|lemma|problem"
    r"|question|schritt|étape|paso|passo|шаг)|步骤|第)\s?[(#]?\Z",
    re.IGNORECASE,
)
_MARKER = re.compile(r"(?:\A|\n)[ \t>*_#]{0,8}\Z")
_MARKED = re.compile(r"[.)][ \t*_]{1,4}[^\s\d]")
_QUESTION = re.compile(r"[^.!?\n。\uff01]{0,200}[?\uff1f]")
# Words, units and brackets: nothing that computes with the number that they surround ...
_WORDS = re.compile(r"(?:[^\W\d_]|[\u00b0'\u2019\s.,:()/。\uff01!]|\^\\?\{?(?:\\?circ|[23])\}?)*+")
# ... and none of the words that change its value, nor a single letter that may be a variable.
_CHANGES_VALUE = re.compile(
    r"""(?<!\u00b0)\b(?:not|or|and|to|between|from|more|less|fewer|least|most|over|under|above|below|than|never|plus
    |minus|negative|times|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|thirds?|quarters?
    |squared|cubed|step|case|part|equation|figure|table|example|section|chapter|method|factorial|remainder|twice|double|pi|root|sqrt|[b-fi-kn-ru-z]
    |nicht|kein\w?|oder|hundert|tausend|million\w*|milliarde\w*|pas|ou|mille|milliards?|mil|millón|millones
    |milh\w+|milion\w+|mila|non|não|no|o|не|или|тысяч\w*
    |милли\w*)\b
    |[万亿億千百半不或负負]|または""",
    re.IGNORECASE | re.VERBOSE,
)
# "42 (forty-two)"
_TWICE = re.compile(r"([^()]{1,60}?)\s+\(([A-Za-z -]{3,60})\)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SEVERAL = re.compile(r"[,;]|\b(?:or|and)\b")
_HEDGE = re.compile(r"\s*(?:or|oder|ou|o|или|或)\s*", re.IGNORECASE)
_UNIT_WORD = re.compile(
    r"\s?(?:\\(?:text|mathrm|mbox)\s?\{[^{}\n]{1,40}\}(?:\s?\^\s?\{?-?\d\}?)?|[^\s\d,;!?$=|]{1,20})"
)
_STARTS = re.compile(
    rf"(?:[\s$({{\[*=\\`]|{_SIGN}|(?:approximately|about|exactly|only)\b)*+(?:\.?\d|[\u20ac\u00a3\u00a5]|[dtc]?frac\b)",
    re.IGNORECASE,
)


def starts_with_number(text: str) -> bool:
    """Whether the text begins with a number, in digits or in words."""
    return _STARTS.match(text) is not None or (len(text) <= MAX_TAIL and _words_for_number(text) is not None)


def _words_for_number(text: str) -> str | None:
    """The number in words at the head of a text: "forty-two" of "forty-two apples"."""
    words = strip_markup(text[:MAX_TAIL]).split()
    return next((head for n in (3, 2, 1) if is_numeric(head := " ".join(words[:n]))), None)


def last_number(text: str, kind: Kind) -> Extraction | None:
    """The last number of a text that may be its answer, with its unit where the reference has one."""
    spans = [match.span() for match in _NUMBER.finditer(text)]
    for at in range(len(spans) - 1, max(-1, len(spans) - 1 - MAX_TRIES), -1):
        begin, stop = spans[at]
        if _is_answer(text, begin, stop):
            break
    else:
        return None
    line = text.rfind("\n", max(0, begin - 80), begin) + 1 or max(0, begin - 80)
    # "4 or 5" is a hedge, not 5.
    if at > 0 and _HEDGE.fullmatch(text, spans[at - 1][1], begin):
        begin = spans[at - 1][0]
    elif (inside := _INSIDE.search(text[line:begin])) is not None:
        begin = line + inside.start()
        closing = text.find("}", stop, stop + 20)
        if "{" in inside.group() and closing >= 0:
            stop = closing + 1
    elif (before := _BEFORE.search(text[line:begin])) is not None:
        begin = line + before.start()
    if (goes_on := _GOES_ON.match(text, stop)) is not None:
        stop = goes_on.end()
    elif kind == Kind.QUANTITY:
        stop = _end_of_quantity(text, begin, stop)
    return as_written(text, begin, stop, "number")


def _is_answer(text: str, start: int, end: int) -> bool:
    """Whether a number may be an answer: not a label ("Step 2", "2. Add"), nor part of a question."""
    near = text[max(0, start - 20) : start]
    if _LABEL.search(near) or _QUESTION.match(text, end):
        return False
    return _MARKER.search(near) is None or _MARKED.match(text, end) is None


def _end_of_quantity(text: str, start: int, end: int) -> int:
    """Where the longest quantity that begins with this number ends: "5 m/s" of "5 m/s in all"."""
    best = stop = end
    for _ in range(3):
        word = _UNIT_WORD.match(text, stop)
        if word is None:
            break
        stop = word.end()
        if kind_of(text[start:stop]) == Kind.QUANTITY:
            best = stop
    while best > end and text[best - 1] in ".:":
        best -= 1
    return best


def reduce_number(raw: str) -> str | None:
    """The one number that a short answer amounts to, or None: "5 apples" is 5, "3 + 2 = 5" is 5."""
    if len(raw) > MAX_TAIL:
        return None
    bare = strip_markup(raw)
    if is_numeric(bare):
        return bare
    twice = _TWICE.fullmatch(bare)
    if twice is not None and (value := parse_number(twice[1])) is not None and value == parse_number(twice[2]):
        return twice[1]
    left, equals, right = bare.rpartition("=")
    if equals and not _SEVERAL.search(_THOUSANDS.sub("", left)):
        if is_numeric(left) and "?" not in right:
            return left.strip()  # 42 = 6 * 7
        bare = right.strip()
        if is_numeric(bare):
            return bare
    numbers = list(_NUMBER.finditer(bare))
    if not numbers and (head := _words_for_number(bare)) is not None:
        rest = bare[len(head) :].split()
        # "one of them" and "two or three" are no numbers, "two apples" is.
        return head if len(rest) == 1 and rest[0].isalpha() and not _CHANGES_VALUE.search(rest[0]) else None
    if len(numbers) != 1 or "=" in bare:
        return None
    number = numbers[0]
    if bare[: number.start()].endswith(("(", "[", "{")) and not is_numeric(number.group()):
        return None  # (3,4) is a pair, not the decimal 3,4
    around = f"{bare[: number.start()]} {bare[number.end() :]}"
    if not _WORDS.fullmatch(around) or _CHANGES_VALUE.search(around):
        return None
    return number.group().strip()


def reduce_quantity(raw: str) -> str | None:
    """The quantity at the head of a short answer, or None: "5 m/s in all" is "5 m/s"."""
    if len(raw) > MAX_TAIL:
        return None
    bare = strip_markup(raw)
    if kind_of(bare) == Kind.QUANTITY:
        return bare
    left, equals, right = bare.rpartition("=")
    if equals and not _SEVERAL.search(_THOUSANDS.sub("", left)) and kind_of(right) == Kind.QUANTITY:
        return right.strip()
    number = _NUMBER.match(bare)
    if number is None:
        return None
    end = _end_of_quantity(bare, 0, number.end())
    rest = bare[end:]
    if end == number.end() or not _WORDS.fullmatch(rest) or _CHANGES_VALUE.search(rest):
        return None
    return bare[:end].strip()
