"""What pint calls a unit and babel a currency, and how one converts into another.

A text is looked up in their tables, never computed by them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pint

Unit = tuple[tuple[str, int], ...]
"""Names with their powers, sorted: a name of pint's, ``money_USD``, or ``#`` and a noun."""
# Words that pint does not know, by what it calls them.
_ALIASES = {
    "sec": "second", "secs": "second", "gm": "gram", "gms": "gram", "amp": "ampere", "amps": "ampere", "rev": "turn",
    "revs": "turn", "revolution": "turn", "revolutions": "turn", "kmh": "kilometer_per_hour",
    "kmph": "kilometer_per_hour",
    "lightyear": "light_year", "lightyears": "light_year", "ft-lb": "foot_pound", "AU": "astronomical_unit",
    "celsius": "degree_Celsius", "fahrenheit": "degree_Fahrenheit", "Torr": "torr", "Btu": "british_thermal_unit",
    "Ohm": "ohm", "Ohms": "ohm", "inche": "inch", "cc": "cubic_centimeter", "deg": "degree", "degs": "degree",
    "gauss": "gauss_", "G": "gauss_", "y": "year", "arcmin": "arcminute", "arcsec": "arcsecond", "minute": "minute",
    "Nm": "N*m",
    "kNm": "kN*m", "Pas": "Pa*s", "dollar": "money_USD", "dollars": "money_USD", "cent": "cent_USD",
    "cents": "cent_USD", "buck": "money_USD", "bucks": "money_USD", "penny": "cent_USD", "pennies": "cent_USD",
    "pence": "cent_GBP", "sterling": "money_GBP", "quid": "money_GBP", "rupees": "money_INR",
    "angstroms": "angstrom", "KM": "kilometer", "KG": "kilogram", "CM": "centimeter", "MM": "millimeter",
    "ML": "milliliter",
    "MPH": "mile_per_hour", "FT": "foot", "LB": "pound", "LBS": "pound", "HR": "hour", "HRS": "hour", "MIN": "minute",
}  # fmt: skip
# Symbols that take an SI prefix; with any other a prefix makes words ("cat", "pint", "mat").
_METRIC = frozenset(
    re.findall(
        r"\S+",
        """m g s L l N J W V A Hz Pa mol eV K F C T H Wb ohm Ω cal bar M Gy Sv Bq Ci G pc Da rad S lm lx kat B bit P St
        sr Wh Ah Torr torr cd D mHg""",
    )
)
# One letter is one of these units, and only behind a plain number or in unit dress.
_LETTERS = frozenset(
    re.findall(
        r"\S+",
        """m g s h L l N J W V A K C F T H M P D G S""",
    )
)
_DRESSED_LETTERS = _LETTERS | frozenset(
    re.findall(
        r"\S+",
        """d t u B b""",
    )
)
# What pint knows and nobody means by it.
_NO_UNIT = re.compile(
    r"(?:.*(?:constant|magneton|_mass|charge|speed_of_light|radius|wavelength|velocity|_field|_moment|_limit|unit_of|atomic_unit)"
    r"|count|fifth|point|turn|hand|rod|link|shot|line|grain|drop|bag|chain|pole|perch|span|peck|cord|slug|minim|cycle|bin"
    r"|dot|pixel|circle|jute|didot|pica|tex|standard_gravity|radian_.*|.*_cicero|cicero|hour_angle|pi|zeta|K_alpha.*"
    r"|wien.*|tansec|eon|scaled_point|percent|permille|ppm|refractive.*|lattice.*|dash.*|particle|molec|entities|nit|survey.*)\Z"
)
_KEEP = frozenset({"astronomical_unit", "unified_atomic_mass_unit", "parsec", "electron_volt"})
_TEMPERATURES = {"degree_Celsius", "degree_Fahrenheit"}
# An angle a second is no frequency: one turn is one hertz, or 2π radians.
_ANGLES = {"degree", "radian", "revolutions_per_minute", "turn"}


