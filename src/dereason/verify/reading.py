r"""An answer taken apart: one reading for the reference and for what a response says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from string import ascii_letters

from dereason.verify.expressions import parse_expression
from dereason.verify.kinds import MATHEMATICS, MAX_LENGTH, MAX_LEVEL, Answer, Kind
from dereason.verify.notation import NotMath, TooHard
from dereason.verify.numbers import parse_number
from dereason.verify.single import single
from dereason.verify.structures import (
    MAX_PARTS,
    Mark,
    both_signs,
    cut,
    enclosed,
    list_items,
    matrix_rows,
    outside,
    relation,
)
from dereason.verify.text import MONEY, as_read, literal, normalise, unmarked
from dereason.verify.units import SIGNS, parse_compound, parse_quantity

_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
# Dates, times, ratios and the places in a name of chemistry (2,2-dimethylbutane): signs of arithmetic that mean none.
_WRITTEN = re.compile(
    r"[0-9]{1,4}-[0-9]{1,2}-[0-9]{1,4}|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2,4}|[0-9]{4}/[0-9]{1,2}/[0-9]{1,2}|[0-9]+(?:\s?:\s?[0-9]+)+(?:\s?[ap]\.?m\.?)?"
    r"|[0-9]{1,2}\s?[ap]\.?m\.?|[0-9]+(?:,[0-9]+)+-[a-z][a-z -]{3,60}",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[A-Z]{1,2}|\([A-Z]\)")
_BASED = re.compile(
    r"(-?\(?[0-9A-Z]+(?:\.[0-9A-Z]+)?\)?)\s?(?:_\s?\{?\s?\(?([0-9]{1,2})\)?\s?\}?|\(?(?:in )?base[ -]([0-9]{1,2})\)?"
    r"|_\s?\{?\s?([a-z]{3,8})\s?\}?)"
)
_PROGRAMMED = re.compile(r"(-?)0([bxo])([0-9a-fA-F]+)")
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_SYMBOL = re.compile(r"(?:\\?[A-Za-z]{1,7}(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]{1,5}\}))?'*(?:\([a-z]\))?)")
# What else only names a value: a derivative, a composition, a concentration, a probability, words.
_NAMED_SIDE = re.compile(
    r"\\frac\s?\{\s?d[^{}]{0,8}\}\s?\{\s?d[^{}]{0,8}\}(?:\s?[A-Za-z](?:\([a-z]\))?)?|\(?[a-z](?:\s?\\circ\s?[a-z]){1,3}\)?(?:\([a-z]\))?"
    r"|\[[^][]{1,12}\]|P\s?\([^()]{1,30}\)|[a-z]'{1,3}(?:\([a-z]\))?|(?:\\vec|\\mathbf|\\overline|\\hat)\s?\{?\s?[A-Za-z]{1,2}\s?\}?"
    r"|[A-Za-z][a-z]{2,12}(?: [a-z]{2,12}){0,3}|[a-z]\^\{?-1\}?\([a-z]\)"
)
_EMPTY = re.compile(r"\\(?:emptyset|varnothing)|\\?\{\s?\\?\}")
_REALS = re.compile(
    r"\\mathbb\s?\{?\s?R\s?\}?|\\Reals?|(?:all|the) reals?(?: numbers)?|all real numbers", re.IGNORECASE
)
_CONSTANT = re.compile(r"\\?pi|e")
_INFINITE = re.compile(r"[-+]?\s?(?:\\infty|infinity|inf|oo)")


@lru_cache(maxsize=8192)
def _kind(reference: str) -> Kind:
    return Kind.LITERAL if literal(reference) is not None else read(reference).kind


def kind_of(reference: str, options: Sequence[str] | None = None) -> Kind:
    """The kind of a reference. Cheap, and cached; never raises."""
    return Kind.CHOICE if options else _kind(reference)


def read(raw: str, kind: Kind | None = None) -> Answer:
    """Take an answer apart, as it was written. Linear in the length; nested at most three deep; never raises.

    Args:
        raw: the answer or the reference, with its markup.
        kind: the kind that is asked for; only for a number or a quantity are words around it left out.
    """
    if len(raw) > MAX_LENGTH:
        return Answer(Kind.TEXT, raw)
    text = as_read(raw)
    if kind in (Kind.NUMBER, Kind.QUANTITY) and (one := single(text)) is not None:
        quantity = parse_quantity(one)
        return _read(one, 0) if quantity is None else Answer(Kind.QUANTITY, unmarked(one), quantity=quantity)
    if (qualified := _QUALIFIED.fullmatch(text)) is not None:
        found = _read(qualified[1], 0)
        if found.kind in MATHEMATICS:
            return found
    if kind is Kind.BOOLEAN and (word := _YES_NO.match(unmarked(text))) is not None:
        return Answer(Kind.BOOLEAN, word[1])
    if kind in (Kind.TUPLE, Kind.MATRIX) and (vector := _in_components(unmarked(text))) is not None:
        return vector
    return _read(text, 0)


# "Yes, it is."
_YES_NO = re.compile(r"(yes|no|true|false)\b(?=\s*[,;.:!(\u2013\u2014])", re.IGNORECASE)
_COMPONENT = re.compile(
    r"\s?([-+]?)\s?([^-+\s]*?)\s?(?:\\(?:hat|vec|widehat)\s?\{?\s?\\?|(?=[ijk]))([ijkxyz])(?:math)?\s?\}?"
)


def _in_components(text: str) -> Answer | None:
    r"""The tuple of ``2\hat{i} + 3\hat{j}``."""
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _COMPONENT.match(text, position)
        if match is None or match[3] in values:
            return None
        values[match[3]] = match[1].replace("+", "") + (match[2] or "1")
        position = match.end()
    axes = "ijk" if set(values) <= set("ijk") else "xyz"
    if not values or not set(values) <= set(axes):
        return None
    size = max(axes.index(axis) for axis in values) + 1
    parts = tuple(_read(values.get(axis, "0"), MAX_LEVEL) for axis in axes[: max(size, 2)])
    return Answer(Kind.TUPLE, text, parts, ("(", ")"))


# "f(x) = cx for any real c" says no more than "f(x) = cx"; "for x > 0" does.
_QUALIFIED = re.compile(
    r"(.*?[^,\s])[,\s\u2060]*(?:for|where)\s+(?:(?:any|all|some|every|arbitrary|an|a|real|complex|rational|integer|constants?|numbers?)\s+)+"
    r"\\?[A-Za-z](?:\s?\\in\s?\\mathbb\s?\{?[RZQCN]\}?)?"
)
_PH = re.compile(r"(pH|pOH|pKa|pK_a|pK_b)\s+(?:of\s+|is\s+)?(-?[0-9.]+)")


def _read(marked: str, level: int) -> Answer:
    text = unmarked(marked)
    if parse_number(text) is not None:
        if any(sign in marked for sign in SIGNS) and (money := parse_quantity(marked)) is not None:
            return Answer(Kind.QUANTITY, text, quantity=money)
        return Answer(Kind.NUMBER, text)
    if text.casefold().rstrip("!") in _BOOLEANS:
        return Answer(Kind.BOOLEAN, text)
    if _WRITTEN.fullmatch(text) or _LABEL.fullmatch(text) or not text:
        return Answer(Kind.TEXT, text)
    if _REALS.fullmatch(text):
        ends = (Answer(Kind.EXPRESSION, "-\\infty"), Answer(Kind.EXPRESSION, "\\infty"))
        return _union([Answer(Kind.INTERVAL, text, ends, ("(", ")"))], text)
    if _INFINITE.fullmatch(text):
        return _end(text)
    if (acidity := _PH.fullmatch(text)) is not None:
        value = Answer(Kind.NUMBER, acidity[2])
        return Answer(Kind.EQUATION, text, (Answer(Kind.TEXT, acidity[1]), value), ("=",))
    uncertain = _UNCERTAIN.fullmatch(text)
    if uncertain is not None:
        return _read(f"{uncertain[1]} \\pm {_last_digits(uncertain[1], uncertain[2])}", level)
    if "," in text and not any(bracket in text for bracket in ("(", "[", "\\{")) and text[0] != "{":
        joined = _THOUSANDS.sub(lambda m: m.group().replace(",", ""), marked)
        if "," not in joined:
            return _read(joined, level)  # 1,000\pi is one value, as 1,000 is
    if _EMPTY.fullmatch(text):
        return Answer(Kind.SET, text, (), ("\\{", "\\}"))
    if "," in text and MONEY not in marked and (compound := parse_compound(marked)) is not None:
        return Answer(Kind.QUANTITY, text, quantity=compound)
    marks = outside(marked) if level < MAX_LEVEL else None
    if marks:
        found = (
            _matrix(marked, level)
            or _rows(marked, marks, level)
            or _compound(marked, marks)
            or _list(marked, marks, level)
            or _relation(marked, marks, level)
            or _cup(marked, marks, level)
            or _bracketed(marked, marks, level)
            or _plus_minus(marked, marks, level)
        )
        if found is not None:
            return replace(found, text=unmarked(found.text))
    return _leaf(marked)


_UNCERTAIN = re.compile(r"(-?[0-9]+\.[0-9]+)\(([0-9]{1,2})\)")


def _last_digits(value: str, digits: str) -> str:
    """The uncertainty of 3.54(12), whose digits stand under the last ones of the value: 0.12."""
    places = len(value.partition(".")[2])
    return f"{int(digits) / 10**places:.{places}f}"


def _rows(text: str, marks: list[Mark], level: int) -> Answer | None:
    r"""Lines under each other as a list: ``x = 1 \\ y = 2``."""
    rows = [mark for mark in marks if mark.kind == "row"]
    if not rows or any(mark.kind == "column" for mark in marks):
        return None
    return _read(", ".join(piece for piece in cut(text, rows) if piece), level + 1)


def _compound(text: str, marks: list[Mark]) -> Answer | None:
    """ "42 dollars and 50 cents" is one quantity."""
    if not any(mark.kind == "word" for mark in marks):
        return None
    found = parse_compound(text)
    return None if found is None else Answer(Kind.QUANTITY, text, quantity=found)


def _leaf(marked: str) -> Answer:
    text = unmarked(marked)
    if based(text) is not None:
        return Answer(Kind.EXPRESSION, text)
    if (quantity := parse_quantity(marked)) is not None:
        return Answer(Kind.QUANTITY, text, quantity=quantity)
    try:
        parse_expression(text)
    except NotMath:
        return Answer(Kind.TEXT, text)
    except TooHard:
        pass
    return Answer(Kind.EXPRESSION, text)


def based(text: str) -> tuple[str, int] | None:
    """The digits and the base of ``4210_{5}``, or None."""
    programmed = _PROGRAMMED.fullmatch(text)
    match = _BASED.fullmatch(text) if programmed is None else None
    if programmed is not None:
        digits, base = programmed[1] + programmed[3].upper(), {"b": 2, "o": 8, "x": 16}[programmed[2]]
    elif match is None:
        return None
    else:
        named = parse_number(match.group(4)) if match.group(4) else None
        if match.group(4) and named is None:
            return None
        digits = match.group(1).replace("(", "").replace(")", "")
        base = int(match.group(2) or match.group(3) or named.value)  # type: ignore[union-attr]
    spelled = base == 16 and programmed is None and match is not None and match.group(2) and len(digits) > 1
    if not 2 <= base <= 36 or not (programmed or spelled or any(sign.isdigit() for sign in digits)):
        return None
    if any(int(sign, 36) >= base for sign in digits if sign.isalnum()):
        return None
    sign, digits = ("-", digits[1:]) if digits[0] == "-" else ("", digits)
    return sign + (digits.lstrip("0") or "0"), base


def _is_math(answer: Answer) -> bool:
    return answer.kind not in (Kind.TEXT, Kind.BOOLEAN)


def _words(text: str) -> int:
    return len(text.split())


def _matrix(text: str, level: int) -> Answer | None:
    rows = matrix_rows(text)
    if rows is None:
        return None
    parts = tuple(Answer(Kind.TUPLE, "", tuple(_read(entry, level + 2) for entry in row), ("(", ")")) for row in rows)
    return Answer(Kind.MATRIX, text, parts)


def _list(text: str, marks: list[Mark], level: int) -> Answer | None:
    """An unbracketed list: a set of values, or, of words, a sequence."""
    items = list_items(text, marks)
    if items is None:
        return None
    parts = _flat(items, level)
    joined = any(mark.kind == "word" for mark in marks)
    if all(part.kind is Kind.INTERVAL and part.parts for part in parts):
        if len({part.marks for part in parts}) > 1 or (parts[0].marks and any(len(part.parts) > 1 for part in parts)):
            return Answer(Kind.SET, text, parts)  # conditions: "x > 1, y < 3", "x ≠ 1, x ≠ 2"
        if parts[0].marks and any(mark.text == "and" for mark in marks):
            return _overlap(text, parts)
        union = tuple(interval for part in parts for interval in part.parts)
        return Answer(Kind.INTERVAL, text, union, parts[0].marks)  # "x < 1 or x > 3"
    if joined and not all(_is_math(part) or _LABEL.fullmatch(part.text) for part in parts):
        return None  # "black and tan" is text
    return _sequence(text, parts, ())


def _overlap(text: str, parts: tuple[Answer, ...]) -> Answer:
    """The interval of "x > 1 and x < 3"; of other inequalities that hold at once, the set of them."""
    below = [part.parts[0] for part in parts if part.parts[0].parts[0].text == "-\\infty"]
    above = [part.parts[0] for part in parts if part.parts[0].parts[1].text == "\\infty"]
    if len(parts) != 2 or len(below) != 1 or len(above) != 1:
        return Answer(Kind.SET, text, parts)
    ends, brackets = (above[0].parts[0], below[0].parts[1]), (above[0].marks[0], below[0].marks[1])
    return Answer(Kind.INTERVAL, text, (Answer(Kind.INTERVAL, text, ends, brackets),), parts[0].marks)


def _sequence(text: str, parts: tuple[Answer, ...], brackets: tuple[str, ...]) -> Answer | None:
    if all(_is_math(part) for part in parts):
        # "x = 1, -2" names its variable once.
        first = parts[0]
        if first.kind is Kind.EQUATION and (value := named_value(first)) and parts[1].kind is not Kind.EQUATION:
            parts = (value, *parts[1:])
        # A set has no value twice: "1,0,0" answers three questions, in order.
        if len({_key(part) for part in parts}) == len(parts):
            return Answer(Kind.SET, text, parts, brackets)
    elif any(_words(part.text) > 3 for part in parts):
        return Answer(Kind.TEXT, text)
    return Answer(Kind.TUPLE, text, parts, brackets)


def _key(part: Answer) -> str:
    number = parse_number(part.text)
    return normalise(part.text) if number is None else str(number.absolute())


def _flat(items: list[str], level: int) -> tuple[Answer, ...]:
    r"""The items read, with ``a \pm b`` as two values."""
    parts: list[Answer] = []
    for item in items:
        part = _read(item, level + 1)
        parts.extend(part.parts if part.kind is Kind.SET and part.marks == ("\\pm",) else (part,))
    return tuple(parts)


def _plus_minus(text: str, marks: list[Mark], level: int) -> Answer | None:
    signs = both_signs(text)
    if signs is None:
        return None
    parts = tuple(_read(sign, level + 1) for sign in signs)
    return Answer(Kind.SET, text, parts, ("\\pm",)) if all(_is_math(part) for part in parts) else None


def _relation(text: str, marks: list[Mark], level: int) -> Answer | None:
    found = relation(text, marks)
    if found is None:
        return None
    sides, signs = found
    names = [unmarked(side) for side in sides]
    if "~" in signs and names[0].lower() in ("is", "are", "was", "be", "it is"):
        return Answer(Kind.TEXT, text)
    if "~" in signs:
        # The exact value stands before its approximation; a symbol before it only names it.
        about = signs.index("~")
        if about == 0 and (not _SYMBOL.fullmatch(names[0]) or _CONSTANT.fullmatch(names[0])):
            return _read(sides[0], level + 1)
        sides, signs = (sides[:2], ["="]) if about == 0 else (sides[: about + 1], signs[:about])
    if signs == ["in"]:
        value = _read(sides[1], level + 1)
        return value if value.kind in (Kind.INTERVAL, Kind.SET, Kind.TUPLE) and _SYMBOL.fullmatch(names[0]) else None
    if signs == ["!="] and _SYMBOL.fullmatch(names[0]) and _is_math(value := _end(sides[1])):
        low, high = Answer(Kind.EXPRESSION, "-\\infty"), Answer(Kind.EXPRESSION, "\\infty")
        halves = tuple(Answer(Kind.INTERVAL, text, ends, ("(", ")")) for ends in ((low, value), (value, high)))
        return Answer(Kind.INTERVAL, text, halves, (names[0],))
    interval = _inequality(text, names if "~" not in found[1] else [unmarked(side) for side in sides], signs)
    if interval is not None:
        return interval
    parts = tuple(_read(side, level + 1) for side in sides)
    if not all(_is_math(part) or len(part.text) == 1 or _SYMBOL.fullmatch(part.text) for part in parts):
        return Answer(Kind.TEXT, text)
    if signs == ["="] and _SYMBOL.fullmatch(names[0]) and parts[1].kind is Kind.SET and parts[1].marks == ("\\pm",):
        return parts[1]
    return Answer(Kind.EQUATION, text, parts, tuple(signs))


def _inequality(text: str, sides: list[str], signs: list[str]) -> Answer | None:
    """The interval that ``x > 3`` or ``-1 < x <= 2`` describes; its mark is the variable."""
    if not set(signs) <= {"<", "<=", ">", ">="}:
        return None
    if signs[0][0] == ">":
        sides, signs = sides[::-1], [sign.replace(">", "<") for sign in signs[::-1]]
    if any(sign[0] == ">" for sign in signs):
        return None
    middle = 1 if len(sides) == 3 else 0 if _SYMBOL.fullmatch(sides[0]) else 1
    if len(sides) > 3 or not _SYMBOL.fullmatch(sides[middle]):
        return None
    ends = [side for i, side in enumerate(sides) if i != middle]
    if any(re.search(r"(?<![\\A-Za-z])[a-zA-Z](?![a-zA-Z])", end) for end in ends):
        return None  # s^2 < 8r^2: no interval of numbers
    if len(sides) == 3:
        left, right = ends
        brackets = ("[" if signs[0] == "<=" else "(", "]" if signs[1] == "<=" else ")")
    elif middle == 0:
        left, right, brackets = "-\\infty", ends[0], ("(", "]" if signs[0] == "<=" else ")")
    else:
        left, right, brackets = ends[0], "\\infty", ("[" if signs[0] == "<=" else "(", ")")
    values = (_end(left), _end(right))
    if not all(_is_math(value) for value in values):
        return None
    return Answer(Kind.INTERVAL, text, (Answer(Kind.INTERVAL, text, values, brackets),), (sides[middle],))


def _end(text: str) -> Answer:
    if _INFINITE.fullmatch(text):
        return Answer(Kind.EXPRESSION, "-\\infty" if text[0] == "-" else "\\infty")
    return _read(text, MAX_LEVEL)


def _union(intervals: list[Answer], text: str) -> Answer:
    return Answer(Kind.INTERVAL, text, tuple(intervals))


def _cup(text: str, marks: list[Mark], level: int) -> Answer | None:
    cups = [mark for mark in marks if mark.kind == "cup"]
    if not cups or len(cups) > MAX_PARTS:
        return None
    intervals: list[Answer] = []
    for piece in cut(text, cups):
        inner = outside(piece)
        pair = enclosed(piece, inner) if inner else None
        if pair is None:
            return Answer(Kind.INTERVAL, text)  # no more than a union of something
        interval = _interval(piece, pair)
        if interval is None:
            part = _read(piece, level + 1)
            if part.kind is not Kind.SET:
                return Answer(Kind.INTERVAL, text)
            interval = part
        intervals.append(interval)
    if all(interval.kind is Kind.SET for interval in intervals):
        return Answer(Kind.SET, text, tuple(part for each in intervals for part in each.parts), ("\\{", "\\}"))
    return _union(intervals, text)


def _interval(text: str, pair: tuple[str, str, str]) -> Answer | None:
    """One interval, open at either end or not, from a bracketed pair of values."""
    opening, content, closing = pair
    if opening not in "([" or closing not in ")]":
        return None
    items = list_items(content, outside(content) or [])
    if items is None or len(items) != 2:
        return None
    if items[0].startswith("["):
        return None  # rows of a matrix
    ends = (_end(items[0]), _end(items[1]))
    return Answer(Kind.INTERVAL, text, ends, (opening, closing)) if all(_is_math(end) for end in ends) else None


def _bracketed(text: str, marks: list[Mark], level: int) -> Answer | None:
    pair = enclosed(text, marks)
    if pair is None:
        return None
    opening, content, closing = pair
    inner = outside(content)
    if inner is None:
        return None
    if opening == "\\{" and closing == "\\}":
        if re.search(r":|\\mid|\|", content):
            return Answer(Kind.EXPRESSION, text)  # a set described, not listed
        return Answer(Kind.SET, text, _flat(list_items(content, inner) or [content], level), ("\\{", "\\}"))
    if opening == "{":
        return _read(content, level + 1)
    interval = _interval(text, pair)
    if interval is not None and (
        opening + closing != "()" or any(_INFINITE.fullmatch(end.text) for end in interval.parts)
    ):
        return _union([interval], text)
    if opening == "[" and any(mark.text == ";" for mark in inner):
        return _semicolons(text, content, inner, level)
    items = list_items(content, inner)
    if items is None:
        if opening == "(":
            value = _read(content, level + 1)
            return None if value.kind is Kind.EXPRESSION else value
        return Answer(Kind.TUPLE, text, (_read(content, level + 1),) if content else (), (opening, closing))
    parts = tuple(_read(item, level + 1) for item in items)
    if opening == "[" and all(part.kind is Kind.TUPLE or part.kind is Kind.INTERVAL for part in parts):
        rows = [_row(part) for part in parts]
        if all(row is not None for row in rows) and len({len(row.parts) for row in rows if row}) == 1:
            return Answer(Kind.MATRIX, text, tuple(row for row in rows if row))
    if any(_words(part.text) > 3 for part in parts if not _is_math(part)):
        return Answer(Kind.TEXT, text)
    return Answer(Kind.TUPLE, text, parts, (opening, closing))


def _semicolons(text: str, content: str, marks: list[Mark], level: int) -> Answer | None:
    """The matrix of ``[1, 2; 3, 4]``."""
    rows = [
        piece.replace(" ", ", ") if "," not in piece else piece
        for piece in cut(content, [m for m in marks if m.text == ";"])
    ]
    parts = [tuple(_read(item, level + 2) for item in list_items(row, outside(row) or []) or [row]) for row in rows]
    if len({len(part) for part in parts}) != 1:
        return None
    return Answer(Kind.MATRIX, text, tuple(Answer(Kind.TUPLE, "", part, ("[", "]")) for part in parts))


def _row(answer: Answer) -> Answer | None:
    """A row of ``[[1,2],[3,4]]``; a row of two was read as an interval."""
    if answer.kind is Kind.INTERVAL and len(answer.parts) == 1:
        answer = answer.parts[0]
    return answer if answer.marks == ("[", "]") else None


def named_value(answer: Answer) -> Answer | None:
    """The value of ``x = 5``, ``f(x) = 2x`` or ``(x, y) = (3, 4)``; the last of ``A = 2 * 3 = 6``."""
    if answer.kind is not Kind.EQUATION or set(answer.marks) != {"="}:
        return None
    left, right = answer.parts[0], answer.parts[-1]
    if _SYMBOL.fullmatch(left.text) or _NAMED_SIDE.fullmatch(left.text):
        return right
    if left.kind is Kind.TUPLE and right.kind is Kind.TUPLE and all(_SYMBOL.fullmatch(x.text) for x in left.parts):
        return replace(right, parts=by_letter([part.text for part in left.parts], right.parts))
    return left if _SYMBOL.fullmatch(right.text) and left.kind is Kind.NUMBER else None


def by_letter(names: Sequence[str], values: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """The values in the order of their names, where these are letters in a row: of ``y = 1, x = 2`` first the 2."""
    row = "".join(sorted(names))
    if len(names) != len(values) or any(len(name) != 1 for name in names) or row not in ascii_letters:
        return values
    return tuple(value for _, value in sorted(zip(names, values, strict=True), key=lambda pair: pair[0]))


def boolean(text: str) -> bool:
    """The truth value of a BOOLEAN answer's text."""
    return _BOOLEANS[text.casefold().rstrip("!")]
