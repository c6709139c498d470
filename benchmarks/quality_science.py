"""Rewrites and near-misses of answers of the sciences: formulas of physics, units, chemistry.

Each label is sure by the rule that made the pair: typesetting and spaces between the letters of a product mean nothing,
a number or letter that is changed is another value, and the equal units are those of the SI's own tables.
"""

from __future__ import annotations

import random
import re

from quality_numbers import Forms

_NAMES = "sin|cos|tan|log|ln|exp|arctan|pi"
_RUN = re.compile(rf"(?<![A-Za-z\\])(?!(?:{_NAMES})(?![A-Za-z]))[A-Za-z]{{2,4}}(?![A-Za-z])")
_SPACED = re.compile(r"(?<=[A-Za-z])\s(?=[A-Za-z])")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_NUMBER = re.compile(r"(?<![0-9.^_{])[0-9]+(?![0-9.]*[0-9}])")
_SCIENTIFIC = re.compile(r"(-?\d+(?:\.\d+)?)(?:e(-?\d+)|\s*\\times\s*10\^\{?(-?\d+)\}?)")
FORMULA = r"(?=.*[A-Za-z]{1}).*(?:\\frac|\\sqrt|\^|[A-Za-z]\s?[A-Za-z]|\d\s?[A-Za-z]).*"
SCIENTIFIC = _SCIENTIFIC.pattern

# Value and unit, other ways to write the same, and what it is not.
UNITS: list[tuple[str, list[str], list[str]]] = [
    ("8.314 J/(mol K)",
     [r"8.314\,\mathrm{J\,mol^{-1}\,K^{-1}}", "8.314 J mol^-1 K^-1"], ["8.314 J/mol", "8.31 J/(mol K)"]),
    ("9.81 m/s^2",
     [r"9.81\,\mathrm{m\,s^{-2}}", "9.81 m/s2", r"981\text{ cm/s}^2", "9.81 N/kg"], ["9.81 m/s", "9.81 ms^2"]),
    ("0.5 M", ["0.5 mol/L", "500 mM", r"0.5\,\mathrm{mol\,L^{-1}}"], ["0.5 mM", "0.5 m", "0.5 mol"]),
    ("5 nm", ["50 Å", r"50\ \text{\AA}", r"5\times10^{-9}\text{ m}"], ["5 mm", "5 Å", "5 pm"]),
    ("3 T", ["30000 G", "3 tesla", r"3\,\mathrm{Wb/m^2}"], ["3 G", "3 t", "3 Wb"]),
    ("2 pc", ["2 parsecs", r"2\text{ pc}", "0.002 kpc"], ["2 pC", "2 ly", "2 Mpc"]),
    ("4 Gy", ["4 J/kg", "4 gray", "4000 mGy"], ["4 J", "4 kg", "4 mGy"]),
    ("6 Bq", ["6 s^{-1}", "6 becquerels", r"6\,\mathrm{s^{-1}}"], ["6 s", "6 kBq", "6 m^{-1}"]),
    ("7 N m", ["7 N·m", r"7\,\mathrm{N\,m}", "7 J"], ["7 N/m", "7 nm", "7 N"]),
    ("12 eV", ["0.012 keV", r"12\text{ eV}", "12 electronvolts"], ["12 V", "12 keV", "12 meV"]),
    ("1.2 g/cm^3", ["1200 kg/m^3", "1.2 g/cm3", r"1.2\,\mathrm{g\,cm^{-3}}"], ["1.2 kg/m^3", "1.2 g/cm^2"]),
    ("3 erg", [r"3\times10^{-7}\text{ J}", "3 ergs"], ["3 J", "3 erg/s"]),
    ("5 km/s", ["5000 m/s", r"5\,\mathrm{km\,s^{-1}}", r"\SI{5}{\kilo\meter\per\second}"], ["5 km", "5 km/h", "5 m/s"]),
    ("40 kΩ", [r"40\ \mathrm{k\Omega}", "40000 ohms", "40 kohm"], ["40 Ω", "40 mΩ"]),
    ("8 amu", ["8 Da", r"8\text{ amu}"], ["8 kg", "8 A"]),
]  # fmt: skip
# A formula, other ways to write it, and what it is not.
CHEMISTRY: list[tuple[str, list[str], list[str]]] = [
    ("H2O", [r"\ce{H2O}", "H_2O", r"\mathrm{H_2O}", "H₂O"], ["H2O2", "HO2", "H3O"]),
    ("CO_2", ["CO2", r"\text{CO}_2", r"\ce{CO2}", "CO₂"], ["CO", "CO_3", "C_2O"]),
    ("SO_4^{2-}", [r"\ce{SO4^2-}", "SO₄²⁻", "SO4^2-"], ["SO_4", "SO_3^{2-}", "SO_4^{2+}", "SO_4^-"]),
    ("Na^+", ["Na⁺", "Na+", r"\ce{Na+}", "Na^{+}"], ["Na", "Na^-", "K^+", "Na^{2+}"]),
    ("NH_4^+", ["NH4+", r"\ce{NH4+}", "NH₄⁺"], ["NH_3", "NH_4^-", "NH_4"]),
    ("C_6H_{12}O_6", ["C6H12O6", r"\ce{C6H12O6}", "C₆H₁₂O₆"], ["C_6H_{12}O_5", "C_6H_{10}O_6", "C6H6O12"]),
    ("Ca(OH)_2", ["Ca(OH)2", r"\ce{Ca(OH)2}", "Ca(OH)₂"], ["CaOH_2", "Ca(OH)_3", "CaOH"]),
    ("Fe^{3+}", ["Fe³⁺", r"\ce{Fe^3+}", "Fe^3+"], ["Fe^{2+}", "Fe^{3-}", "Fe"]),
    (r"2H_2 + O_2 \to 2H_2O", ["2H2 + O2 -> 2H2O", r"\ce{2H2 + O2 -> 2H2O}", "2H₂ + O₂ → 2H₂O"],
     ["H_2 + O_2 \\to H_2O", "2H_2O \\to 2H_2 + O_2", "2H_2 + O_2"]),
    ("OH^-", ["OH⁻", "OH-", "OH^{-}"], ["OH", "OH^+", "O^-"]),
    ("CH_3COOH", ["CH3COOH", r"\ce{CH3COOH}"], ["CH_3COO", "CH_3OH"]),
    ("sp^3", ["sp3", "sp³", "sp^{3}"], ["sp^2", "sp"]),
]  # fmt: skip