@lru_cache(maxsize=4096)
def unit_names(word: str, dressed: bool) -> tuple[str, ...] | None:
    """What pint calls the unit of a word or symbol (two for "Nm"), None where it is no unit."""
    alias = _ALIASES.get(word) or (_ALIASES.get(word.lower()) if len(word) > 2 else None)
    if alias == "N*m":
        return ("newton", "meter")
    if alias == "kN*m":
        return ("kilonewton", "meter")
    if alias == "Pa*s":
        return ("pascal", "second")
    if alias is not None:
        return (alias,)
    if word in ("unit", "units"):
        return ("#unit",)
    if len(word) == 1:
        if word not in (_DRESSED_LETTERS if dressed else _LETTERS) and word not in "\u00c5\u03a9":
            return None
        if word in "Bb":
            return ("byte" if word == "B" else "bit",)
    if len(word) > 30 or word in ("th", "st", "nd", "rd"):
        return None
    for form in dict.fromkeys((word, word.replace("-", "_"), word.lower() if len(word) > 3 else word)):
        name = _pint_name(form)
        if name is not None:
            return (name,)
    return None


def _pint_name(word: str) -> str | None:
    registry = _registry()
    for british, american in (("metre", "meter"), ("litre", "liter"), ("gramme", "gram")):
        word = word.replace(british, american)
    for prefix, unit, suffix in registry.parse_unit_name(word):
        if unit not in _KEEP and _NO_UNIT.match(unit):
            continue
        if not prefix:
            return None if suffix and len(word) <= 2 else unit
        if word.startswith(prefix) and len(word) > len(prefix) + 2:
            return prefix + unit
        if not suffix and any(word.endswith(s) and len(word) - len(s) in (1, 2) for s in _METRIC):
            return prefix + unit
    return None


def coin(text: str) -> Unit | None:
    """The currency that words or a code name: "US dollars", "Swiss francs", "EUR"."""
    code = _currencies().get(text.lower()) if len(text) != 3 or not text.isupper() else None
    if code is None and len(text) == 3 and text.isupper() and text in _currencies().values():
        code = text
    return None if code is None else ((f"money_{code}", 1),)


@lru_cache(maxsize=1)
def _currencies() -> dict[str, str]:
    """Names of currencies in lower case, in the singular and the plural, to their codes."""
    from babel.numbers import get_currency_name, list_currencies

    names: dict[str, str] = {}
    last: dict[str, str] = {}
    for code in sorted(list_currencies("en")):
        name = get_currency_name(code, locale="en")
        if "(" in name or not name.isascii():
            continue
        for form in (name, get_currency_name(code, 1, locale="en"), get_currency_name(code, 2, locale="en")):
            names.setdefault(form.lower(), code)
            word = form.lower().split()[-1]
            if (len(word) > 3 or word in _MAIN) and word not in _NO_COIN:
                last[word] = "" if last.get(word, code) != code else code
    for word, code in last.items():
        if code or word.removesuffix("s") in _MAIN:
            names.setdefault(word, code or _MAIN[word.removesuffix("s")])
    return names


# Which currency a bare name is that several countries use.
_MAIN = {"dollar": "USD", "euro": "EUR", "yen": "JPY", "rupee": "INR", "franc": "CHF", "peso": "MXN", "ruble": "RUB"}
_NO_COIN = frozenset(
    re.findall(
        r"\S+",
        """pound pounds real reals mark marks gold silver unit units rights franc reserve crown crowns won""",
    )
)


def conversion(source: Unit, target: Unit) -> tuple[float, float] | None:
    """How to convert: (factor, offset) with target = source · factor + offset, or None where it cannot be."""
    if source == target or {source, target} == {(("pound", 1),), (("money_GBP", 1),)}:
        return (1.0, 0.0)
    if any(name.startswith("#") for name, _ in (*source, *target)):
        return None
    return _conversion(source, target)


@lru_cache(maxsize=1024)
def _conversion(source: Unit, target: Unit) -> tuple[float, float] | None:
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
    try:
        zero, one = (float(registry.Quantity(x, left).to(right).magnitude) for x in (0.0, 1.0))
    except Exception:  # logarithmic units and other offsets: pint has an error for each
        return None
    return (one - zero, zero)


def _pint_unit(registry: pint.UnitRegistry[Any], unit: Unit, absolute: bool) -> Any:
    product = registry.Unit("dimensionless")
    for name, power in unit:
        if name.startswith(("money_", "cent_")):
            code = name.partition("_")[2]
            if f"money_{code}" not in registry:
                registry.define(f"money_{code} = [money_in_{code}]")
                registry.define(f"cent_{code} = 0.01 money_{code}")
        # In a product ("J/°C") a degree is a difference of temperatures.
        product = product * registry.Unit(f"delta_{name}" if name in _TEMPERATURES and not absolute else name) ** power
    return product


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry[Any]:
    import pint

    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(cache_folder=None)
    registry.define("gauss_ = 1e-4 tesla")  # pint's own belongs to another system of dimensions
    return registry
