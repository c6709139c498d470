r"""Numbers as they are written, as exact rationals.

Understood: integers, decimals, ``a/b``, ``\frac{a}{b}``, mixed numbers, repeating decimals
(``0.\overline{3}``), ``3e5``, ``3 \times 10^{5}`` and ``10^5``, a percent sign, a currency sign, number words
("forty-two", "two thirds"), "5 million"; digits of any script. 0.1 + 0.2 is 0.3 here, and 1/3 is not 0.333.

Separators are read as English where that is possible: ``1,234`` is 1234 and ``1.234`` is a little over one.
Other formats are understood where they can mean only one thing: ``1.234,56``, ``1.234.567``, ``1 234,56``,
``1'234.56``, ``12,34,567``. ``3,14`` is a number only for a caller who asks for it (``decimal_comma``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from dereason.verify.text import as_latex

# Longer digit strings and larger exponents are compared as text: turning them into integers costs quadratic
# time (and Python itself refuses beyond 4300 digits).
MAX_NUMBER_LENGTH = 1000
MAX_EXPONENT = 1000

_CURRENCY = "$\u20ac\u00a3\u00a5\u20b9"
_SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}
_INTEGER = r"""(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}
    |[1-9][0-9]{0,2}(?:[ '][0-9]{3})+|[0-9]+)"""
_DECIMAL = rf"""(?:
      (?P<continental>[1-9][0-9]{{0,2}}(?:(?:[. '][0-9]{{3}})+,[0-9]+|(?:\.[0-9]{{3}}){{2,}}))
    | (?P<repeating>[0-9]+\.[0-9]*)\\(?:overline|dot|bar)\s?(?:\{{(?P<repeated>[0-9]+)\}}|(?P<repeats>[0-9]))
        |(?P<brackets>[0-9]+\.)\((?P<bracketed>[0-9]+)\)
    | (?P<decimal>{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)
)"""
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?:[-+\u2013]|(?:[Mm]inus|[Nn]egative)\s)?)\s*\\?[{_CURRENCY}]?\s*
    (?:
        (?:(?P<whole>[0-9]+)\s*)?
        \\frac\s*(?:\{{\s*(?P<numerator>[-+]?{_INTEGER})\s*\}}|(?P<digit>[0-9]))
              \s*(?:\{{\s*(?P<denominator>-?{_INTEGER})\s*\}}|(?P<under>[0-9]))
      | (?:(?P<mixed>[0-9]+)\s+(?:and\s)?)?(?P<top>{_INTEGER})\s*/\s*(?P<bottom>{_INTEGER})
      | (?:{_DECIMAL}\s*(?:\\times|\\cdot|[*xX])\s*)?10\s*(?:\^|\*\*)\s*[({{]?\s*(?P<power>[-+]?[0-9]{{1,5}})\s*[)}}]?
      | {_DECIMAL.replace("P<", "P<b_")}(?:[eE](?P<exponent>[-+]?[0-9]{{1,5}})|\s+(?P<scale>{"|".join(_SCALES)})s?)?
    )
    \s*(?:[{_CURRENCY[1:]}]|(?P<percent>%|percent(?:age)?|per\ cent))?
    """,
    re.VERBOSE,
)
# "-{5}", and digits grouped as programs do: 1_000_000.
_GROUPED = re.compile(r"^([-+]?\s*)\{\s*([0-9][0-9.,]*)\s*\}$")
_UNDERSCORED = re.compile(r"-?[0-9]{1,3}(?:_[0-9]{3})+")
_DECIMAL_COMMA = re.compile(r"([-+\u2013]?)\s*([0-9]+),([0-9]+)\s*(%?)")

_UNITS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen",
)
_TENS = re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety")
_SMALL = {word: i for i, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_PARTS = {"half": 2, "halve": 2, "quarter": 4} | {
    word: i for i, word in enumerate(re.findall(r"\w+", "third fourth fifth sixth seventh eighth ninth tenth"), 3)
}
_WORDS = re.compile(r"[a-z]+(?:[\s-]+[a-z]+){0,15}", re.IGNORECASE)


@dataclass(frozen=True)
class Number:
    """An exact number as it was written."""

    value: Fraction
    """The number before its percent sign, if it has one: 15 for ``15%``."""
    percent: bool
    """Whether a percent sign follows it."""

    def absolute(self) -> Fraction:
        """The number with its percent sign worked in: 3/20 for ``15%``."""
        return self.value / 100 if self.percent else self.value


def parse_number(text: str, *, decimal_comma: bool = False) -> Number | None:
    """The number that the whole text is, or None where it is anything else.

    Args:
        text: the text, with or without markup.
        decimal_comma: whether ``3,14`` is a number too.

    None too for a zero denominator, for more than 1000 characters and for an exponent beyond ±1000.
    """
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    return _parse(text, decimal_comma)


@lru_cache(maxsize=4096)
def _parse(text: str, decimal_comma: bool) -> Number | None:
    if text.isascii() and text.isdigit():
        return Number(Fraction(int(text)), False)
    bare = as_latex(text)
    while len(bare) > 2 and (bare[0] + bare[-1]) in ("()", "{}") and "," not in bare and "(" not in bare[1:]:
        bare = bare[1:-1].strip()
    if "{" in bare or "_" in bare:
        bare = _GROUPED.sub(r"\1\2", bare)
        bare = bare.replace("_", "") if _UNDERSCORED.fullmatch(bare) else bare
    match = _NUMBER.fullmatch(bare)
    if match is not None:
        return _from_match(match.groupdict())
    if decimal_comma and (match := _DECIMAL_COMMA.fullmatch(bare)) is not None:
        sign, whole, rest, percent = match.groups()
        value = Fraction(f"{whole}.{rest}")
        return Number(-value if sign in ("-", "\u2013") else value, bool(percent))
    return _from_words(bare) or _from_chinese(bare)


_HAN = {sign: i for i, sign in enumerate("\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d")} | {
    "\u4e24": 2,
    "\u3007": 0,
}
_HAN_TENS = {"\u5341": 10, "\u767e": 100, "\u5343": 1000}


def _from_chinese(text: str) -> Number | None:
    """Chinese numerals below 10,000: \u56db\u5341\u4e8c is 42."""
    if not 1 <= len(text) <= 8 or any(sign not in _HAN and sign not in _HAN_TENS for sign in text):
        return None
    total, digit = 0, 0
    for sign in text:
        if sign in _HAN:
            digit = _HAN[sign]
        else:
            total, digit = total + (digit or 1) * _HAN_TENS[sign], 0
    return Number(Fraction(total + digit), False)


def _from_match(part: dict[str, str | None]) -> Number | None:
    power = part["power"] or part["exponent"]
    exponent = int(power or 0) + _SCALES.get(part["scale"] or "", 0)
    top, bottom = (
        part["top"] or part["numerator"] or part["digit"],
        part["bottom"] or part["denominator"] or part["under"],
    )
    if abs(exponent) > MAX_EXPONENT:
        return None
    if top is not None and bottom is not None:
        whole = part["mixed"] or part["whole"]
        over, under = _integer(top), _integer(bottom)
        if under == 0 or (whole is not None and over * under < 0):
            return None
        value = int(whole or 0) + Fraction(over, under)
    else:
        value = _decimal(part, "" if part["power"] else "b_") * Fraction(10) ** exponent
    return Number(value if part["sign"] in ("", "+") else -value, part["percent"] is not None)


def _integer(text: str) -> int:
    return int(text.replace(",", "").replace(" ", "").replace("'", ""))


def _decimal(part: dict[str, str | None], prefix: str) -> Fraction:
    """The mantissa of a match; 1 where there is none (``10^5``)."""
    continental, decimal = part[prefix + "continental"], part[prefix + "decimal"]
    if continental is not None:
        whole, _, rest = continental.partition(",")
        return Fraction(f"{whole.replace('.', '').replace(' ', '').replace(chr(39), '')}.{rest or 0}")
    head = part[prefix + "repeating"] or part[prefix + "brackets"]
    repeated = part[prefix + "repeated"] or part[prefix + "repeats"] or part[prefix + "bracketed"]
    if head is not None and repeated is not None:
        places = len(head) - head.index(".") - 1
        return Fraction(head.rstrip(".")) + Fraction(int(repeated), 10**places * (10 ** len(repeated) - 1))
    if decimal is None:
        return Fraction(1)
    return Fraction(decimal.replace(",", "").replace(" ", "").replace("'", "").rstrip("."))


def _from_words(text: str) -> Number | None:
    r"""Number words in English, zero to 999 trillion, and simple fractions; "and" may stand before the tens."""
    if len(text) > 200 or _WORDS.fullmatch(text) is None:
        return None
    words = text.lower().replace("-", " ").split()
    if words[-1] == "percent" and len(words) > 1:
        found = _from_words(" ".join(words[:-1]))
        return None if found is None or found.percent else Number(found.value, True)
    sign = 1
    if words[0] in ("minus", "negative") and len(words) > 1:
        sign, words = -1, words[1:]
    part = _PARTS.get(words[-1].removesuffix("s"))
    if part is not None:
        count = _count(words[:-1]) if len(words) > 1 else 1 if words[-1] in ("half", "quarter") else None
        return None if count is None else Number(sign * Fraction(count, part), False)
    whole = _count(words)
    return None if whole is None else Number(Fraction(sign * whole), False)


def _count(words: list[str]) -> int | None:
    total, rest = 0, words
    for name, power in (("trillion", 12), ("billion", 9), ("million", 6), ("thousand", 3)):
        if name in rest:
            at = rest.index(name)
            group = _hundreds(rest[:at])
            if not group:
                return None
            total, rest = total + group * 10**power, rest[at + 1 :]
    if total and not rest:
        return total
    if total and rest[0] == "and":
        rest = rest[1:]
    last = _hundreds(rest)
    return None if last is None or (total and not last) else total + last


def _hundreds(words: list[str]) -> int | None:
    """A number below 1000: "two hundred and five", "forty two", "seven"."""
    total = 0
    if len(words) > 1 and words[1] == "hundred":
        total = 100 * _SMALL.get(words[0], 0)
        words = words[2:]
        if not 100 <= total <= 900:
            return None
        if not words:
            return total
        if words[0] == "and":
            words = words[1:]
    if len(words) == 1 and words[0] in _SMALL:
        return total + _SMALL[words[0]]
    if len(words) == 2 and words[0] in _TENS and 1 <= _SMALL.get(words[1], 0) <= 9:
        return total + _SMALL[words[0]] + _SMALL[words[1]]
    return None


def same_number(a: Number, b: Number) -> str | None:
    """Why two numbers are equal, in words, or None."""
    if a.absolute() == b.absolute():
        return "the same number"
    # "What percentage ...?" has the reference 15 in many sources, and 15% for an answer.
    if a.percent != b.percent and a.value == b.value:
        return "the same number apart from the percent sign"
    return None
