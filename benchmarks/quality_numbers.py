"""Rewrites and near-misses of numbers and quantities.

Each function takes a reference of one shape and gives forms: (cause, answer, must it match?). Labels are right by
construction: a rewrite says the same by the rules of arithmetic or notation, a near-miss says something else.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction

Forms = list[tuple[str, str, bool]]
"""(cause, answer, must it match?) of one reference."""

# ------------------------------------------------------------------------------------------------------- numbers

FRACTION = r"-?(?:\\[dt]?frac\{\d+\}\{\d+\}|\\frac\d\d|\d+/\d+)"


def value_of(text: str) -> Fraction:
    """The number that a plain reference writes."""
    sign = -1 if text.startswith("-") else 1
    digits = [int(d) for d in re.findall(r"\d+", text)]
    if "frac" in text and len(digits) == 1:
        digits = [int(d) for d in str(digits[0])]
    if "frac" in text or "/" in text:
        return sign * Fraction(digits[0], digits[1])
    return Fraction(text.replace(",", ""))


def decimal(value: Fraction) -> str | None:
    """The number as a decimal, None where it does not end within eight digits."""
    if (value * 10**8).denominator != 1:
        return None
    text = f"{float(value):.8f}".rstrip("0").rstrip(".")
    return text if Fraction(text) == value else None


_WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


_GLYPHS = {(1, 2): "\u00bd", (1, 4): "\u00bc", (3, 4): "\u00be", (1, 3): "\u2153", (2, 3): "\u2154", (1, 8): "\u215b"}


def in_words(n: int) -> str:
    """0 to 99 in English."""
    if n < 20:
        return _WORDS[n]
    return _TENS[n // 10 - 2] + (f"-{_WORDS[n % 10]}" if n % 10 else "")


def _digits(text: str, zero: str) -> str:
    return "".join(chr(ord(zero) + int(c)) if c.isdigit() else c for c in text)


def number_forms(reference: str, rng: random.Random) -> Forms:
    """Rewrites and near-misses of an integer, a decimal or a fraction."""
    v = value_of(reference)
    sign, a, b = "-" if v < 0 else "", abs(v).numerator, v.denominator
    forms: Forms = [("reference", reference, True), ("spaces", f"  {reference} ", True), ("$", f"${reference}$", True)]
    text = decimal(v)
    if b == 1:
        forms += [
            ("trailing zeros", f"{sign}{a}.0", True),
            ("fraction of 2", f"\\frac{{{sign}{2 * a}}}{{2}}", True),
            ("equation", f"x = {sign}{a}", True),
            ("full-width digits", _digits(f"{sign}{a}", "\uff10"), True),
            ("Arabic-Indic digits", _digits(f"{sign}{a}", "\u0660"), True),
            ("Devanagari digits", _digits(f"{sign}{a}", "\u0966"), True),
            ("minus sign", f"\u2212{a}", True) if v < 0 else ("plus sign", f"+{a}", True),
            ("unevaluated sum", f"{sign}{a} + 0", False),
            ("question", f"{a - 1} + 1 = ?", False),
            ("digits apart", " ".join(f"{sign}{a}1"), False),
            ("ten times", f"{sign}{a}0" if a else "10", False),
            ("in another base", f"{sign}{a}_{{12}}" if a > 11 else f"1{a}_{{12}}", False),
            ("factorial", f"{a + 3}!", False),
            ("semicolon list", f"{sign}{a}; {a + 7}", False),
            ("imaginary", f"{sign}{a}i" if a else "2i", False),
        ]
        if a < 100 and v >= 0:
            forms += [("in words", in_words(a), True), ("in words, off by one", in_words((a + 1) % 100), False)]
        if 100 <= a < 1000 and v >= 0:
            rest = f" {in_words(a % 100)}" if a % 100 else ""
            forms.append(("hundreds in words", f"{in_words(a // 100)} hundred{rest}", True))
        if 0 <= v < 100:
            forms.append(("number and word", f"{a} ({in_words(a)})", True))
        if a >= 1000:
            forms += [
                ("thousands: comma", f"{sign}{a:,}", True),
                ("thousands: LaTeX comma", f"{sign}{a:,}".replace(",", "{,}"), True),
                ("thousands: no-break space", f"{sign}{a:,}".replace(",", "\u00a0"), True),
                ("thousands: thin space", f"{sign}{a:,}".replace(",", "\u202f"), True),
                ("thousands: LaTeX space", f"{sign}{a:,}".replace(",", "\\,"), True),
                ("thousands: apostrophe", f"{sign}{a:,}".replace(",", "'"), True),
                ("thousands: German", f"{sign}{a:,}".replace(",", ".") + ",00", True),
                ("scientific", f"{sign}{decimal(Fraction(a, 1000))} \\times 10^{{3}}", True),
                ("e notation", f"{sign}{decimal(Fraction(a, 1000))}e3", True),
                ("scientific, wrong power", f"{sign}{decimal(Fraction(a, 1000))} \\times 10^{{4}}", False),
                ("digits lost", f"{sign}{a:,}".split(",")[0], False),
            ]
        if a >= 1_000_000:
            forms.append(("thousands: dots", f"{sign}{a:,}".replace(",", "."), True))
        if a >= 100_000:
            head, tail = str(a)[:-3], str(a)[-3:]
            pairs = [head[max(0, i - 2) : i] for i in range(len(head), 0, -2)][::-1]
            forms.append(("thousands: Indian", f"{sign}{','.join(pairs)},{tail}", True))
        if 0 < a < 10**6:
            forms += [("noun", f"{sign}{a} apples", True), ("noun in LaTeX", f"{sign}{a} \\text{{ apples}}", True)]
            forms += [("chain", f"{a - 1} + 1 = {a}", True)] if v > 1 else []
    else:
        forms += [
            ("\\dfrac", f"{sign}\\dfrac{{{a}}}{{{b}}}", True),
            ("\\tfrac", f"{sign}\\tfrac{{{a}}}{{{b}}}", True),
            ("a/b", f"{sign}{a}/{b}", True),
            ("a / b", f"{sign}{a} / {b}", True),
            ("sign in the numerator", f"\\frac{{{sign}{a}}}{{{b}}}", True),
            ("unreduced", f"{sign}\\frac{{{3 * a}}}{{{3 * b}}}", True),
            ("inverse", f"{sign}\\frac{{{b}}}{{{a}}}", False),
            ("denominator off by one", f"{sign}\\frac{{{a}}}{{{b + 1}}}", False),
        ]
        if a > b:
            forms += [
                ("mixed number", f"{sign}{a // b} {a % b}/{b}", True),
                ("mixed number in LaTeX", f"{sign}{a // b}\\frac{{{a % b}}}{{{b}}}", True),
            ]
        if b in (3, 9) and a < b:
            forms.append(("repeating decimal", f"{sign}0.\\overline{{{a * 9 // b}}}", True))
        if (a, b) in _GLYPHS:
            forms.append(("fraction sign", f"{sign}{_GLYPHS[a, b]}", True))
        if text:
            forms.append(("fraction and decimal", f"{sign}\\frac{{{a}}}{{{b}}} = {text}", True))
        if text is None:
            forms.append(("rounded", f"{sign}{float(abs(v)):.3f}", False))
    if text is not None and b != 1:
        forms += [("decimal", text, True), ("decimal, trailing zeros", f"{text}00", True)]
        if len(text.split(".")[1]) != 3:
            forms.append(("decimal comma", text.replace(".", ","), True))
        if abs(v) < 1:
            forms += [("no leading zero", text.replace("0.", ".", 1), True)]
            forms += [("percent", f"{decimal(v * 100)}\\%", True), ("wrong percent", f"{decimal(v * 1000)}%", False)]
    if v:
        forms.append(("sign", decimal(-v) or f"{'' if sign else '-'}\\frac{{{a}}}{{{b}}}", False))
    near, step = v + 1, rng.choice([1, -1])
    other = decimal(v + step) or f"{'-' if v + step < 0 else ''}\\frac{{{abs((v + step).numerator)}}}{{{b}}}"
    forms += [
        ("off by one", other, False),
        ("tiny difference", f"{text}{'' if '.' in text else '.'}0001", False) if text else ("twice", str(2 * v), False),
        ("hedge", f"{reference} or {decimal(near) or str(near)}", False),
        ("hedge, other first", f"{decimal(near) or str(near)} or {reference}", False),
        ("list", f"{reference}, {decimal(near) or str(near)}", False),
        ("variable attached", f"{reference}x" if v else "1x", False),
        ("negated", f"not {reference}", False),
        ("larger expression", f"{reference}\\sqrt{{7}}" if v else "\\sqrt{7}", False),
        ("inequality", f"x > {reference}", False),
        ("at least", f"more than {reference}", False),
        ("range", f"{reference} to {decimal(near) or str(near)}", False),
        ("plus or minus", f"{reference} \\pm 1", False),
        ("unequal", f"x \\neq {reference}", False),
        ("sentence with a label", f"Step {reference}: the sum is unclear", False),
        ("\\text", f"\\text{{{reference}}}", True),
        ("\\mathbf", f"\\mathbf{{{reference}}}", True),
        ("parentheses", f"({reference})", True),
        ("braces", f"{{{reference}}}", True),
        ("\\displaystyle", f"\\displaystyle {reference}", True),
        ("code", f"`{reference}`", True),
        ("LaTeX parentheses", f"\\({reference}\\)", True),
        ("magnitude word", f"{reference} million" if v else "1 million", False),
    ]
    if b == 1 and 1 < v < 1000:
        forms += [("unevaluated root", f"\\sqrt{{{a * a}}}", False), ("power", f"{a}^{{2}}", False)]
    return [form for form in forms if form[1] is not None and "None" not in form[1]]


# ---------------------------------------------------------------------------------------------------- quantities

CONVERSIONS: dict[str, tuple[tuple[str, Fraction], ...]] = {
    "km": (("m", Fraction(1000)), ("kilometers", Fraction(1))),
    "m": (("cm", Fraction(100)), ("meters", Fraction(1)), ("km", Fraction(1, 1000))),
    "cm": (("mm", Fraction(10)), ("m", Fraction(1, 100)), ("centimeters", Fraction(1))),
    "hours": (("minutes", Fraction(60)), ("seconds", Fraction(3600)), ("h", Fraction(1))),
    "minutes": (("seconds", Fraction(60)), ("min", Fraction(1))),
    "kg": (("g", Fraction(1000)), ("kilograms", Fraction(1))),
    "feet": (("inches", Fraction(12)), ("ft", Fraction(1))),
    "days": (("hours", Fraction(24)),),
    "liters": (("mL", Fraction(1000)), ("L", Fraction(1))),
    "m^2": (("cm^2", Fraction(10000)), ("square meters", Fraction(1))),
    "km/h": (("m/h", Fraction(1000)),),
    "degrees": (("\u00b0", Fraction(1)), ("^\\circ", Fraction(1))),
}
_OTHER_UNITS = {"km": "kg", "m": "s", "cm": "g", "hours": "m", "minutes": "meters", "kg": "km", "feet": "pounds",
                "days": "meters", "liters": "kg", "m^2": "m", "km/h": "km", "degrees": "meters"}  # fmt: skip
_UNIT_NAMES = {"^\\circ": "degrees", "cm": "cm", "feet": "feet", "degrees": "degrees", "hours": "hours", "days": "days"}


def quantity_forms(reference: str, rng: random.Random) -> Forms:
    """Rewrites and near-misses of an integer or decimal with a unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:\\text\{\s*)?(\^\\circ|[^\d{}\s][^{}]*?)\s*\}?", reference)
    assert match is not None, reference
    n, unit = Fraction(match[1]), match[2]
    unit = _UNIT_NAMES.get(unit, unit)
    forms: Forms = [("reference", reference, True), ("bare number", match[1], True)]
    forms += [("trailing zeros", f"{decimal(n)}{'.0' if n.denominator == 1 else '0'} {match[2]}", True)]
    if unit != "degrees" and unit in CONVERSIONS:
        forms += [
            ("unit in LaTeX", f"{match[1]} \\text{{ {unit}}}", True),
            ("no space", f"{match[1]}\\text{{{unit}}}", True),
        ]
    for to, factor in CONVERSIONS.get(unit, ()):
        value = decimal(n * factor)
        space = "" if to in ("\u00b0", "^\\circ") else " "
        if value is None:
            continue
        forms.append(("same unit, other name" if factor == 1 else "converted", f"{value}{space}{to}", True))
        if factor != 1:
            forms.append(("wrong unit", f"{decimal(n)} {to}", False))
            forms.append(("chain of units", f"{match[1]} {match[2]} = {value} {to}", True))
            forms.append(("converted, off by one", f"{decimal(n * factor + 1)} {to}", False))
    if unit in _OTHER_UNITS:
        forms.append(("another dimension", f"{match[1]} {_OTHER_UNITS[unit]}", False))
    forms += [
        ("equation", f"x = {match[1]} {match[2]}", True),
        ("hedge between units", f"{match[1]} {match[2]} or {decimal(n + 1)} {match[2]}", False),
        ("list", f"{match[1]} {match[2]}, {decimal(n + 1)} {match[2]}", False),
        ("off by one", f"{decimal(n + 1)} {match[2]}", False),
        ("sign", f"-{match[1]} {match[2]}", False),
        ("hedge", f"{match[1]} or {decimal(n + 1)} {match[2]}", False),
        ("unit alone", unit, False),
    ]
    return forms
