r"""One normal form for each notation that is neither arithmetic nor prose.

Formulas of chemistry with their charges and arrows (``H_2O``, ``\ce{H2O}``, ``SO_4^{2-}``), times, dates and ratios
(``03:05``), ranges ("between 3 and 5"), remainders (``3 \pmod 7``), products of letters whatever their spacing
(``m g h``), and formulas apart from their spaces. Two texts with one form in common are equal.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dereason.verify.text import as_latex, literal, normalise

MAX_FORM = 300
"""Longer texts have no form."""

_ELEMENTS = re.findall(
    r"\S+",
    """H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr
        Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W
        Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm D R X""",
)
_SPECIES = re.compile(
    rf"(?P<count>[0-9]{{0,3}})(?P<body>(?:(?:{'|'.join(sorted(_ELEMENTS, key=len, reverse=True))})"
    r"[0-9]{0,3}|[(\[]|[)\]][0-9]{0,2}|\u00b7[0-9]{0,2})+)"
    r"(?P<charge>\^[0-9]{0,2}[+-]{1,3}|[+-]{1,2}|\^[+-][0-9])?(?P<state>\((?:aq|s|l|g)\))?"
)
_ELECTRON = re.compile(r"(?P<count>[0-9]{0,2})e\^?-|(?P<orbital>[0-9]?d?sp)\^?(?P<power>[23]?d?[0-9]?)")
_ARROWS = re.compile(
    r"\\(?:to|iff|implies|rightleftharpoons|leftrightarrow|longrightarrow|xrightarrow|rightleftarrows)\s?(?:\[[^\]]*\])?(?:\{[^{}]*\})?|="
)
_SUBSCRIPT = re.compile(r"_\s?(?:\{\s?([^{}]*?)\s?\}|(\w))")
_BRACED = re.compile(r"\^\s?\{\s?([^{}]*?)\s?\}")
_CLOCK = re.compile(
    r"([0-9]{1,4})\s?(?:([:/.-])\s?([0-9]{1,4})(?:\s?[:/.-]\s?([0-9]{1,4}))?)?\s?([ap]\.?m\.?)?", re.IGNORECASE
)
_NUMBER = r"(-?[0-9][0-9,]*(?:\.[0-9]+)?)"
_RANGE = re.compile(
    rf"(?:between|from)?\s?{_NUMBER}\s?(?:and|to|through|[-\u2013\u2014]{{1,2}})\s?{_NUMBER}", re.IGNORECASE
)
_MOD = re.compile(r"\(?\s?\\?(?:pmod|bmod|mod)(?![a-z])\s?\{?\s?([0-9A-Za-z]+)\s?\}?\s?\)?")
_PLAIN_ION = re.compile(r"^([A-Z][a-z]?)([2-4])([+-])$")
_ION = re.compile(r"[A-Z][\w()]*[-+]{1,2}")
_LETTERS = re.compile(r"(?:[A-Za-z] ){1,7}[A-Za-z]|[A-Za-z]{2,8}")
_FORMULA = re.compile(r"[\\^_=+*/()]|\bmod\b|[0-9](?:,[0-9])*-[a-z]{3}")
_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")


def same_form(answer: str, reference: str) -> bool:
    """Whether two answers are the same in one of the notations above."""
    if len(answer) > MAX_FORM or len(reference) > MAX_FORM:
        return False
    return not forms(reference).isdisjoint(forms(answer))


@lru_cache(maxsize=4096)
def forms(text: str) -> frozenset[tuple[str, str]]:
    """The normal forms of a text, each with the name of its notation."""
    latex = as_latex(text)
    found: set[tuple[str, str]] = set()
    signs = literal(text)
    chemical = _chemistry(text) if signs is None or _ION.fullmatch(signs) else None
    if chemical is not None:
        found.add(("chemistry", chemical))
    if (clock := _CLOCK.fullmatch(latex)) is not None and (clock[2] or clock[5]):
        parts = [part.lstrip("0") or "0" for part in clock.group(1, 3, 4) if part]
        half = (clock[5] or "").replace(".", "").lower()
        if half and parts[1:] == ["0"]:
            parts = parts[:1]
        if half == "pm" and int(parts[0]) < 12:
            parts, half = [str(int(parts[0]) + 12), *(parts[1:] or ["0"])], ""
        found.add(("clock", f"{(clock[2] or ':').join(parts)}{half}"))
    if (bounds := _RANGE.fullmatch(latex)) is not None and not bounds[2].startswith("-"):
        found.add(("range", f"{bounds[1]} to {bounds[2]}"))
    if signs is not None:
        return frozenset(found)  # its signs count
    if _LETTERS.fullmatch(latex):
        found.add(("letters", latex.replace(" ", "")))
    if _FORMULA.search(latex):
        bare = _MOD.sub(r" mod \1", latex)
        found.add(("formula", _SPACE.sub("", _script(normalise(bare)))))
    return frozenset(found)


def _script(text: str) -> str:
    """One sign above or below without its braces."""
    return re.sub(r"([_^])\{([^{}\\])\}", r"\1\2", text)


def _chemistry(text: str) -> str | None:
    """The species of a formula or of both sides of a reaction."""
    text = _PLAIN_ION.sub(r"\1^{\2\3}", text.strip())
    bare = re.sub(r"\\(?:ce|cf|chem|text|mathrm|rm)(?![A-Za-z])", "", text)
    latex = as_latex(bare)
    plain = (
        _BRACED.sub(r"^\1", _SUBSCRIPT.sub(r"\1\2", latex))
        .replace("{", "")
        .replace("}", "")
        .replace("\\cdot", "\u00b7")
    )
    sides = [side.strip() for side in _ARROWS.split(plain)]
    if not 1 <= len(sides) <= 2:
        return None
    keys = [_side(side) for side in sides]
    return None if None in keys else " -> ".join(key for key in keys if key is not None)


def _side(side: str) -> str | None:
    parts = []
    for part in re.split(r"\s\+\s|(?<=[0-9a-z)])\s?\+\s(?=[0-9A-Z])", side):
        bare = part.replace(" ", "").replace("^^", "^")
        electron = _ELECTRON.fullmatch(bare)
        species = _SPECIES.fullmatch(bare)
        if electron is not None:
            parts.append(f"{electron['orbital'] or electron['count'] + 'e-'}{electron['power'] or ''}")
        elif species is not None:
            charge = (species["charge"] or "").removeprefix("^")
            charge = re.sub(r"^([+-])([0-9])$", r"\2\1", charge)
            charge = {"++": "2+", "--": "2-", "1+": "+", "1-": "-"}.get(charge, charge)
            count = species["count"] if species["count"] != "1" else ""
            parts.append(f"{count}{species['body']}{charge and '^' + charge}")
        else:
            return None
    return " + ".join(sorted(parts))
