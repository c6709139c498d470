r"""Quantities: a number or an expression with a unit after it, or an amount of money.

Units of measure are pint's own, currencies babel's. A text is looked up in their tables, never computed by them.
A symbol of one letter is a unit only behind a plain number or in unit dress (``\text{ m}``): ``2 \pi r h`` is a
formula.
Anything else after a number ("ways", "right triangles") is a noun: it is compared in the singular, and words before it
may be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from dereason.verify.numbers import Number, parse_number
from dereason.verify.text import DRESS, MONEY, unmarked

if TYPE_CHECKING:
    pass

from dereason.verify.unit_names import Unit, coin, conversion, unit_names

MAX_UNIT_LENGTH = 60
MAX_UNIT_POWER = 6
_SHORT_UNITS = frozenset(
    re.findall(
        r"\S+",
        """mg ms ml hp pc lm gm mh ha ps ns as at cd mA mM Gm Pm Mm mT Gs Ts""",
    )
)
_SIGNS = {MONEY: "USD", "\u20ac": "EUR", "\u00a3": "GBP", "\u00a5": "JPY", "\u20b9": "INR", "\u20a9": "KRW",
          "\u20bd": "RUB", "\u20ba": "TRY", "\u20ab": "VND"}  # fmt: skip
SIGNS = "".join(_SIGNS)
"""The signs of currencies."""
# Two letters right after a digit ("5cm") are a unit only if no one would take them for a product of variables.
_TIGHT = re.compile(r"[ckm]m|kg|m[lL]|ft|lbs?|oz|in|mi|yd|hrs?|k[NWJV]|kPa|k?Hz|k?eV|m[sg]|MPa|min|mol|mph|h|[KMG]B")
# Products of one-letter units that nobody takes for variables: "5 N m", "5 C m", "2 kg m^2"; not "2 m g".
_KNOWN_PRODUCT = re.compile(
    r"[NJWVATC] [msh]|Pa s|k?W h|A h|kg m|kg m s|N s m|k?J K|k?J mol K|k?J mol|k?N m|W m K|kg K s"
)
_CANDIDATE = re.compile(
    rf"{DRESS}?(?:(?<![\\A-Za-z_\u00c5])[A-Za-z\u00c5\u03a9][A-Za-z\u03a9]*|\^\s?\{{?\s?\\circ|\\circ"
    rf"|[\u20ac\xa2'\u2032\u2033\"])"
)
_LEADING = re.compile(
    rf"(?P<sign>[-+]?)\s?(?:[A-Z]{{1,2}})?[{SIGNS}]\s?(?P<inner>[-+]?)\s?(?P<number>[0-9][0-9.,' ]*|\.[0-9]+)"
    rf"\s?{DRESS}?\s?(?P<scale>[kKmMbB]n?(?![A-Za-z])|(?:hundred|thousand|million|billion|trillion|lakh|crore)s?(?![a-z]))?"
    rf"\s?(?P<rest>[^0-9]*)\Z"
)
_BEHIND = re.compile(rf"(?P<number>[-+]?\s?[0-9][0-9.,' ]*)\s?(?P<sign>[{SIGNS}])\Z")
_SCALE = {"k": 3, "m": 6, "mn": 6, "b": 9, "bn": 9, "hundred": 2, "thousand": 3, "million": 6, "billion": 9,
          "trillion": 12, "lakh": 5, "crore": 7}  # fmt: skip
_DEGREES = re.compile(
    r"(?:\^\s?\{?\s?\\circ\s?\}?|\\circ|\bdegrees?)(?:\s?\{?\s?([CF])(?:elsius|ahrenheit)?\b\s?\}?)?", re.IGNORECASE
)
_SMALL_O = re.compile(r"(?<=[0-9])\s?\^\s?(?:\{\s?o\s?\}|o(?![A-Za-z]))")
_UNIT_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z\u00c5\u03a9]+(?:-(?:years?|seconds?|lb|hours?))?)\.?(?P<plain>-?[1-4](?![0-9]))?"
    r"|(?P<power>(?:\^|\*\*)\s?\{?\s?(?P<exponent>-?[0-9])\s?\}?)|(?P<over>/)"
    r"|(?P<times>\\cdot|\\times|[*-]))"
)
_FUNCTION = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|ln|log)|(?:sin|cos|tan|log|ln)\b")
_OVER = re.compile(r"\\frac\s?\{\s?([^{}]{1,12})\s?\}\s?\{\s?([A-Za-z\u2060][^{}]{0,16})\}$")
_GREEK_UNIT = re.compile(rf"\\mu\s?{DRESS}?\s?(?=[A-Za-z])|\\Omega(?![A-Za-z])\s?")
_TWO_NUMBERS = re.compile(r"-?[0-9.]+[^0-9]+[0-9]")
_PER = re.compile(r"(?<=[0-9}])\s/\s?(?=[A-Za-z]{2})")
_RELATION = re.compile(r"[=<>;?]|\\(?:approx|leq?|geq?|neq?|in|to|pm|mp|text)(?![A-Za-z])")
_PER_NUMBER = re.compile(r"([A-Za-z]{1,4})\s?/\s?([0-9]{1,6})\s?([A-Za-z]{1,4})\Z")
_OPERATIONS = frozenset("+-*/^=<>(,_:|")
_COMPOUND = re.compile(r"[A-Za-z]+\s?(?:/|\\cdot|\\times|\*|per\b)")
# After a number these are no unit: they change it, or say something else.
_NO_NOUN = frozenset(
    re.findall(
        r"\w+",
        """a about above all also am among an and anno annos approximately approx are as at base be because before below
        between by cannot choose couple cubed dated divided does domini double dozen each eighth equal equals every
        except exactly factorial fewer fifth for from fourth greater gross half halve has have he hundred hundredth if
        in infinity into is isn it least less mod modulo max maximum min minimum
        tops lakh crore mln mn myriad grand basis bps ppm ppb million
        billion trillion minus more most nil ninth no nor not of off on only or out over pair part per percent
        percentage permille permil
        pi plus pm power
        quarter remainder root score seventh she since sixth so some sqrt square squared still tenth than that the
        then there therefore they ten third thousand thousandth through thru till time to triple twice under undefined
        unless until up upto versus was we were when where which while wide with within without wrong x y z o clock
        onwards ish ordinal both neither bis und oder ou mal fois""",
    )
)
_ORDINAL = re.compile(r"(?:eleven|twelf|[a-z]{3,5}teen|[a-z]{3,5}tie|[a-z]{1,4}illion|hundred|thousand)ths?")


@dataclass(frozen=True)
class Quantity:
    """A magnitude with its unit."""

    magnitude: str
    """A number or an expression, as it was written."""
    unit: Unit


def parse_quantity(text: str) -> Quantity | None:
    r"""A number or expression with a unit, or None.

    Args:
        text: as :func:`dereason.verify.text.as_read` gives it: ``15 cm^2``, ``99\pi square inches``, ``90^\circ``.

    A single letter is a unit only after a space and a number (``5 m``; ``5m`` is a product), or in unit dress.
    """
    money = _money(text)
    if money is not None:
        return money
    text = _GREEK_UNIT.sub(lambda m: "u" if m.group()[1] == "m" else "\u03a9", text)
    text = _SMALL_O.sub("^\\\\circ", _OVER.sub(r" \1/\2", text))
    text = _PER.sub(" per ", text)
    if _TWO_NUMBERS.match(text) and (several := parse_compound(text)) is not None:
        return several
    for candidate, match in enumerate(_CANDIDATE.finditer(text)):
        if candidate == 8:
            break
        start = match.start()
        rest = text[start:]
        if start == 0 or len(rest) > MAX_UNIT_LENGTH:
            if start == 0:
                words = _worded(unmarked(text))
                if words is not None:
                    return words
            continue
        found = _split(text, start, rest, match.group().lstrip(DRESS))
        if found is not None:
            return found if is_noun(found.unit) or _FUNCTION.search(found.magnitude) is None else _outside(found)
    return parse_compound(text) if any(c.isdigit() for c in text) else None


def _outside(found: Quantity) -> Quantity | None:
    # Degrees of an angle inside a function belong to its argument.
    return None if found.unit == (("degree", 1),) else found


def _split(text: str, start: int, rest: str, head: str) -> Quantity | None:
    """The quantity whose unit begins at a place of the text."""
    magnitude = unmarked(text[:start]).rstrip()
    if len(head) > 2 and magnitude == text[:start]:
        magnitude = magnitude.removesuffix("-")  # "a 5-meter rope", but not "5 - m"
        hyphen = magnitude != text[:start]
    else:
        hyphen = False
    if magnitude[-1:] in _OPERATIONS or not (any(c.isdigit() for c in magnitude) or "\\pi" in magnitude):
        return None
    if _RELATION.search(magnitude) is not None:
        return None
    dressed = rest.startswith(DRESS) or text[start - 1] == DRESS
    rest = unmarked(rest).lstrip()
    number = parse_number(magnitude) or parse_number(magnitude, decimal_comma=True)
    # "5m" and "3xy" are products, "5 m" is not.
    spaced = dressed or text[start - 1] in " -"
    if not spaced and head.isalpha() and not _COMPOUND.match(rest):
        if _TIGHT.fullmatch(head) is None and len(head) < 4:
            return None
        if "^" in rest and len(head) == 1:
            return None
    per = _PER_NUMBER.match(rest)
    if per is not None and number is not None and int(per[2]):
        magnitude, rest = str(number.absolute() / int(per[2])), f"{per[1]}/{per[3]}"
    unit = parse_unit(rest, dressed=dressed)
    if unit is None:
        return None
    # Things are counted by numbers; only "units" follow an expression too.
    if is_noun(unit):
        if hyphen or (number is not None and number.percent) or (unit[0][0] != "#unit" and number is None):
            return None
    elif not dressed and not _sure(rest, number, magnitude):
        return None
    return Quantity(magnitude, unit)


def _sure(unit: str, number: Number | None, magnitude: str) -> bool:
    """Whether letters without unit dress are a unit and no variables."""
    words = re.findall(
        r"[A-Za-z\u00c5\u03a9]+", _DEGREES.sub(" degree ", unit).replace("\\cdot", " ").replace("\\times", " ")
    )
    short = [word for word in words if len(word) == 1]
    if not short:
        formula = any(name in magnitude for name in ("\\frac", "\\pi", "\\sqrt"))
        return not (formula and all(len(word) <= 2 and word not in _PLAIN_SYMBOLS for word in words))
    if number is None or magnitude.lstrip("-+ ").startswith("\\frac"):
        return False
    below = "/" in unit or "-" in unit or " per " in f" {unit} "
    if len(words[0]) > 1 and words[0] not in _SHORT_UNITS:
        return True
    return len(words) == 1 or below or _KNOWN_PRODUCT.fullmatch(" ".join(words)) is not None


def _money(text: str) -> Quantity | None:
    """An amount of money with its sign before or behind it."""
    if not any(sign in text for sign in SIGNS):
        return None
    match = _LEADING.fullmatch(text)
    if match is None:
        behind = _BEHIND.fullmatch(text)
        return behind and Quantity(behind["number"].strip(), ((f"money_{_SIGNS[behind['sign']]}", 1),))
    number = parse_number(match["number"].strip())
    sign = next(sign for sign in text if sign in _SIGNS)
    if number is None or (match["sign"] and match["inner"]):
        return None
    if match["rest"].strip() and match["number"].rstrip()[-1:] == ",":
        return None  # "$5, two lines": what follows is no noun of the amount
    scale = (match["scale"] or "").lower()
    value = number.value * 10 ** _SCALE.get(scale.removesuffix("s") if len(scale) > 2 else scale, 0)
    if "-" in match["sign"] + match["inner"]:
        value = -value
    unit: Unit = ((f"money_{_SIGNS[sign]}", 1),)
    rest = unmarked(match["rest"]).strip()
    if rest:
        below = parse_unit("per " + rest.removeprefix("/").removeprefix("per").strip())
        named = parse_unit(rest)
        if rest.startswith(("/", "per")) and below is not None:
            unit = tuple(sorted((*unit, *below)))
        elif named is None or not (is_noun(named) or named == unit):
            return None
    return Quantity(_decimal(value), unit)


def _decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


_PART = re.compile(
    rf"\s?(?:and\s|,\s?|\\text)?\s?(?P<number>[0-9]+(?:\.[0-9]+)?)\s?-?(?P<unit>{DRESS}?\s?[A-Za-z]{{1,12}}|\^\s?\{{?\s?\\circ\s?\}}?"
    r"|['\"\u2032\u2033])\.?"
)
_PRIMES = {"'": ("foot", "arcminute"), "\u2032": ("foot", "arcminute"), '"': ("inch", "arcsecond"),
           "\u2033": ("inch", "arcsecond")}  # fmt: skip


def parse_compound(text: str) -> Quantity | None:
    """ "1 hour 30 minutes", "5 ft 6 in", ``30'``: amounts of one kind, each smaller than the one before."""
    negative = text.startswith("-")
    position, parts = (1 if negative else 0), list[tuple[Fraction, Unit]]()
    while position < len(text):
        match = _PART.match(text, position)
        if match is None or len(parts) == 4:
            return None
        position = match.end()
        name = unmarked(match["unit"]).strip()
        if name in _PRIMES:
            angle = parts[0][1] == (("degree", 1),) if parts else match.end() == len(text)
            unit: Unit | None = ((_PRIMES[name][1 if angle else 0], 1),)
        else:
            unit = parse_unit(name, dressed=True)
        if unit is None or is_noun(unit):
            return None
        parts.append((Fraction(match["number"]), unit))
    if len(parts) == 1 and "'" not in text and "\u2032" not in text and '"' not in text:
        return None
    total = Fraction(0)
    last: Fraction | None = None
    for value, unit in parts:
        factors = conversion(unit, parts[0][1])
        if factors is None or factors[1] or not factors[0]:
            return None
        exact = Fraction(factors[0]).limit_denominator(10**6)
        if last is not None and exact >= last:
            return None
        last, total = exact, total + value * exact
    return Quantity(_decimal(-total if negative else total), parts[0][1])


