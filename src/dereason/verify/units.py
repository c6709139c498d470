r"""Quantities: a number or an expression with a unit after it.

Units of measure are converted by pint. Only names from the tables below ever reach it, never text of a response.
Anything else after a number ("ways", "right triangles") is a noun: it is compared in the singular, and words before it
may be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dereason.verify.numbers import parse_number

if TYPE_CHECKING:
    import pint

MAX_UNIT_LENGTH = 60
MAX_UNIT_POWER = 6

_PREFIXES = {"k": "kilo", "M": "mega", "G": "giga", "T": "tera", "c": "centi", "d": "deci", "m": "milli", "u": "micro",
             "n": "nano", "p": "pico"}  # fmt: skip
# Symbol to name, for units that take SI prefixes; both may carry one ("km", "kilometers").
_METRIC = {"m": "meter", "g": "gram", "s": "second", "L": "liter", "l": "liter", "N": "newton", "J": "joule",
           "W": "watt", "V": "volt", "A": "ampere", "Hz": "hertz", "Pa": "pascal", "mol": "mole", "eV": "electron_volt",
           "K": "kelvin", "F": "farad", "C": "coulomb", "T": "tesla", "H": "henry", "Wb": "weber", "ohm": "ohm",
           "cal": "calorie", "bar": "bar"}  # fmt: skip
_NAMES = {
    "metre": "meter", "litre": "liter", "gramme": "gram", "gm": "gram", "sec": "second", "amp": "ampere", "cc": "cm3",
    "in": "inch", "inch": "inch", "inche": "inch", "feet": "foot", "foot": "foot", "ft": "foot", "yard": "yard",
    "yd": "yard", "mile": "mile", "mi": "mile", "acre": "acre", "hectare": "hectare", "ha": "hectare", "pound": "pound",
    "lb": "pound", "ounce": "ounce", "oz": "ounce", "ton": "ton", "tonne": "tonne", "gallon": "gallon", "gal": "gallon",
    "quart": "quart", "pint": "pint", "cup": "cup", "tablespoon": "tablespoon", "tbsp": "tablespoon",
    "teaspoon": "teaspoon", "tsp": "teaspoon", "minute": "minute", "min": "minute", "hour": "hour", "hr": "hour",
    "h": "hour", "day": "day", "week": "week", "month": "month", "year": "year", "yr": "year", "decade": "decade",
    "century": "century", "centurie": "century", "mph": "mile_per_hour", "kph": "kilometer_per_hour",
    "kWh": "kilowatt_hour", "kmh": "kilometer_per_hour",
    "kmph": "kilometer_per_hour", "knot": "knot", "atm": "standard_atmosphere",
    "atmosphere": "standard_atmosphere",
    "torr": "torr", "mmHg": "millimeter_Hg", "psi": "pound_force_per_square_inch", "Btu": "british_thermal_unit",
    "BTU": "british_thermal_unit", "btu": "british_thermal_unit", "hp": "horsepower", "horsepower": "horsepower",
    "degree": "degree", "deg": "degree", "radian": "radian", "rad": "radian", "rpm": "revolutions_per_minute",
    "bit": "bit", "byte": "byte", "angstrom": "angstrom", "lightyear": "light_year", "celsius": "degree_Celsius",
    "fahrenheit": "degree_Fahrenheit", "degC": "degree_Celsius", "degF": "degree_Fahrenheit",
    "dollar": "dollar", "USD": "dollar", "buck": "dollar", "cent": "cent", "euro": "euro", "EUR": "euro",
    "GBP": "sterling", "sterling": "sterling", "yen": "yen", "JPY": "yen", "rupee": "rupee", "INR": "rupee",
}  # fmt: skip
_TEMPERATURES = {"degree_Celsius", "degree_Fahrenheit"}
_CURRENCIES = {"$": "dollar", "\u20ac": "euro", "\u00a3": "sterling", "\u00a5": "yen", "\u20b9": "rupee"}
# An angle a second is no frequency: one turn is one hertz, or 2π radians.
_ANGLES = {"degree", "radian", "revolutions_per_minute"}
# Two letters right after a digit ("5cm") are a unit only if no one would take them for a product of variables.
_TIGHT = re.compile(r"[ckm]m|kg|m[lL]|ft|lbs?|oz|in|mi|yd|hrs?|k[NWJV]|kPa|k?Hz|k?eV|m[sg]|MPa|min|mol|mph|h")

_CANDIDATE = re.compile(r"(?<![\\A-Za-z_])[A-Za-z]+|\\(?:mu|Omega)(?![A-Za-z])|\^\s?\{?\s?\\circ|\\circ|\u20ac|\xa2")
_BEFORE = re.compile(r"\s*(?:[-\u2212]\s*)?(?:\\\$|\$(?=\s?[0-9][^$]*$)|([\u20ac\u00a3\u00a5\u20b9]))\s?\d")
_BEHIND = re.compile(r"\d\s?([\u20ac\u00a3\u00a5\u20b9])\s*\.?\s*$")
_DEGREES = re.compile(
    r"(?:\^\s?\{?\s?\\circ\s?\}?|\\circ|\bdegrees?)(?:\s?\{?\s?([CF])(?:elsius|ahrenheit)?\b\s?\}?)?", re.IGNORECASE
)
_UNIT_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z]+)\.?|(?P<power>(?:\^|\*\*)\s?\{?\s?(?P<exponent>-?[0-9])\s?\}?)|(?P<over>/)"
    r"|(?P<times>\\cdot|\\times|[*-]))"
)
_FUNCTION = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)|(?:sin|cos|tan)\b")
_OVER = re.compile(r"\\frac\s?\{\s?([A-Za-z]{1,8})\s?\}\s?\{\s?([A-Za-z][^{}]{0,12})\}$")
_OPERATIONS = frozenset("+-*/^=<>(,_")
_COMPOUND = re.compile(r"[A-Za-z]+\s?(?:/|\\cdot|\\times|\*|per\b)")
# After a number these are no unit: they change it, or say something else.
_NO_NOUN = frozenset(
    re.findall(
        r"\w+",
        """a about above all also am among an and approximately are as at base be because below between by
        choose couple double dozen each eighth equal equals every exactly factorial fewer fifth for from fourth
        greater gross half halve has have he hundred hundredth if in infinity into is it least less mod modulo
        lakh crore million billion trillion minus more most ninth no nor not of off on only or out over pair per percent
        pi plus pm quarter score remainder seventh she since sixth so sqrt squared cubed root tenth than that the
        then there therefore they ten third thousand thousandth time to triple twice double under undefined unless
        until up was we were when where which while with without x y z o clock""",
    )
)
_ORDINAL = re.compile(r"(?:eleven|twelf|[a-z]{3,5}teen|[a-z]{3,5}tie|[a-z]{1,4}illion)ths?")


@dataclass(frozen=True)
class Quantity:
    """A magnitude with its unit."""

    magnitude: str
    """A number or an expression, as it was written."""
    unit: tuple[tuple[str, int], ...]
    """Names with their powers, sorted; a name of pint's, or ``#`` and a noun."""


