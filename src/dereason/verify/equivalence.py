r"""Does an answer equal the reference?

The reference's kind (:mod:`dereason.verify.kinds`) decides how they are compared:

choice      the same option, by letter or by text
number      the same rational number, and the answer must be a number too: ``2+2`` and ``2^{2}`` are not 4
quantity    the same magnitude in the same unit, converted where units differ; a bare number, but no percentage, is in
            the reference's unit
boolean     the same truth value; yes is true
set         the same values in any order (a list without brackets too, unless it repeats a value or holds words)
interval    the same ends and brackets; unions in any order; ``x > 3`` is ``(3,\infty)`` and is not ``y > 3``
tuple       the same values in the same order; ``y = 2, x = 1`` is ``(1,2)``
matrix      the same shape and entries; a row or column of n equals an n-tuple
equation    the same sides up to moving terms and a nonzero factor; ``x = 5`` equals 5
expression  the same value; numbers in another base: the same base and digits
text        the same words: case, articles, punctuation and hyphens do not count (:func:`.text.prose_key`)

Whatever the kind, equal normal forms (:func:`.text.normalise`) are equal, and several values are never equal to
one. All of it runs in time and memory bounded by the length; what it cannot decide is left to ``symbolic``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dereason.verify.expressions import parse_expression, same_expression, same_relation, value_of, variables
from dereason.verify.forms import same_form
from dereason.verify.kinds import MAX_LENGTH, Answer, Kind, too_large
from dereason.verify.notation import NotMath, TooHard
from dereason.verify.numbers import Number, parse_number, same_number
from dereason.verify.options import labels, named_option
from dereason.verify.parts import all_of, as_intervals, directed, distinct, in_values
from dereason.verify.reading import based, boolean, kind_of, named_value, read
from dereason.verify.text import DRESS, literal, normalise, signed_name, undressed
from dereason.verify.tolerance import EXACT, Tolerance
from dereason.verify.unit_names import conversion
from dereason.verify.units import Quantity, parse_quantity, same_noun
from dereason.verify.words import as_list, same_words

Symbolic = Callable[[str, str], bool]
# Conversion factors are floating-point numbers (an inch is exactly 2.54 cm; a pint's litres have 12 digits).
UNIT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Whether an answer equals the reference."""

    equal: bool | None
    """None where the rules cannot decide."""
    reason: str
    """Why, in words."""


def compare(
    answer: str,
    reference: str,
    options: Sequence[str] | None = None,
    *,
    symbolic: Symbolic | None = None,
    tolerance: Tolerance = EXACT,
) -> Comparison:
    """Whether an answer equals the reference, and why, in words.

    Args:
        answer: the extracted answer.
        reference: the problem's answer; with options a letter or an option's text.
        options: the choices of a multiple-choice problem, in order (A, B, ...).
        symbolic: says whether two expressions are equal, answer first; it is asked only about single values that
            the rules cannot decide, and its exceptions pass through. Without it, ``equal`` may be None.
        tolerance: how far numbers, and expressions without variables, may be from the reference's.

    A percent sign on one side only is forgiven: ``15%`` equals both 15 and 0.15 (so this one relation is not
    transitive). Every other comparison of numbers is exact.

    Raises:
        ValueError: the reference is empty, or names none of the options; or the reference is so long itself that an
            answer of more than 4,000 characters may equal it.
    """
    if not reference.strip():
        raise ValueError("the reference is empty")
    if options:
        return _choice(answer, reference, options)
    if answer == reference or answer.strip() == reference.strip():
        return _equal(answer, "the same text as", reference)
    number = parse_number(reference)
    if number is not None and not any(sign in reference for sign in _MONEY):
        return _number(answer, reference, number, tolerance)
    wanted = literal(reference)
    if wanted is not None:
        same = (
            literal(answer) == wanted or " ".join(undressed(answer).split()) == wanted or same_form(answer, reference)
        )
        return _equal(answer, "the same signs as", reference) if same else _different(answer, reference)
    if signed_name(answer):
        return _different(answer, reference)  # the reference is none, or it would have been literal
    if normalise(answer) == normalise(reference):
        return _equal(answer, "the same text after normalisation as", reference)
    kind = kind_of(reference)
    if kind in _FORMAL and same_form(answer, reference):
        return _equal(answer, "the same notation as", reference)
    if kind is not Kind.TEXT and too_large(answer, reference):
        return Comparison(False, f"an answer of {len(answer):,} characters is far larger than {_short(reference)}")
    if len(answer) > MAX_LENGTH and kind is not Kind.TEXT:
        raise ValueError(f"the answer has {len(answer):,} characters, more than the {MAX_LENGTH:,} that are compared")
    right = read(reference)
    left = read(answer, right.kind)
    found = _Pair(symbolic, tolerance).same(left, right)
    if found is None:
        return Comparison(None, f"no rule decides whether '{_short(answer)}' is '{_short(reference)}'")
    if found:
        return _equal(answer, _EQUAL.get(right.kind, "equal to"), reference)
    if left.kind is not right.kind and Kind.TEXT in (left.kind, right.kind):
        return Comparison(False, f"'{_short(answer)}' is {_name(left.kind)}; the reference is {_short(reference)}")
    return Comparison(False, f"'{_short(answer)}' is not '{_short(reference)}'")