def _worded(text: str) -> Quantity | None:
    """A number word with a unit: "two lines", "twenty five cents"."""
    words = text.split(" ")
    for cut in range(min(len(words) - 1, 6), 0, -1):
        number = " ".join(words[:cut])
        if parse_number(number) is not None:
            named = " ".join(words[cut:])
            unit = parse_unit(named.lower() if text.isupper() else named)
            return None if unit is None else Quantity(number, unit)
    return None


@lru_cache(maxsize=4096)
def parse_unit(text: str, *, dressed: bool = False) -> Unit | None:
    """The unit that a text names, or None."""
    text = text.strip()
    if text in ("\u20ac", "\xa2"):
        return (("money_EUR" if text == "\u20ac" else "cent_USD", 1),)
    if text.lower() in ("units", "unit"):
        return (("#unit", 1),)
    # What stands after "/" is below it, with brackets or without.
    text = text.replace("(", " ").replace(")", " ")
    text = re.sub(r"\\text|[{}](?![^{]*\^)", " ", text) if "\\text" in text else text
    text = _DEGREES.sub(lambda m: " degree" if m.group(1) is None else f" deg{m.group(1).upper()}", text).strip()
    return _phrase(text) or _measure(text, dressed) or coin(text) or _noun(text)


def _phrase(text: str) -> Unit | None:
    """A unit of two words: "electron volts", "light years"."""
    if (
        " " not in text
        or not text.replace(" ", "").isalpha()
        or text.split()[0] in ("square", "cubic", "per", "sq", "cu")
    ):
        return None
    names = unit_names(text.replace(" ", "_"), True) if text.count(" ") == 1 else None
    return None if names is None else ((names[0], 1),)