def parse_quantity(text: str) -> Quantity | None:
    r"""A number or expression with a unit, or None.

    Args:
        text: as :func:`dereason.verify.text.as_latex` gives it: ``15 cm^2``, ``99\pi square inches``, ``90^\circ``.

    A single letter is a unit only after a space and a number (``5 m``; ``5m`` is a product).
    """
    text = _OVER.sub(r" \1/\2", text)
    for candidate, match in enumerate(_CANDIDATE.finditer(text)):
        if candidate == 8:
            return None
        start = match.start()
        rest = text[start:]
        if start == 0 or len(rest) > MAX_UNIT_LENGTH:
            if start == 0:
                words = _worded(text)
                if words is not None:
                    return words
            continue
        magnitude = text[:start].rstrip()
        if len(match.group()) > 2 and magnitude == text[:start]:
            magnitude = magnitude.removesuffix("-")  # "a 5-meter rope", but not "5 - m"
        if magnitude[-1:] in _OPERATIONS or not (any(c.isdigit() for c in magnitude) or "\\pi" in magnitude):
            continue
        # "5m" and "3xy" are products, "5 m" is not.
        spaced = text[start - 1] in " -"
        if not spaced and match.group().isalpha() and not _COMPOUND.match(rest):
            if _TIGHT.fullmatch(match.group()) is None and len(match.group()) < 4:
                continue
            if "^" in rest and len(match.group()) == 1:
                continue
        unit = parse_unit(rest)
        if unit is None:
            continue
        # Things are counted by numbers; only "units" follow an expression too. Degrees of an angle inside a
        # function belong to its argument.
        if is_noun(unit) and unit[0][0] != "#unit" and parse_number(magnitude) is None:
            continue
        if unit == (("degree", 1),) and _FUNCTION.search(magnitude) is not None:
            return None
        return Quantity(magnitude, unit)
    return None


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


@lru_cache(maxsize=2048)
def parse_unit(text: str) -> tuple[tuple[str, int], ...] | None:
    """The unit that a text names, or None."""
    text = text.strip()
    if text in ("\u20ac", "\xa2"):
        return (("euro" if text == "\u20ac" else "cent", 1),)
    # What stands after "/" is below it, with brackets or without.
    text = re.sub(r"\\mu\s?", "u", text.replace("\\Omega", "ohm")).replace("(", " ").replace(")", " ")
    text = _DEGREES.sub(lambda m: " degree" if m.group(1) is None else f" deg{m.group(1).upper()}", text).strip()
    return _measure(text) or _noun(text)