_FORMAL = frozenset({Kind.TEXT, Kind.EXPRESSION, Kind.EQUATION, Kind.LITERAL})
_EQUAL = {
    Kind.QUANTITY: "the same quantity as",
    Kind.BOOLEAN: "the same truth value as",
    Kind.SET: "the same values as",
    Kind.TEXT: "the same words as",
    Kind.EQUATION: "the same equation as",
    Kind.EXPRESSION: "the same value as",
}
_PAIR = re.compile(r"\A([A-Z])([A-Z])\Z")  # a name by itself, a product beside other terms
_LONG_UNIT = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_ENGINEERS = re.compile(r"(?<![A-Za-z\\])j(?![A-Za-z])")
_TIGHT_UNIT = re.compile(r"([0-9}])\s?([A-Za-z])$")
_SQUARE_ROUND = (("[", "]"), ("(", ")"))


def _name(kind: Kind) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" if kind is not Kind.TEXT else "text"


def _different(answer: str, reference: str) -> Comparison:
    return Comparison(False, f"'{_short(answer)}' is not '{_short(reference)}'")


def _short(text: str, limit: int = 60) -> str:
    flat = " ".join(text[: 4 * limit].split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "\u2026"


def _equal(answer: str, how: str, reference: str) -> Comparison:
    return Comparison(True, f"'{_short(answer)}' is {how} '{_short(reference)}'")


def option_index(text: str, options: Sequence[str]) -> int | None:
    """Which option the text names (0-based): by its letter or its words, or as the one option that it equals.

    None where it names none or more than one.
    """
    found = named_option(text, options)
    if found is not None or len(text) > MAX_OPTION or not any(c.isdigit() or c in "\\^_+*/=" for c in text):
        return found
    return _matching(text, tuple(options))


MAX_OPTION = 200


@lru_cache(maxsize=4096)
def _matching(text: str, options: tuple[str, ...]) -> int | None:
    if read(text).kind is Kind.TEXT:
        return None  # "There are 2" names no option
    equal = []
    for i, option in enumerate(labels(options)):
        try:
            if option.strip() and len(option) <= MAX_OPTION and compare(text, option).equal:
                equal.append(i)
        except ValueError:
            continue
    return equal[0] if len(equal) == 1 else None


def _choice(answer: str, reference: str, options: Sequence[str]) -> Comparison:
    wanted = option_index(reference, options)
    if wanted is None:
        raise ValueError(f"the reference '{_short(reference)}' names none of the {len(options)} options")
    given = option_index(answer, options)
    label = chr(ord("A") + wanted)
    if given is None:
        return Comparison(False, f"'{_short(answer)}' names no single option; the reference is {label}")
    if given == wanted:
        return Comparison(True, f"option {label}")
    return Comparison(False, f"option {chr(ord('A') + given)}, not {label}")


_MONEY = "$\u20ac\u00a3\u00a5\u20b9"
# One letter right behind a digit that is a scale as often as a unit: "5K", "5M".
_KELVIN = re.compile(r"(?:\s|~|\\[,;: ])(?:\\(?:text|mathrm)\s?\{\s*)?K\}?[\s$.)]*\Z|\{\s+K\}")
_SCALED = re.compile(r"[0-9]\s?\\?(?:text|mathrm)?\s?\{?[kKMB]\}?\Z")


def _number(answer: str, reference: str, number: Number, tolerance: Tolerance) -> Comparison:
    """Compare with a numeric reference."""
    if answer[:1] == "~" and (answer[-1:] != "~" or answer[1:2] == "~"):
        return _different(answer, reference)  # about so much, or struck out; one tie on each side is typesetting
    given = parse_number(answer)
    if given is None and answer.strip(" ()[]$") == reference.strip():
        given = number  # "(1,234)" is a pair, but not for 1,234
    if given is None or any(sign in answer for sign in _MONEY):
        left = read(answer, Kind.NUMBER)
        value = named_value(left) or left  # "x = 5"
        if value.kind in (Kind.TUPLE, Kind.SET) and len(value.parts) == 1:
            value = value.parts[0]  # "[5]"
        given = parse_number(value.text) if value.kind is Kind.NUMBER else None
        if value.quantity is not None and (_SCALED.search(value.text) is None or _KELVIN.search(answer)):
            given = _bare(value.quantity, number)
        if given is None and number.value.denominator != 1:
            given = parse_number(answer, decimal_comma=True)
    if given is None and tolerance and (worked := _value(read(answer, Kind.NUMBER).text)) is not None:
        near = tolerance.allows(worked, number.absolute())  # \sqrt{2} for 1.414
        return _equal(answer, "near enough to", reference) if near else _different(answer, reference)
    if given is None:
        return Comparison(False, f"'{_short(answer)}' is not one number; the reference is {_short(reference)}")
    why = near_number(given, number, tolerance)
    if why is None:
        return Comparison(False, f"'{_short(answer)}' is not '{_short(reference)}'")
    return _equal(answer, f"{why} as", reference)


def near_number(answer: Number, reference: Number, tolerance: Tolerance) -> str | None:
    """Why two numbers are equal within a tolerance, in words, or None."""
    why = same_number(answer, reference)
    if why is None and tolerance:
        pairs = [(answer.absolute(), reference.absolute())]
        pairs += [(answer.value, reference.value)] if answer.percent != reference.percent else []
        why = "near enough to be the same number" if any(tolerance.allows(a, b) for a, b in pairs) else None
    return why


def _bare(quantity: Quantity, wanted: Number) -> Number | None:
    """The number of an answer whose unit the reference leaves out."""
    given = parse_number(quantity.magnitude)
    if given is not None and wanted.percent and not given.percent:
        return None  # 5 cm is not 5%
    return given


class _Pair:
    """Compares answers that were taken apart; ``symbolic`` decides about single values."""

    def __init__(self, symbolic: Symbolic | None, tolerance: Tolerance) -> None:
        self.symbolic = symbolic
        self.tolerance = tolerance

    def same(self, answer: Answer, reference: Answer) -> bool | None:
        kind = reference.kind
        if kind is Kind.EQUATION:
            return self.equation(answer, reference)
        answer = named_value(answer) or answer
        if kind in (Kind.SET, Kind.TUPLE, Kind.INTERVAL, Kind.MATRIX):
            return self.structure(answer, reference)
        if answer.kind is Kind.TUPLE and len(answer.parts) == 1:
            answer = answer.parts[0]  # "[thursday]"
        if kind is Kind.TEXT:
            return same_words(answer.text, reference.text)
        if kind is Kind.BOOLEAN:
            return answer.kind is Kind.BOOLEAN and boolean(answer.text) == boolean(reference.text)
        if kind is Kind.NUMBER:
            number, given = parse_number(reference.text), parse_number(answer.text)
            if given is None and answer.quantity is not None:
                given = parse_number(answer.quantity.magnitude)
            if given is None and number is not None and self.tolerance:
                return self.near(answer.text, reference.text)
            return number is not None and given is not None and self.close(given, number)
        if kind is Kind.QUANTITY:
            return self.quantity(answer, reference)
        return self.expression(answer, reference)

    def structure(self, answer: Answer, reference: Answer) -> bool | None:
        if reference.kind is Kind.MATRIX:
            return self.matrix(answer, reference)
        if answer.kind is Kind.MATRIX:
            return self.matrix(reference, answer, swapped=True)
        if Kind.INTERVAL in (reference.kind, answer.kind):
            if answer.kind is reference.kind and answer.marks and reference.marks and answer.marks != reference.marks:
                return False  # x > 3 is not y > 3
            left, right = as_intervals(answer), as_intervals(reference)
            if left is not None and right is not None:
                return self.matched(left, right, self.interval)
            # Described in another way ("x ≠ 3"), or no interval at all.
            other = answer if right is not None else reference
            described = other.kind is Kind.INTERVAL or _opaque(other)
            return self.ask(answer.text, reference.text) if described else False
        if answer.kind not in (Kind.SET, Kind.TUPLE):
            if (listed := as_list(answer, reference)) is not None:
                return self.structure(listed, reference)
            if len(reference.parts) == 1:
                return self.same(answer, reference.parts[0])
            return self.ask(answer.text, reference.text) if _opaque(answer) else False
        braces = [side.marks[:1] == ("\\{",) for side in (answer, reference)]
        brackets = [bool(side.marks) and side.kind is Kind.TUPLE for side in (answer, reference)]
        if (braces[0] and brackets[1]) or (braces[1] and brackets[0]):
            return False
        # (2,4] and (2,4) differ; lists of words or of more values are written with either bracket.
        pair = len(reference.parts) == 2 and reference.parts[0].kind is not Kind.TEXT
        if all(brackets) and pair and (answer.marks, reference.marks) in (_SQUARE_ROUND, _SQUARE_ROUND[::-1]):
            return False
        if Kind.TUPLE in (answer.kind, reference.kind) and not any(braces):
            return self.in_order(in_values(answer), in_values(reference))
        return self.matched(distinct(answer, braces[0]), distinct(reference, braces[1]), self.same)

    def in_order(self, left: tuple[Answer, ...], right: tuple[Answer, ...]) -> bool | None:
        if len(left) != len(right):
            return False
        return all_of(self.same(a, b) for a, b in zip(left, right, strict=True))

    def matched(
        self, left: Sequence[Answer], right: Sequence[Answer], same: Callable[[Answer, Answer], bool | None]
    ) -> bool | None:
        """Whether each of the right has its equal on the left and none is left over."""
        if len(left) != len(right):
            return False
        rest = list(left)
        undecided = False
        for wanted in right:
            doubtful = None
            for i, given in enumerate(rest):
                result = same(given, wanted)
                if result:
                    del rest[i]
                    break
                if result is None and doubtful is None:
                    doubtful = i
            else:
                if doubtful is None:
                    return False
                undecided = True
        return None if undecided else True

    def interval(self, left: Answer, right: Answer) -> bool | None:
        if left.kind is Kind.SET or right.kind is Kind.SET:
            return left.kind is right.kind and self.same(left, right)
        return left.marks == right.marks and self.in_order(left.parts, right.parts)

    def matrix(self, answer: Answer, matrix: Answer, *, swapped: bool = False) -> bool | None:
        rows = matrix.parts
        if answer.kind is Kind.MATRIX:
            if len(answer.parts) != len(rows):
                return False
            return all_of(self.in_order(a.parts, b.parts) for a, b in zip(answer.parts, rows, strict=True))
        entries = tuple(entry for row in rows for entry in row.parts)
        if answer.kind is Kind.INTERVAL and len(answer.parts) == 1 and answer.parts[0].marks == ("[", "]"):
            answer = answer.parts[0]
        if answer.kind not in (Kind.TUPLE, Kind.INTERVAL) or len(entries) != max(len(rows), len(rows[0].parts)):
            return self.ask(answer.text, matrix.text) if _opaque(answer) else False
        pair = (entries, answer.parts) if swapped else (answer.parts, entries)
        return self.in_order(*pair)

    def equation(self, answer: Answer, reference: Answer) -> bool | None:
        if answer.kind is not Kind.EQUATION:
            value = named_value(reference)
            if value is not None:
                return self.same(answer, value)
            return self.ask(answer.text, reference.text) if _opaque(answer) else False
        left, right = directed(answer), directed(reference)
        if left[1] != right[1]:
            return False
        if len(right[0]) != 2:
            return self.in_order(left[0], right[0])
        if right[1] == ("=",) and [normalise(s.text) for s in left[0]] == [normalise(s.text) for s in right[0][::-1]]:
            return True
        # Both name a value: "x = 5" is not "y = 5", and 5 is compared as the kind of value that it is.
        if right[1] == ("=",) and left[0][0].text == right[0][0].text and named_value(reference) is not None:
            return self.same(left[0][1], right[0][1])
        try:
            sides = [
                tuple(parse_expression(_PAIR.sub(r"\1 \2", side.text)) for side in pair) for pair in (left[0], right[0])
            ]
        except NotMath:
            return False
        except TooHard:
            return self.ask(answer.text, reference.text)
        result = same_relation((sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]), ordered=right[1][0] != "=")
        return self.ask(answer.text, reference.text) if result is None else result

    def quantity(self, answer: Answer, reference: Answer) -> bool | None:
        wanted, given = reference.quantity, answer.quantity
        if wanted is None:
            return False
        if given is None:  # "5m" is a product, but not where a quantity is asked for
            given = parse_quantity(_TIGHT_UNIT.sub(rf"\1 {DRESS}\2", answer.text))
        if given is None:
            number = parse_number(answer.text)
            if number is not None:
                return not number.percent and self.magnitude(answer.text, wanted.magnitude)
            if answer.kind is not Kind.EXPRESSION or wanted.unit == (("degree", 1),):
                return answer.kind is Kind.EXPRESSION and self.magnitude(answer.text, wanted.magnitude)
            formula = _LONG_UNIT.search(reference.text) is None and self.value(answer.text, reference.text)
            return formula or self.magnitude(answer.text, wanted.magnitude)
        if given.unit == wanted.unit or same_noun(given.unit, wanted.unit):
            return self.magnitude(given.magnitude, wanted.magnitude)
        factors = conversion(given.unit, wanted.unit)
        if factors is None:
            return False
        numeric = parse_number(wanted.magnitude), parse_number(given.magnitude)
        if numeric[0] is not None and numeric[1] is None and "\\pi" not in given.magnitude:
            return False  # a number must be given as a number, but half a turn is \pi radians
        values = [_value(side.magnitude) for side in (given, wanted)]
        if values[0] is None or values[1] is None:
            return False
        converted = values[0] * factors[0] + factors[1]
        if self.tolerance and self.tolerance.allows(converted, values[1]):
            return True
        return abs(converted - values[1]) <= UNIT_TOLERANCE * max(abs(converted), abs(values[1]), abs(factors[1]))

    def magnitude(self, answer: str, reference: str) -> bool | None:
        number = parse_number(reference)
        if number is None:
            return self.value(answer, reference)
        given = parse_number(answer)
        if given is None and number.value.denominator != 1:
            given = parse_number(answer, decimal_comma=True)
        if given is None and self.tolerance:
            return self.near(answer, reference)
        return given is not None and self.close(given, number)

    def close(self, given: Number, wanted: Number) -> bool:
        return near_number(given, wanted, self.tolerance) is not None

    def near(self, answer: str, reference: str) -> bool:
        """Whether two values without variables are equal within the tolerance."""
        given, wanted = _value(answer), _value(reference)
        return given is not None and wanted is not None and self.tolerance.allows(given, wanted)

    def expression(self, answer: Answer, reference: Answer) -> bool | None:
        bases = based(answer.text), based(reference.text)
        if any(bases):
            return bases[0] == bases[1]
        if answer.quantity is not None:
            return self.value(answer.text, reference.text) or self.value(answer.quantity.magnitude, reference.text)
        if answer.kind in (Kind.NUMBER, Kind.EXPRESSION):
            return self.value(answer.text, reference.text)
        # "\emptyset", or an interval for \mathbb{R} \setminus \{0\}.
        described = answer.kind is Kind.INTERVAL and _opaque(reference)
        empty = answer.kind is Kind.SET and not answer.parts
        return self.ask(answer.text, reference.text) if described or empty else False

    def value(self, answer: str, reference: str) -> bool | None:
        """Compare two single values."""
        if normalise(answer) == normalise(reference):
            return True
        if _IMAGINARY.search(reference) and not _ENGINEERS.search(reference) and not _IMAGINARY.search(answer):
            answer = _ENGINEERS.sub("i", answer)
        if self.tolerance and self.near(answer, reference):
            return True
        try:
            result = same_expression(parse_expression(_plain(answer)), parse_expression(_plain(reference)))
        except NotMath:
            return False
        except TooHard:
            result = None
        return self.ask(answer, reference) if result is None else result

    def ask(self, answer: str, reference: str) -> bool | None:
        return None if self.symbolic is None else self.symbolic(answer, reference)


def _opaque(answer: Answer) -> bool:
    """Whether an answer is mathematics that only a computer-algebra system can take apart."""
    if answer.kind is not Kind.EXPRESSION:
        return False
    try:
        parse_expression(answer.text)
    except TooHard:
        return True
    except NotMath:  # a number in another base
        return False
    return False


def _plain(text: str) -> str:
    """A number in a form that the parser of expressions reads (mixed numbers, percentages, words)."""
    number = parse_number(text)
    if number is None or re.fullmatch(r"-?[0-9.]+", text):
        return text
    value = number.absolute()
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _value(text: str) -> float | None:
    number = parse_number(text)
    try:
        if number is not None:
            return float(number.absolute())
        node = parse_expression(text).node
        found = None if variables(node) else value_of(node)
    except (NotMath, TooHard, OverflowError):
        return None
    return found[0].real if found is not None and found[0].imag == 0 else None
