r"""What a reference is rewritten into: answers that say the same, and answers that say something else.

Each form is sure by the rule that makes it, from the text of the reference alone: nothing here asks the verifier's
parsers what equals what, for it is the verifier that is tested. Where a rule cannot be sure, it makes no form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from dereason.verify.audit.units import SPELLINGS, other_dimension
from dereason.verify.kinds import MATHEMATICS, Kind
from dereason.verify.tolerance import EXACT, Tolerance


@dataclass(frozen=True)
class Form:
    """One answer, or one whole response, with what must be said of it."""

    rule: str
    """What was done to the reference."""
    text: str
    """The answer; with ``whole`` the response."""
    holds: bool
    """Whether it must be correct."""
    whole: bool = False
    """Whether the text is a response as it is; else it is put into a box."""
    marked: bool = True
    """Whether the response marks its answer: what marks none must never be strictly correct."""

    @property
    def response(self) -> str:
        r"""The response: the answer in a ``\boxed{}``, where any answer has a clear end."""
        return self.text if self.whole else f"Hence \\boxed{{{self.text}}}"


Made = list[tuple[str, str]]
"""(rule, answer)."""

_INTEGER = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
_DECIMAL = re.compile(rf"-?(?:{_INTEGER})(?:\.[0-9]+)?|-?\.[0-9]+")
_FRACTION = re.compile(r"(-?)(?:\\[dt]?frac\{(-?[0-9]+)\}\{([0-9]+)\}|([0-9]+)/([0-9]+))")
_PERCENT = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s?\\?%")
_DEGREES = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s?(?:\^\s?\{?\s?\\circ\s?\}?|°|degrees)")
_QUANTITY = re.compile(
    rf"(?P<number>-?(?:{_INTEGER})(?:\.[0-9]+)?)(?:\s|\\[,;: ]|~)*"
    r"(?:\\(?:text|mathrm|mbox)\s*\{\s*(?P<dressed>[A-Za-z]{1,14})\s*\}|(?P<plain>[A-Za-z]{2,14}))"
)
_WORDS = re.compile(r"[^\W\d_]{3,}(?:[ -][^\W\d_]{3,})*")
_BRACKETS = re.compile(r"(?:\\left\s*)?(\\\{|[(\[])(.*?)(?:\\right\s*)?(\\\}|[)\]])", re.DOTALL)
_WHOLE = re.compile(r"(?<![A-Za-z0-9.^_{])[0-9]{1,6}(?![0-9.]*[0-9}])")
_VAGUE = re.compile(
    r"infty|emptyset|varnothing|mathbb|text|\\[lc]?dots|\\pm|\\mp|\.\.\.|\\to(?![a-z])|\\in(?![a-z])|\\(?:cup|cap|setminus)"
    r"|[=<>,;:?]|\\(?:le|ge|ne|sim|approx|equiv|mid|quad|land|lor)"
)
_PERIODIC = re.compile(
    r"sin|cos|tan|cot|sec|csc|!|(?<![0-9.])0(?![0-9.])|mod|floor|ceil|binom|\^\s?\{?\s?1|(?<![0-9])1\^|i\^"
)


def value_of(text: str) -> Fraction | None:
    r"""The number that a plain text writes: an integer, a decimal, a fraction; None for anything else."""
    bare = text.strip().strip("$").strip()
    if _DECIMAL.fullmatch(bare):
        return Fraction(bare.replace(",", ""))
    match = _FRACTION.fullmatch(bare)
    if match is None:
        return None
    above, below = (match[2], match[3]) if match[2] is not None else (match[4], match[5])
    if int(below) == 0:
        return None
    return Fraction(int(above), int(below)) * (-1 if match[1] else 1)


def decimal(value: Fraction) -> str | None:
    """The number as a decimal, None where it does not end within eight digits."""
    scaled = value * 10**8
    if scaled.denominator != 1:
        return None
    digits = f"{abs(scaled.numerator):09d}"
    text = f"{digits[:-8]}.{digits[-8:]}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text


def written(value: Fraction) -> str:
    """The number as a decimal, or as a fraction where none ends."""
    return decimal(value) or f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def skeleton(text: str) -> tuple[object, ...]:
    """What two answers that say the same in other dress or order have in common, as far as signs tell."""
    number = value_of(text)
    if number is not None:
        return (number,)
    text = re.sub(r"\^\s?\{?\s?\\circ\s?\}?|°|\bdegree\b", " degrees ", text)
    plain = re.sub(r"\\(?:left|right|text|mathrm|[dt]?frac|displaystyle|[,;:! ])|[{}$\s()\[\]]", " ", text)
    return tuple(sorted(re.findall(r"[^\W_]+|[^\s\w]", plain.casefold())))


# ------------------------------------------------------------------------------------------- rewritings that must hold


def rewritings(reference: str, kind: Kind) -> list[Form]:
    """What says the same as a reference without options.

    Args:
        reference: as it stands in the pool.
        kind: its kind; decides which rules apply.
    """
    bare = reference.strip()
    made: Made = [("spaces", f"  {bare} ")]
    if kind in MATHEMATICS or kind in (Kind.NUMBER, Kind.QUANTITY):
        if "$" not in bare:
            made += [("dollar signs", f"${bare}$"), ("\\displaystyle", f"\\displaystyle {bare}")]
        made += _typesetting(bare)
    makers = {
        Kind.NUMBER: _same_number,
        Kind.QUANTITY: _same_quantity,
        Kind.BOOLEAN: _same_truth,
        Kind.SET: _same_set,
        Kind.TUPLE: _same_tuple,
        Kind.MATRIX: _same_matrix,
        Kind.EQUATION: _same_equation,
        Kind.TEXT: _same_words,
    }
    if kind in makers:
        made += makers[kind](bare)
    texts = {bare}
    forms = []
    for rule, text in made:
        if text not in texts:
            texts.add(text)
            forms.append(Form(rule, text, True))
    return forms


def _typesetting(text: str) -> Made:
    made: Made = []
    if re.search(r"\\frac(?![A-Za-z])", text):
        made.append(("\\dfrac", re.sub(r"\\frac(?![A-Za-z])", r"\\dfrac", text)))
        made.append(("\\tfrac", re.sub(r"\\frac(?![A-Za-z])", r"\\tfrac", text)))
    if re.search(r"\^[0-9](?![0-9])", text):
        made.append(("braces around a power", re.sub(r"\^([0-9])(?![0-9])", r"^{\1}", text)))
    if re.search(r"\\sqrt\{[0-9]\}", text):
        made.append(("a root without braces", re.sub(r"\\sqrt\{([0-9])\}", r"\\sqrt\1", text)))
    # brackets of a pair that is written without \left; unequal ones may be an interval's
    if re.fullmatch(r"[(\[][^()\[\]{}\\]*[)\]]", text):
        made.append(("\\left and \\right", f"\\left{text[:-1]}\\right{text[-1]}"))
    if re.search(r"(?<=[0-9A-Za-z)}]) ?\+ ?(?=[0-9A-Za-z(\\])", text) and "text" not in text:
        made.append(("spaces around a sign", re.sub(r"(?<=[0-9A-Za-z)}]) ?\+ ?(?=[0-9A-Za-z(\\])", " + ", text)))
    return made


def _same_number(text: str) -> Made:
    percent = _PERCENT.fullmatch(text)
    if percent is not None:
        value = Fraction(percent[1])
        made = [("percent sign", f"{percent[1]}%"), ("percent in LaTeX", f"{percent[1]}\\%")]
        return [*made, ("percent in words", f"{percent[1]} percent"), ("percent as a decimal", written(value / 100))]
    number = value_of(text)
    if number is None:
        return []
    made = [("an equation", f"x = {text.strip('$')}"), ("\\text", f"\\text{{{text.strip('$')}}}")]
    plain = decimal(number)
    whole = abs(number.numerator)
    sign = "-" if number < 0 else ""
    if number.denominator == 1:
        made += [("trailing zeros", f"{sign}{whole}.00"), ("as a fraction", f"\\frac{{{2 * number.numerator}}}{{2}}")]
        if whole >= 1000:
            grouped = f"{sign}{whole:,}"
            made += [
                ("thousands separators", grouped),
                ("thousands separators in LaTeX", grouped.replace(",", "{,}")),
                ("without thousands separators", f"{sign}{whole}"),
            ]
        return made
    below = number.denominator
    made += [
        ("a fraction on one line", f"{sign}{whole}/{below}"),
        ("\\dfrac", f"{sign}\\dfrac{{{whole}}}{{{below}}}"),
        ("an unreduced fraction", f"{sign}\\frac{{{3 * whole}}}{{{3 * below}}}"),
    ]
    if plain is not None:
        made += [("as a decimal", plain), ("trailing zeros", f"{plain}00")]
        if abs(number) < 1:
            made.append(("without a leading zero", plain.replace("0.", ".", 1)))
            made.append(("as a percentage", f"{decimal(number * 100)}\\%"))
    return made


def _same_quantity(text: str) -> Made:
    degrees = _DEGREES.fullmatch(text)
    if degrees is not None:
        number = degrees[1]
        return [
            ("degree sign", f"{number}°"),
            ("degrees in LaTeX", f"{number}^\\circ"),
            ("degrees in words", f"{number} degrees"),
            ("number alone", number),
        ]
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return []
    number, unit = match["number"], match["dressed"] or match["plain"]
    made = [
        ("number alone", number),
        ("unit in \\text", f"{number}\\text{{ {unit}}}"),
        ("space before the unit", f"{number} {unit}"),
        ("trailing zeros", f"{number}{'0' if '.' in number else '.0'} \\text{{{unit}}}"),
    ]
    return made + [("unit spelled otherwise", f"{number} {other}") for other in SPELLINGS.get(unit, ())[:1]]


def _same_truth(text: str) -> Made:
    word = re.sub(r"\\text\{(.*)\}", r"\1", text).strip(" .$").lower()
    pairs = {"yes": "true", "true": "yes", "no": "false", "false": "no"}
    if word not in pairs:
        return []
    return [
        ("small letters", word),
        ("capital letters", word.upper()),
        ("capitalised", word.capitalize()),
        ("full stop", f"{word}."),
        ("yes for true", pairs[word]),
    ]


def items(text: str) -> tuple[str, list[str], str] | None:
    """The brackets and the elements of a set, a tuple or a list without brackets; None where it is none."""
    match = _BRACKETS.fullmatch(text)
    left, body, right = (match[1], match[2], match[3]) if match is not None else ("", text, "")
    # "1,000, 2,000": commas with a space behind them separate, the others do not
    grouped = re.search(r",\s", body) is not None and re.search(r"[0-9],[0-9]{3}(?![0-9])", body) is not None
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(body):
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return None
        if depth == 0 and sign == "," and not (grouped and not body[at + 1 : at + 2].isspace()):
            parts.append(body[start:at].strip())
            start = at + 1
    parts.append(body[start:].strip())
    return (left, parts, right) if len(parts) > 1 and all(parts) and depth == 0 else None


def _same_set(text: str) -> Made:
    found = items(text.strip("$"))
    if found is None:
        return []
    left, parts, right = found
    if (left, right) not in (("", ""), ("\\{", "\\}")) or any(" and " in p or " or " in p or "=" in p for p in parts):
        return []
    turned = ", ".join(reversed(parts))
    made = [("another order", f"{left}{turned}{right}"), ("in braces", f"\\{{{', '.join(parts)}\\}}")]
    made.append(("\\left and \\right", f"\\left\\{{{', '.join(parts)}\\right\\}}"))
    if not left and all(value_of(part) is not None for part in parts):
        made.append(("and before the last", f"{', '.join(parts[:-1])} and {parts[-1]}"))
    return made


def _same_tuple(text: str) -> Made:
    found = items(text.strip("$"))
    if found is None or not found[0]:
        return []
    left, parts, right = found
    return [
        ("no spaces", f"{left}{','.join(parts)}{right}"),
        ("spaces after commas", f"{left}{', '.join(parts)}{right}"),
    ]


def _same_matrix(text: str) -> Made:
    made: Made = []
    for here, there in (("pmatrix", "bmatrix"), ("bmatrix", "pmatrix")):
        if f"\\begin{{{here}}}" in text:
            made.append((f"\\begin{{{there}}}", text.replace(here, there)))
    return [*made, ("spaces around &", re.sub(r"\s*&\s*", " & ", text))]


def _same_equation(text: str) -> Made:
    bare = text.strip("$")
    sides = bare.split("=")
    if len(sides) != 2 or re.search(r"[<>,;]|\\(?:le|ge|ne|in|text|quad)", bare) or sides[0].rstrip()[-1:] in "!:":
        return []
    left, right = (side.strip() for side in sides)
    made = [("sides swapped", f"{right} = {left}"), ("no spaces at the sign", f"{left}={right}")]
    if re.fullmatch(r"[a-zA-Z]", left) and value_of(right) is not None:
        made.append(("value alone", right))
    return made


def _same_words(text: str) -> Made:
    words = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()
    if not _WORDS.fullmatch(words):
        return []
    return [
        ("small letters", words.lower()),
        ("capital letters", words.upper()),
        ("full stop", f"{words}."),
        ("article", f"the {words}"),
        ("\\text", f"\\text{{{words}}}"),
        ("quotation marks", f'"{words}"'),
    ]


# ------------------------------------------------------------------------------------------------------- near misses


def near_misses(reference: str, kind: Kind, tolerance: Tolerance = EXACT) -> list[Form]:
    """What says something else than a reference without options, though it looks like it.

    Args:
        reference: as it stands in the pool.
        kind: its kind; decides which rules apply.
        tolerance: what is within it is no miss.
    """
    bare = reference.strip()
    makers = {
        Kind.NUMBER: _other_numbers,
        Kind.QUANTITY: _other_quantities,
        Kind.BOOLEAN: _other_truth,
        Kind.SET: _other_sets,
        Kind.TUPLE: _other_tuples,
        Kind.INTERVAL: _other_intervals,
        Kind.MATRIX: _other_matrices,
        Kind.EQUATION: _other_equations,
        Kind.EXPRESSION: _other_expressions,
        Kind.TEXT: _other_words,
    }
    made = makers[kind](bare) if kind in makers else []
    number = value_of(bare)
    forms = []
    for rule, text in made:
        other = value_of(text)
        if number is not None and other is not None and (other == number or tolerance.allows(other, number)):
            continue
        if text != bare:
            forms.append(Form(rule, text, False))
    return forms if not tolerance or kind is Kind.NUMBER else []


def _other_numbers(text: str) -> Made:
    percent = _PERCENT.fullmatch(text)
    if percent is not None:
        value = Fraction(percent[1])
        return [("off by one", f"{written(value + 1)}\\%"), ("ten times", f"{written(value * 10 or Fraction(10))}\\%")]
    number = value_of(text)
    if number is None:
        return []
    made = [("off by one", written(number + 1)), ("off by one, below", written(number - 1))]
    made.append(("ten times", written(number * 10)))
    made.append(("a tenth", written(number / 10)))
    made.append(("sign", written(-number)))
    plain = decimal(number)
    if plain is not None and number.denominator != 1:
        last = int(plain[-1])
        made.append(("last digit changed", f"{plain[:-1]}{last + 1 if last < 9 else last - 1}"))
        made.append(("last digit lost", plain[:-1].rstrip(".")))
    elif plain is not None and len(plain.lstrip("-")) > 1:
        made.append(("last digit lost", plain[:-1]))
    elif plain is None:
        made.append(("the other way up", written(1 / number)))
    if number:
        made.append(("a variable behind it", f"{text.strip('$')}x"))
    return [*made, ("plus or minus", f"{text.strip('$')} \\pm 1"), ("an inequality", f"x > {text.strip('$')}")]


def _other_quantities(text: str) -> Made:
    degrees = _DEGREES.fullmatch(text)
    if degrees is not None:
        value = Fraction(degrees[1])
        return [("off by one", f"{written(value + 1)}^\\circ"), ("sign", f"{written(-value - (value == 0))}^\\circ")]
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return []
    value, unit = Fraction(match["number"].replace(",", "")), match["dressed"] or match["plain"]
    made = [
        ("off by one", f"{written(value + 1)} \\text{{ {unit}}}"),
        ("ten times", f"{written(value * 10 or Fraction(10))} \\text{{ {unit}}}"),
        ("sign", f"{written(-value or Fraction(-1))} \\text{{ {unit}}}"),
        ("unit alone", f"\\text{{{unit}}}"),
    ]
    other = other_dimension(unit)
    return [*made, ("unit of another dimension", f"{match['number']} \\text{{ {other}}}")] if other else made


def _other_truth(text: str) -> Made:
    word = re.sub(r"\\text\{(.*)\}", r"\1", text).strip(" .$").lower()
    opposite = {"yes": "no", "no": "yes", "true": "false", "false": "true"}.get(word)
    if opposite is None:
        return []
    return [("opposite", opposite), ("both", f"{word} and {opposite}"), ("one or the other", f"{word} or {opposite}")]


def _changed(text: str) -> str | None:
    """The text with its first whole number one larger; None where it has none, or none that surely decides."""
    if _PERIODIC.search(text):
        return None
    changed = _WHOLE.sub(lambda m: str(int(m[0]) + 1), text, count=1)
    return changed if changed != text else None


def _other_sets(text: str) -> Made:
    found = items(text.strip("$"))
    if found is None or any("pm" in part or " and " in part for part in found[1]):
        return []
    left, parts, right = found
    values = [value_of(part) for part in parts]
    if None in values or len(set(values)) < len(parts):
        return []
    last = next(n for n in range(1, 99) if Fraction(n) not in values)
    return [
        ("an element missing", f"{left}{', '.join(parts[:-1])}{right}"),
        ("an element more", f"{left}{', '.join([*parts, str(last)])}{right}"),
        ("an element changed", f"{left}{', '.join([*parts[:-1], str(last)])}{right}"),
    ]


def _other_tuples(text: str) -> Made:
    found = items(text.strip("$"))
    if found is None or not found[0]:
        return []
    left, parts, right = found
    made = [("an element missing", f"{left}{', '.join(parts[:-1])}{right}")] if len(parts) > 2 else []
    if skeleton(parts[0]) != skeleton(parts[-1]):
        made.append(("swapped", f"{left}{', '.join([parts[-1], *parts[1:-1], parts[0]])}{right}"))
    first = value_of(parts[0])
    if first is not None:
        made.append(("an element changed", f"{left}{', '.join([written(first + 1), *parts[1:]])}{right}"))
    return [*made, ("an element more", f"{left}{', '.join([*parts, '7'])}{right}")]


def _other_intervals(text: str) -> Made:
    bare = text.strip("$")
    found = items(bare)
    if found is None or len(found[1]) != 2 or "cup" in bare or not found[0]:
        return []
    left, (low, high), right = found[0], found[1], found[2]
    made = []
    if "infty" not in low:
        made.append(("an end open or closed", f"{'(' if left == '[' else '['}{low}, {high}{right}"))
    if "infty" not in high:
        made.append(("the other end open or closed", f"{left}{low}, {high}{')' if right == ']' else ']'}"))
    end = value_of(low)
    if end is not None:
        made.append(("an end moved", f"{left}{written(end - 1)}, {high}{right}"))
    return made


def _other_matrices(text: str) -> Made:
    match = re.fullmatch(r"(.*\\begin\{(?:[pb]matrix|array)\})(.*)(\\end\{.*)", text, re.DOTALL)
    if match is None:
        return []
    made: Made = []
    rows = [row for row in match[2].split("\\\\") if row.strip()]
    if len(rows) > 1:
        made.append(("a row missing", match[1] + "\\\\".join(rows[:-1]) + match[3]))
    changed = _changed(match[2])
    return [*made, ("an entry changed", match[1] + changed + match[3])] if changed else made


def _other_equations(text: str) -> Made:
    bare = text.strip("$")
    if bare.count("=") != 1 or _VAGUE.search(bare.replace("=", "")):
        return []
    left, right = (side.strip() for side in bare.split("="))
    if not left or not right:
        return []
    return [("one more on a side", f"{left} = {right} + 1"), ("unequal", f"{left} \\neq {right}")]


def _other_expressions(text: str) -> Made:
    bare = text.strip("$").strip()
    if _VAGUE.search(bare) or re.search(r"[A-Za-z]{4,}", re.sub(r"\\[A-Za-z]+", "", bare)) or "_{" in bare:
        return []
    made = [("one more", f"{bare} + 1"), ("sign", f"-({bare})"), ("twice", f"2({bare})")]
    changed = _changed(bare)
    return [*made, ("a number changed", changed)] if changed else made


def _other_words(text: str) -> Made:
    words = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()
    if not _WORDS.fullmatch(words):
        return []
    several = words.split()
    made = [("denied", f"not {words}"), ("words behind it", f"{words} and something else")]
    if len(several) > 1:
        made.append(("beginning alone", " ".join(several[:-1])))
    elif len(words) > 5:
        made.append(("beginning alone", words[: len(words) // 2]))
    return made
