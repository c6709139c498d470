r"""Does an answer equal the reference?

Compared, in this order:

1. *choices* (where the problem has options): by letter, or by the option's text;
2. *numbers*: integers, decimals, ``a/b``, ``\frac{a}{b}``, mixed numbers, ``e`` notation and percentages, as
   exact rationals; 0.1 + 0.2 is 0.3 here, and 1/3 is not 0.333;
3. *everything else*: as text, after :func:`normalise`.

Not handled yet, so compared only as normalised text: symbolic expressions (``2x+x`` is not ``3x``,
``\sqrt{4}`` is not ``2``), units (``3 m`` is not ``300 cm``), sets, tuples and intervals (``{1,2}`` is not
``{2,1}``), matrices, equations, dates, and number formats other than English. A hedge or a list ("4 or 5",
"4, 5") equals neither member.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

# Longer digit strings and larger exponents are compared as text: turning them into integers costs quadratic
# time (and Python itself refuses beyond 4300 digits).
MAX_NUMBER_LENGTH = 1000
MAX_EXPONENT = 1000

_MARKUP = re.compile(
    r"""
    (?P<wrap>\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox|hbox|operatorname|emph|boxed|fbox)\s*\{)
    | (?P<drop>\\(?:left|right|displaystyle|textstyle|quad|qquad|bigl?|bigr?|Bigl?|Bigr?)(?![A-Za-z])
        | \\[!,;:>()\[\]] | \\?\$ | \*\* | __ | `)
    | (?P<space>\\[ ] | ~)
    | (?P<frac>\\[dtc]frac(?![A-Za-z]))
    | (?P<comma>\{,\})
    | (?P<keep>\\%)
    | \\. | [{}]
    """,
    re.VERBOSE | re.DOTALL,
)
_SIGNS = str.maketrans({"\u2212": "-", "\ufe63": "-", "\uff0d": "-", "\u2019": "'", "\u2018": "'"})
_CURRENCY = "$\u20ac\u00a3\u00a5"

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+\u2013]?)\s*[{_CURRENCY}]?\s*
    (?:
        (?:(?P<whole>[0-9]+)\s*)?
        \\frac\s*(?:\{{\s*(?P<numerator>-?[0-9]+)\s*\}}|(?P<digit>[0-9]))
              \s*(?:\{{\s*(?P<denominator>[0-9]+)\s*\}}|(?P<under>[0-9]))
      | (?:(?P<mixed>[0-9]+)\s+)?(?P<top>{_INTEGER})\s*/\s*(?P<bottom>{_INTEGER})
      | (?P<decimal>{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exponent>[-+]?[0-9]{{1,5}}))?
    )
    \s*(?P<percent>%|percent|per\ cent)?
    """,
    re.VERBOSE,
)
_COMMAND_OR_WORD = re.compile(r"\\[A-Za-z]+|[^\W\d_]{2,}")
_SPACE_BY_SYMBOL = re.compile(r"(?<=[^\w\s]) | (?=[^\w\s])")
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?")
_LABELLED = re.compile(r"(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Z])[).:])\s*(\S.*)", re.DOTALL)


def strip_markup(text: str) -> str:
    r"""The text without the dress of LaTeX and Markdown.

    Removes ``\text{}`` and its like (the content stays), ``$``, ``\( \)``, ``\left``, ``\right``, thin
    spaces, bold marks, back-quotes, outer quotes and closing punctuation. One pass, linear in the length, no
    recursion.
    """
    out: list[str] = []
    dropped: list[bool] = []  # for each brace that is open: was its opening removed?
    position = 0
    for match in _MARKUP.finditer(text):
        out.append(text[position : match.start()])
        position = match.end()
        kind, token = match.lastgroup, match.group()
        if kind == "wrap":
            dropped.append(True)
            out.append(" ")  # "15\text{cm}" must not become one word
        elif kind == "space":
            out.append(" ")
        elif kind == "frac":
            out.append("\\frac")
        elif kind == "comma":
            out.append(",")
        elif kind == "keep":
            out.append("%")
        elif token == "{":
            dropped.append(False)
            out.append(token)
        elif token == "}":
            if not (dropped and dropped.pop()):
                out.append(token)
        elif kind != "drop":
            out.append(token)
    out.append(text[position:])
    bare = "".join(out).strip(" \t\r\n\f\v\u00a0*_").lstrip(":").rstrip(".,;: \t\r\n*_\u3002").strip()
    if len(bare) > 1 and (bare[0] + bare[-1]) in ('""', "''", "\u201c\u201d"):
        bare = bare[1:-1].strip().rstrip(".,;:")
    return bare


def normalise(text: str) -> str:
    r"""The text as it is compared.

    Markup stripped, one form of minus and apostrophe, spaces collapsed (and removed by symbols: ``(3, 4)``
    is ``(3,4)``), words of two letters or more in lower case (single letters keep theirs: *n* is not *N*),
    one pair of parentheses around a single letter removed (``(B)`` is ``B``).
    """
    bare = " ".join(strip_markup(unicodedata.normalize("NFC", text)).translate(_SIGNS).split())
    bare = _SPACE_BY_SYMBOL.sub("", bare)
    bare = _COMMAND_OR_WORD.sub(lambda m: m.group() if m.group()[0] == "\\" else m.group().casefold(), bare)
    if len(bare) == 3 and bare[0] == "(" and bare[2] == ")" and bare[1].isalpha():
        return bare[1]
    return bare


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


def parse_number(text: str) -> Number | None:
    """The number that the whole text is, or None where it is anything else.

    None too for a zero denominator, for more than 1000 characters and for an exponent beyond ±1000.
    """
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    match = _NUMBER.fullmatch(strip_markup(text).translate(_SIGNS))
    if match is None:
        return None
    part = match.groupdict()
    if part["decimal"] is not None:
        exponent = int(part["exponent"] or 0)
        if abs(exponent) > MAX_EXPONENT:
            return None
        value = Fraction(part["decimal"].replace(",", "").rstrip(".")) * Fraction(10) ** exponent
    else:
        top = int((part["top"] or part["numerator"] or part["digit"]).replace(",", ""))
        bottom = int((part["bottom"] or part["denominator"] or part["under"]).replace(",", ""))
        whole = part["mixed"] or part["whole"]
        if bottom == 0 or (whole is not None and top < 0):
            return None
        value = int(whole or 0) + Fraction(top, bottom)
    return Number(-value if part["sign"] in ("-", "\u2013") else value, part["percent"] is not None)


def is_numeric(reference: str) -> bool:
    """Whether the reference is one number, so that answers are compared as exact rationals."""
    return parse_number(reference) is not None


def _same_number(a: Number, b: Number) -> str | None:
    if a.absolute() == b.absolute():
        return "the same number"
    # "What percentage ...?" has the reference 15 in many sources, and 15% for an answer.
    if a.percent != b.percent and a.value == b.value:
        return "the same number apart from the percent sign"
    return None


def _same(a: str, b: str) -> str | None:
    """Why two texts are equal, in words, or None."""
    if a == b:
        return "the same text"
    number_a, number_b = parse_number(a), parse_number(b)
    if number_a is not None and number_b is not None:
        return _same_number(number_a, number_b)
    return "the same text after normalisation" if normalise(a) == normalise(b) else None


def option_index(text: str, options: Sequence[str]) -> int | None:
    """Which option the text names (0-based), or None where it names none or more than one.

    Understood: a letter alone (``B``, ``(b)``), a letter with its option's text or the beginning of it
    (``B. LIFO memory``), or an option's text alone. Where an option's text is itself a single letter, the
    letter is read as a label.
    """
    bare = strip_markup(text)
    letter = _LETTER.fullmatch(bare)
    if letter is not None:
        index = ord(letter.group(1).upper()) - ord("A")
        if index < len(options):
            return index
    labelled = _LABELLED.fullmatch(bare)
    if labelled is not None:
        index = ord((labelled.group(1) or labelled.group(2)).upper()) - ord("A")
        rest = labelled.group(3)
        # "A. 5 or B. 6" names two options; only the option's own text may follow a label.
        if index < len(options) and (
            _same(rest, options[index]) or normalise(options[index]).startswith(normalise(rest))
        ):
            return index
    by_text = [i for i, option in enumerate(options) if _same(bare, option)]
    return by_text[0] if len(by_text) == 1 else None


def _short(text: str, limit: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "\u2026"


def equivalent(answer: str, reference: str, options: Sequence[str] | None = None) -> tuple[bool, str]:
    """Whether an answer equals the reference, and why, in words.

    Args:
        answer: the extracted answer.
        reference: the problem's answer; with options a letter or an option's text.
        options: the choices of a multiple-choice problem, in order (A, B, ...).

    A percent sign on one side only is forgiven: ``15%`` equals both 15 and 0.15 (so this one relation is not
    transitive). Every other comparison is exact.

    Raises:
        ValueError: the reference is empty, or names none of the options.
    """
    if not reference.strip():
        raise ValueError("the reference is empty")
    if options:
        wanted = option_index(reference, options)
        if wanted is None:
            raise ValueError(f"the reference '{_short(reference)}' names none of the {len(options)} options")
        given = option_index(answer, options)
        label = chr(ord("A") + wanted)
        if given is None:
            return False, f"'{_short(answer)}' names no single option; the reference is {label}"
        if given == wanted:
            return True, f"option {label}"
        return False, f"option {chr(ord('A') + given)}, not {label}"
    why = _same(answer, reference)
    if why is not None:
        return True, f"'{_short(answer)}' is {why} as '{_short(reference)}'"
    if is_numeric(reference) and not is_numeric(answer):
        return False, f"'{_short(answer)}' is not one number; the reference is {_short(reference)}"
    return False, f"'{_short(answer)}' is not '{_short(reference)}'"