def _measure(text: str, dressed: bool) -> Unit | None:
    """A product of units of measure with powers."""
    powers: dict[str, int] = {}
    position, sign, pending = 0, 1, 1
    last: str | None = None
    while position < len(text):
        match = _UNIT_TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        word = match.group("word")
        if word is None:
            if match.group("over"):
                sign = -1
            elif match.group("power"):
                if last is None:
                    return None
                powers[last] += (int(match.group("exponent")) - 1) * (1 if powers[last] > 0 else -1)
                last = None
        elif word == "per":
            sign = -1
        elif word in ("square", "sq", "cubic", "cu"):
            pending = 2 if word in ("square", "sq") else 3
        elif word in ("squared", "cubed") and last is not None:
            powers[last] *= 2 if word == "squared" else 3
        else:
            names = unit_names(word, dressed)
            if names is None:
                return None
            exponent = int(match.group("plain") or 1)  # "m/s2", "cm3"
            for name in names:
                powers[name] = powers.get(name, 0) + sign * pending * exponent
            last, pending = (names[-1], 1) if match.group("plain") is None else (None, 1)
    if not powers or max(abs(power) for power in powers.values()) > MAX_UNIT_POWER:
        return None
    return tuple(sorted((name, power) for name, power in powers.items() if power))


# Nobody takes these two letters for a product.
_PLAIN_SYMBOLS = frozenset(
    re.findall(
        r"\S+",
        """ft in lb oz yd mi hr ha au ly pc yr cm km kg mm nm um Hz Pa eV""",
    )
)


