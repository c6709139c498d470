r"""The last number in running text, with whatever it is a part of.

A number is taken whole, in whatever language it is written (``1.234,56``, ``1 234,56``, ``12,34,567``,
``3 \times 10^5``), and never out of something larger: the formula around it, or the word that denies, bounds or scales
it, is a part of what is found, so that the comparison sees ``2\sqrt{3}``,
"at most 5" or "5 million" and not its number.
"""

from __future__ import annotations

import re

from dereason.verify.kinds import Kind
from dereason.verify.reading import kind_of
from dereason.verify.single import changes, single
from dereason.verify.span import MAX_TRIES, Span, as_written
from dereason.verify.text import as_read
from dereason.verify.units import parse_compound

_SIGN = r"[-+\u2212\u2013\uff0d\ufe63]"
_SPACE = r"(?:[ \u00a0\u2007-\u2009\u202f~]|\\[,;: ])"
_NUMBER = re.compile(
    rf"""
    (?<![A-Za-z0-9_])(?<!\d\.)(?<!\^)(?<![\^_]\{{)        # not in a word, an exponent or an index
    (?:(?<![A-Za-z0-9)\]}}]){_SIGN})?                     # a sign, not a minus between two operands
    (?:\\?[$\u20ac\u00a3\u00a5]\s?)?
    (?:
        (?:\d{{1,9}}\s?)?\\[dtc]?frac\s?(?:\{{\s?-?\d{{1,100}}\s?\}}|\d)\s?(?:\{{\s?\d{{1,100}}\s?\}}|\d(?!\d))
      | (?:\d{{1,9}}[ ](?:and[ ])?)?(?<!\d/)\d++/\d++(?![/\d])  # a/b and 1 a/b; 1/2/2024 is no fraction
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
# A formula: $...$ as pandoc reads it (money is none), \(...\), \[...\], $$...$$, and environments.
_FORMULA = re.compile(
    r"\$\$(?P<display>[^$]{1,400})\$\$|(?<![\\$])\$(?P<inline>(?!\s?[0-9][0-9,.]*\s+[A-Za-z(])[^$\n]{1,200}?)(?<!\\)\$(?!\d)"
    r"|\\\((?P<round>.{1,300}?)\\\)|\\\[(?P<square>.{1,400}?)\\\]"
    r"|\\begin\{(?P<name>(?:align|equation|gather|eqnarray)\*?)\}(?P<body>.{1,600}?)\\end\{(?P=name)\}",
    re.DOTALL,
)
# What makes a larger expression of the number before it ...
_GOES_ON = re.compile(
    r"""(?:[!²³⁴⁵⁶⁷⁸⁹%_^:][^\s.,;]*)+
    | \s?(?:\\?sqrt|\\?pi\b|\u03c0|\u221a|\\(?:cdot|times|text|mathrm|pm|mid)\b|\*\*?|\^)[^\s$]{0,40}
    | \s[:/\u00d7\u00b1+*<>=]\s?[^\s$]{1,20} | \s[-\u2212\u2013]\s(?=[\w\\(])[^\s$]{1,20}
    | \s?/\s?[A-Za-z](?![A-Za-z])[^\s.,]*
    | [A-Za-z][A-Za-z0-9]*(?=[\s.,;*_]|\Z) | \+(?=[\s.,*]|\Z)
    | -(?!(?:year|day|hour|minute|month|week|mile|foot|inch|meter|metre|pound|dollar|cent|point|digit|letter
        |step|sided|fold|gallon)s?\b)[a-z]{4,} | [-\u2013\u2014]\d+ | \.\.\.?\d*
    | \s?(?:hundred|thousand|million|billion|trillion|dozen|score|gross|crore|lakh|thirds?|fourths?|fifths?
        |sixths?|eighths?|tenths?
        |hundredths?|percentage|permille|factorial|squared|cubed|mod|modulo|choose|over|divided|times|plus|minus|to(?=\s\d)|BC|BCE
        |or(?=\s+\d)|January|February|March|April|May|June|July|August|September|October|November|December)s?\b[^\n.]{0,20}
    | \s?(?:[万亿億千百]|左右|以[上下])""",
    re.VERBOSE,
)
# ... or of the number after it: a function, an open bracket, an operand with its operator ...
_INSIDE = re.compile(
    r"(?:(?:\d[\d.]{0,10}\s?)?\\(?:[dtc]?frac|sqrt|binom)[^\n$]{0,40}\{[^{}$\n]{0,20}|(?:(?:\d[\d.]{0,10}\s?)?\\[A-Za-z]+|(?<![A-Za-z])[A-Za-z](?:[_^]\{?-?\w{1,3}\}?)?)\s?[({]\s?(?:[^(){}\n$]{0,40}[,\s])?|[A-Za-z]{2,12}\("
    r"|(?:\\?(?:sqrt|log|ln|sin|cos|tan|exp|arctan|arcsin|arccos|gcd|lcm|max|min|erf)(?:_\{?\w{1,3}\}?)?|\u221a)\s?\(?\s?"
    r"|[^\s$]{0,30}[A-Za-z)\]}\u03c00-9]\s?(?:[/+*\u00d7^\u00b7\u00b1:;|]|\.\.)\s?|(?<![A-Za-z0-9])[A-Za-z0-9]\s[-\u2212\u2013]\s"
    r"|\d[\d.,]*[)\]}]?\s?[-\u2212\u2013]\s?|(?:[(\[{|]|(?<!\\)!)\s?(?:[^()\[\]{}\n]{0,30}[,;]\s?)?|=\s?\d[\d.]*\s?[,;]\s)\Z"
)
# ... or a word or sign before it that denies, bounds or changes it.
_BEFORE = re.compile(
    r"""(?:(?<![A-Za-z])(?:(?:not|[a-z]{2,6}n['\u2019]t|cannot|never)(?:\s+[a-z]{2,12})?|hardly
        |(?:excess|short|factor|differs|different|unequal|divisible|proportional)\s+(?:of|from|to|by)
        |\d\s+to\s+the|close\s+to|near|exceeds?|tends?\s+to
        |approach(?:es)?|nicht|pas|no|non|não|не|ne|neither|nor|(?:more|less|fewer|greater|smaller|larger|other)
        \s+than|at\s+(?:least|most)|over|under|above|below|between|approximately|roughly|nearly|almost|about|around|twice|half\s+of|double
        |(?:the\s+)?(?:square(?:\s+root)?|cube(?:\s+root)?|log(?:arithm)?|reciprocal|opposite|multiple|power|factorial)\s+of|up\s+to|log|except|without)
        |不是|不等于|(?:大约|约|至少|至多|最多|最少|接近|超过|不到)[是为]?|[≠≤≥±≈~]|!=|\\(?:neq?|[lg]eq?|[lg]t|pm|mp|approx|sim|to|mid)
        # not the ">" of a quotation, of an arrow or of a tag
        |[\w)\]}$][ ][<>]|(?<=\*\*)[<>]|(?<![</\w])[A-Za-z][<>])
        (?:\s+(?:be|been|have|equal|to|just|exactly|es|est|ist)(?![A-Za-z]))*[\s*_$(]{0,4}
        (?:\d[\d.,]*\s+(?:and|or|nor|to)\s+)?\Z
    | (?<![A-Za-z])(?:minus|negative)[\s*_$(]{1,4}\Z
    | (?:(?<=[=:(\[,])(?:[ \t]|\\[,;!: ]){0,4}|(?<=[\s(][*$])|(?<=\s\*\*)
        |(?<![^\W\d_])(?:is|are|was|were|equals?|be|get|gives?|becomes?|to|of|by|que|es|est
            |ist)[ \t]+[$*(]{0,3}(?:[ \t]|\\[,;!: ]){0,3})
        (?P<minus>\{?[-\u2212\u2013](?:[ \t]|\\[,;!: ])*[}{$]{0,2})\Z
    | [^\s$=\u2248]{1,20}\s?(?:\u2248|\\approx)\s?\Z""",
    re.IGNORECASE | re.VERBOSE,
)
# "41 and 42", "41, 42" and "4 or 5" are several numbers, not the last of them.
_LISTED = re.compile(r"\s*(?:,\s*)?(?:or|and|nor|oder|ou|o|или|или|to|through)\s*|\s*[;:]\s*|,\s*", re.IGNORECASE)
_AFTER_LIST = re.compile(r"(?:\b(?:is|are|be|of|values|numbers|roots|solutions|between|neither)|[=:{\[(])[\s*_$]*\Z")
# Numbers that name a place in the text, or stand in a question, are no answers.
_LABEL = re.compile(
    r"(?:(?<![A-Za-z])(?:step|case|part|equations?|eqs?\.?|figure|table|example|section|chapter|method|theorem|lemma|problem"
    r"|question|schritt|étape|paso|passo|шаг)|步骤|第)\s?[(#]?\Z",
    re.IGNORECASE,
)
_MARKER = re.compile(r"(?:\A|\n)[ \t>*_#]{0,8}\Z")
_MARKED = re.compile(r"[.)][ \t*_]{1,4}[^\s\d]")
_QUESTION = re.compile(r"[^.!?\n。\uff01]{0,200}[?\uff1f]")
_UNIT_WORD = re.compile(
    r"\s?(?:\\(?:text|mathrm|mbox)\s?\{[^{}\n]{1,40}\}(?:\s?\^\s?\{?-?\d\}?)?|[^\s\d,;!?$=|]{1,20})"
)


def last_number(text: str, kind: Kind) -> Span | None:
    """The last number of a text that may be its answer, with what belongs to it."""
    spans = [match.span() for match in _NUMBER.finditer(text)]
    for at in range(len(spans) - 1, max(-1, len(spans) - 1 - MAX_TRIES), -1):
        begin, stop = spans[at]
        if _is_answer(text, begin, stop):
            break
    else:
        return None
    number = begin
    if (said := _said(text, begin, stop)) is not None:
        return as_written(text, *said, "number")
    formula = _formula(text, begin, stop)
    if formula is not None:
        begin, stop, outer, after = formula
    else:
        outer, after = begin, stop
        previous = spans[at - 1] if at > 0 else None
        if previous is not None and (joined := _end_of_compound(text, previous, begin, stop)) is not None:
            return as_written(text, previous[0], joined, "number")
        if previous is not None and _LISTED.fullmatch(text, previous[1], begin) and _is_list(text, spans, at):
            begin = outer = previous[0]
    line = text.rfind("\n", max(0, outer - 80), outer) + 1 or max(0, outer - 80)
    if formula is None and (inside := _INSIDE.search(text[line:begin])) is not None:
        begin = line + inside.start()
        closing = text.find("}", stop, stop + 20)
        if "{" in inside.group() and closing >= 0:
            stop = closing + 1
    if (before := _BEFORE.search(text[line:outer] if formula else text[line:begin])) is not None:
        begin = line + (before.start() if before["minus"] is None else before.start("minus"))
    if (
        formula is None
        and not is_exclamation(text, number, stop)
        and (goes_on := _GOES_ON.match(text, stop)) is not None
    ):
        stop = _end_of_quantity(text, begin, stop, kind, goes_on.end())
    elif kind == Kind.QUANTITY:
        stop = _end_of_quantity(text, begin, after, kind, stop)
    return as_written(text, begin, stop, "number")


_IS = re.compile(
    r"(?:(?<![^\W\d_])(?:is|are|was|were|equals?|be|gives?|get|becomes?|makes?|has|have)(?![^\W\d_])|[:=])[\s*_]*"
)
_STOP = re.compile(r"[.!?](?=[*_\"')\]]{0,3}(?:\s|\Z))|\n|,\s")


def _said(text: str, begin: int, stop: int) -> tuple[int, int] | None:
    """The short statement around a number that changes it: "it is 5 or more", "the result is the inverse of 5"."""
    line = max(text.rfind("\n", 0, begin) + 1, begin - 60)
    if text[line:begin].rstrip(" $\\").endswith("="):
        return None  # a result
    verbs = list(_IS.finditer(text, line, begin))
    start = verbs[0].end() if verbs else begin
    if any(sign in text[line:begin] for sign in ".?;") or "$" in text[line:stop] or "\\" in text[line:stop]:
        start = verbs[-1].end() if verbs and not re.search(r"[.?;$\\]", text[verbs[-1].end() : begin]) else begin
    ending = _STOP.search(text, stop, stop + 60)
    end = ending.start() if ending is not None else min(len(text), stop + 60)
    said = text[start:end]
    if len(said.split()) > 7 or single(as_read(said)) is not None or not changes(text[start:begin], text[stop:end]):
        return None
    return start, end


_INTEGER = re.compile(r"[0-9]{1,2}")


def is_exclamation(text: str, start: int, end: int) -> bool:
    """Whether the mark behind a number ends a sentence: outside a formula nobody says the factorial of 42 or of 2.5."""
    if text[end : end + 1] != "!" or text[end + 1 : end + 2] not in ("", " ", "\n", "*"):
        return False
    return not (_INTEGER.fullmatch(text, start, end) and int(text[start:end]) <= 20)


def _formula(text: str, begin: int, stop: int) -> tuple[int, int, int, int] | None:
    """The last line of the formula that holds a number: its start and end, and those of the formula with its marks."""
    for match in _FORMULA.finditer(text, max(0, begin - 600)):
        if match.start() > begin:
            return None
        if match.start() <= begin and stop <= match.end():
            group = next(name for name in ("display", "inline", "round", "square", "body") if match[name] is not None)
            start, end = match.span(group)
            inner = text[start:end]
            if "\\begin" not in inner and "\\\\" in inner:
                rows = [row for row in re.finditer(r"(?:(?!\\\\).)+", inner, re.DOTALL) if row.group().strip(" \n&")]
                start, end = start + rows[-1].start(), start + rows[-1].end()
                if not start <= begin < end:
                    return None
                start += len(text[start:end]) - len(text[start:end].lstrip(" \n&"))
            return start, end, match.start(), match.end()
    return None


def _is_list(text: str, spans: list[tuple[int, int]], at: int) -> bool:
    """Whether a number and the one before it are said side by side, as values."""
    between = text[spans[at - 1][1] : spans[at][0]].strip()
    if re.fullmatch(r"(?:,\s*)?(?:or|nor|oder|ou|o|или)|;", between, re.IGNORECASE):
        return True
    if between == ":" or between == ",":
        return text[spans[at][0] - 1] == between or _AFTER_LIST.search(text[: spans[at - 1][0]][-20:]) is not None
    return _AFTER_LIST.search(text[: spans[at - 1][0]][-20:]) is not None


def _is_answer(text: str, start: int, end: int) -> bool:
    """Whether a number may be an answer: not a label ("Step 2", "2. Add"), nor part of a question."""
    near = text[max(0, start - 20) : start]
    if _LABEL.search(near) or _QUESTION.match(text, end):
        return False
    return _MARKER.search(near) is None or _MARKED.match(text, end) is None


def _end_of_compound(text: str, previous: tuple[int, int], begin: int, stop: int) -> int | None:
    """Where the quantity of two numbers ends: "7 dollars and 25 cents", "2 h 30 min"."""
    unit = _UNIT_WORD.match(text, stop)
    if unit is None or begin - previous[1] > 20:
        return None
    end = unit.end() - (text[unit.end() - 1] in ".:")
    return end if parse_compound(as_read(text[previous[0] : end])) is not None else None


def _end_of_quantity(text: str, start: int, end: int, kind: Kind, otherwise: int) -> int:
    """Where the longest quantity that begins with this number ends: "5 m/s" of "5 m/s in all"."""
    best, stop = otherwise, end
    for _ in range(3):
        word = _UNIT_WORD.match(text, stop)
        if word is None:
            break
        stop = word.end()
        value = single(as_read(text[start:stop]))
        if value is not None and kind_of(value) is Kind.QUANTITY:
            best = stop
    while best > end and text[best - 1] in ".:":
        best -= 1
    return best