def _measure(text: str) -> tuple[tuple[str, int], ...] | None:
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
            name = _unit_name(word)
            if name is None:
                return None
            name, cubed = ("centimeter", 3) if name == "cm3" else (name, 1)
            powers[name] = powers.get(name, 0) + sign * pending * cubed
            last, pending = name, 1
    if not powers or max(abs(power) for power in powers.values()) > MAX_UNIT_POWER:
        return None
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _unit_name(word: str) -> str | None:
    names = _table()
    if word in ("unit", "units"):
        return "#unit"
    for form in (word, word.removesuffix("s"), word.lower(), word.lower().removesuffix("s")):
        # "S" is no plural of nothing, and a symbol has no plural ("ms" is milliseconds, "lbs" is pounds).
        if form in names and (len(form) > 1 or form == word):
            return names[form]
    return None


@lru_cache(maxsize=1)
def _table() -> dict[str, str]:
    table = dict(_NAMES)
    for symbol, name in _METRIC.items():
        table[symbol] = name
        table[name] = name
        for prefix, prefix_name in _PREFIXES.items():
            table.setdefault(prefix + symbol, prefix_name + name)
            table.setdefault(prefix_name + name, prefix_name + name)
    for prefix_name in ("kilo", "centi", "milli"):
        for british, name in (("metre", "meter"), ("litre", "liter")):
            table[prefix_name + british] = prefix_name + name
    table["kcal"] = "kilocalorie"
    return table


def _noun(text: str) -> tuple[tuple[str, int], ...] | None:
    """What is counted: one to three words, none of which changes the number."""
    words = text.split()
    if not 1 <= len(words) <= 3 or not all(re.fullmatch(r"[A-Za-z][a-z]{2,}(?:-[a-z]+)?", word) for word in words):
        return None
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


def same_noun(a: tuple[tuple[str, int], ...], b: tuple[tuple[str, int], ...]) -> bool:
    """Whether two things that are counted may be the same: "right triangles" and "triangles", not "left triangles"."""
    if not is_noun(a) or not is_noun(b):
        return False
    left, right = (f" {unit[-1][0].removeprefix('#')}" for unit in (a, b))
    return (left.endswith(right) or right.endswith(left)) and a[:-1] == b[:-1] and a[-1][1] == b[-1][1]


def is_noun(unit: tuple[tuple[str, int], ...]) -> bool:
    """Whether the unit is a thing that is counted, not a unit of measure."""
    return any(name.startswith("#") for name, _ in unit)


def conversion(source: tuple[tuple[str, int], ...], target: tuple[tuple[str, int], ...]) -> tuple[float, float] | None:
    """How to convert: (factor, offset) with target = source · factor + offset, or None where it cannot be."""
    if source == target or {source, target} == {(("pound", 1),), (("sterling", 1),)}:
        return (1.0, 0.0)
    if is_noun(source) or is_noun(target):
        return None
    return _conversion(source, target)


@lru_cache(maxsize=1024)
def _conversion(source: tuple[tuple[str, int], ...], target: tuple[tuple[str, int], ...]) -> tuple[float, float] | None:
    names = {name for name, power in (*source, *target)}
    if names & _ANGLES and any(name.endswith("hertz") for name in names):
        return None
    if len(source) == len(target) == 1 and source[0][1] == target[0][1] == 1 and names & _TEMPERATURES:
        # An answer's "25 degrees" is short for the scale that the reference names.
        if source[0][0] == "degree":
            return (1.0, 0.0)
        absolute = True
    else:
        absolute = False
    registry = _registry()
    left, right = (_pint_unit(registry, unit, absolute) for unit in (source, target))
    if left.dimensionality != right.dimensionality:
        return None
    zero, one = (float(registry.Quantity(x, left).to(right).magnitude) for x in (0.0, 1.0))
    return (one - zero, zero)


def _pint_unit(registry: pint.UnitRegistry[Any], unit: tuple[tuple[str, int], ...], absolute: bool) -> Any:
    product = registry.Unit("dimensionless")
    for name, power in unit:
        # In a product ("J/°C") a degree is a difference of temperatures.
        product = product * registry.Unit(f"delta_{name}" if name in _TEMPERATURES and not absolute else name) ** power
    return product


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry[Any]:
    import pint

    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(cache_folder=None)
    registry.define("dollar = [money_in_dollars]")
    registry.define("cent = 0.01 dollar")
    for money in ("euro", "sterling", "yen", "rupee"):
        registry.define(f"{money} = [money_in_{money}]")
    return registry


def currency(text: str) -> tuple[tuple[str, int], ...] | None:
    r"""The unit that a currency sign beside a number gives it (``\$5``, ``$5``, ``€5``, ``5 €``), from the raw text."""
    match = _BEFORE.match(text) or _BEHIND.search(text[-20:])
    return ((_CURRENCIES[match.group(1) or "$"], 1),) if match else None