def _noun(text: str) -> Unit | None:
    """What is counted: one to three words, none of which changes the number."""
    words = text.split()
    if not 1 <= len(words) <= 3 or not all(
        re.fullmatch(r"[a-z]{3,}(?:-[a-z]+)?|[A-Z][a-z]{2,}|[A-Z]{4,}", w) for w in words
    ):
        return None
    if words[0][0].isupper() and not words[0].isupper() and (len(words) == 1 or not words[-1].istitle()):
        return None  # "11 September", "2 Timothy"
    words = [word.lower() for word in words]
    if words != ["times"] and any(
        word in _NO_NOUN or word.removesuffix("s") in _NO_NOUN or _ORDINAL.fullmatch(word) for word in words
    ):
        return None
    if parse_number(text) is not None:
        return None
    last = words[-1]
    words[-1] = last.removesuffix("s") if len(last) > 3 else last
    return ((f"#{' '.join(words)}", 1),)


def same_noun(a: Unit, b: Unit) -> bool:
    """Whether two things that are counted may be the same: "right triangles" and "triangles", not "left triangles"."""
    if not is_noun(a) or not is_noun(b):
        return False
    left, right = (f" {unit[-1][0].removeprefix('#')}" for unit in (a, b))
    return (left.endswith(right) or right.endswith(left)) and a[:-1] == b[:-1] and a[-1][1] == b[-1][1]


def is_noun(unit: Unit) -> bool:
    """Whether the unit is a thing that is counted, not a unit of measure."""
    return any(name.startswith("#") for name, _ in unit)