def listed_forms(reference: str, rng: random.Random) -> Forms:
    """The rewrites and near-misses of a reference of the tables above."""
    for name, table in (("unit", UNITS), ("chemistry", CHEMISTRY)):
        for one, right, wrong in table:
            if one == reference:
                forms: Forms = [("reference", reference, True)]
                forms += [(f"{name}, other notation", text, True) for text in right]
                return forms + [(f"{name}, another value", text, False) for text in wrong]
    raise ValueError(reference)


def formula_forms(reference: str, rng: random.Random) -> Forms:
    """Rewrites of a formula that are typesetting alone, and changes of one number or letter of it."""
    bare = reference.strip("$ ")
    forms: Forms = [("reference", reference, True), ("display style", rf"\displaystyle {bare}", True)]
    if "\\frac" in bare:
        forms.append(("dfrac", bare.replace("\\frac", "\\dfrac"), True))
    commands = _COMMANDS.sub(lambda m: " " * len(m.group()), bare)
    runs = [m.span() for m in _RUN.finditer(commands)]
    if runs and not re.search(r"text|mathrm|Hz", bare):
        pieces, last = [], 0
        for start, end in runs:
            pieces += [bare[last:start], " ".join(bare[start:end])]
            last = end
        spaced = "".join([*pieces, bare[last:]])
        forms += [("letters apart", spaced, True), ("thin spaces", _SPACED.sub(r"\\,", spaced), True)]
    forms.append(("braces", re.sub(r"\^(\w)", r"^{\1}", bare), True))
    numbers = list(_NUMBER.finditer(bare))
    if numbers:
        one = rng.choice(numbers)
        changed = bare[: one.start()] + str(int(one.group()) + rng.randint(1, 5)) + bare[one.end() :]
        forms.append(("another number", changed, False))
    letters = sorted({m.group() for m in re.finditer(r"(?<![A-Za-z\\])[A-Za-cf-hj-z](?![A-Za-z])", bare)})
    if len(letters) > 1:
        gone = rng.choice(letters)
        forms.append(("another letter", re.sub(rf"(?<![A-Za-z\\]){gone}(?![A-Za-z])", "Q", bare), False))
    forms.append(
        ("twice", rf"2 \cdot ({bare})", False) if "=" not in bare else ("side alone", bare.split("=")[0], False)
    )
    return [form for form in forms if form[1].strip()]


def scientific_forms(reference: str, rng: random.Random) -> Forms:
    """Rewrites of a number with a power of ten."""
    match = _SCIENTIFIC.fullmatch(reference.strip("$ "))
    assert match is not None, reference
    mantissa, power = match[1], int(match[2] or match[3])
    return [
        ("reference", reference, True),
        ("e notation", f"{mantissa}e{power}", True),
        ("times", rf"{mantissa} \times 10^{{{power}}}", True),
        ("cdot", rf"{mantissa}\cdot10^{{{power}}}", True),
        ("raised digits", f"{mantissa} × 10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}", True),
        ("another power", rf"{mantissa} \times 10^{{{power + 1}}}", False),
        ("mantissa alone", mantissa, False),
        ("sign", rf"-{mantissa} \times 10^{{{power}}}".replace("--", ""), False),
    ]
