"""Rewrites and near-misses of sets, tuples, intervals, matrices, equations, expressions, booleans and texts.

As in ``quality_numbers.py``: each function gives (cause, answer, must it match?) for a reference of one shape.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from quality_numbers import FRACTION, Forms, decimal, number_forms, quantity_forms, value_of

# ---------------------------------------------------------------------------- sets, tuples, intervals, matrices

_SCALAR = rf"(?:-?\d+(?:\.\d+)?|{FRACTION})"


def _rewritten(element: str) -> str:
    """The element in another form: a fraction as a decimal or ``a/b``, an integer with ``.0``."""
    v = value_of(element)
    if v.denominator == 1:
        return f"{v.numerator}.0"
    return decimal(v) or f"{v.numerator}/{v.denominator}"


def _changed(element: str) -> str:
    v = value_of(element) + 1
    return decimal(v) or f"{'-' if v < 0 else ''}\\frac{{{abs(v.numerator)}}}{{{v.denominator}}}"


def _negated(element: str) -> str:
    return element[1:] if element.startswith("-") else f"-{element}"


def set_forms(reference: str, rng: random.Random) -> Forms:
    """A list of different scalars, with or without braces: the order says nothing."""
    elements = [e.strip() for e in re.sub(r"^\\\{|\\\}$", "", reference.strip()).split(",")]
    values = [value_of(e) for e in elements]
    if len(set(values)) < len(values):
        return []
    mixed = elements[1:] + elements[:1]
    i = rng.randrange(len(elements))
    new = str(max(values).__floor__() + 3)
    forms: Forms = [
        ("reference", reference, True),
        ("order", ", ".join(mixed), True),
        ("braces", "\\{" + ", ".join(elements) + "\\}", True),
        ("braces, order", "\\left\\{ " + " , ".join(mixed) + " \\right\\}", True),
        ("and", ", ".join(elements[:-1]) + " and " + elements[-1], True),
        ("and in LaTeX", ", ".join(elements[:-1]) + " \\text{ and } " + elements[-1], True),
        ("elements rewritten", ", ".join(map(_rewritten, elements)), True),
        ("equations", " or ".join(f"x = {e}" for e in elements), True),
        ("semicolons", "; ".join(elements), True),
        ("union", " \\cup ".join(f"\\{{{e}\\}}" for e in mixed), True),
        ("first only", elements[0], False),
        ("negated", "not " + ", ".join(elements), False),
        ("sum", " + ".join(f"({e})" for e in elements), False),
        ("solution missing", ", ".join(elements[:-1]), False),
        ("extra solution", ", ".join([*elements, new]), False),
    ]
    if len(values) == 2 and values[0] == -values[1]:
        forms.append(("plus or minus", f"\\pm {max(elements, key=value_of)}", True))
        forms.append(("plus or minus, other", f"\\pm {_changed(max(elements, key=value_of))}", False))
    one_changed = [*elements[:i], _changed(elements[i]), *elements[i + 1 :]]
    if set(map(value_of, one_changed)) != set(values):
        forms.append(("one element changed", ", ".join(one_changed), False))
    one_negated = [*elements[:i], _negated(elements[i]), *elements[i + 1 :]]
    if set(map(value_of, one_negated)) != set(values):
        forms.append(("one sign", "\\{" + ", ".join(one_negated) + "\\}", False))
    return forms


def tuple_forms(reference: str, rng: random.Random) -> Forms:
    """Scalars in parentheses: the order counts."""
    elements = [e.strip() for e in re.sub(r"^(?:\\left)?\s*\(|(?:\\right)?\s*\)$", "", reference.strip()).split(",")]
    values = [value_of(e) for e in elements]
    i = rng.randrange(len(elements))
    forms: Forms = [
        ("reference", reference, True),
        ("spaces", "( " + " , ".join(elements) + " )", True),
        ("\\left( \\right)", "\\left(" + ", ".join(elements) + "\\right)", True),
        ("no spaces", "(" + ",".join(elements) + ")", True),
        ("elements rewritten", "(" + ", ".join(map(_rewritten, elements)) + ")", True),
        (
            "one element changed",
            "(" + ", ".join([*elements[:i], _changed(elements[i]), *elements[i + 1 :]]) + ")",
            False,
        ),
        ("component missing", "(" + ", ".join(elements[:-1]) + ")", False),
        ("component added", "(" + ", ".join([*elements, "1"]) + ")", False),
    ]
    if values[i]:
        forms.append(
            ("one sign", "(" + ", ".join([*elements[:i], _negated(elements[i]), *elements[i + 1 :]]) + ")", False)
        )
    if values[0] != values[-1]:
        forms.append(("swapped", "(" + ", ".join([elements[-1], *elements[1:-1], elements[0]]) + ")", False))
    return forms


_END = rf"(?:{_SCALAR}|-?\\infty)"
_INTERVAL = rf"(?:\\left)?\s*[\[(]\s*{_END}\s*,\s*{_END}\s*(?:\\right)?\s*[\])]"


def interval_forms(reference: str, rng: random.Random) -> Forms:
    """One interval or a union of several."""
    parts = re.findall(rf"([\[(])\s*({_END})\s*,\s*({_END})\s*(?:\\right)?\s*([\])])", reference)

    def write(pieces: list[tuple[str, str, str, str]], join: str = " \\cup ") -> str:
        return join.join(f"{o}{a}, {b}{c}" for o, a, b, c in pieces)

    forms: Forms = [
        ("reference", reference, True),
        ("no spaces", write(parts, "\\cup").replace(", ", ","), True),
        ("\\left \\right", " \\cup ".join(f"\\left{o} {a} , {b} \\right{c}" for o, a, b, c in parts), True),
        ("infinity sign", write(parts, " \u222a ").replace("\\infty", "\u221e"), True),
        ("x in", f"x \\in {write(parts)}", True),
        ("plus infinity", write([(o, a, "+\\infty" if b == "\\infty" else b, c) for o, a, b, c in parts]), True),
    ]
    o, a, b, c = parts[0]
    rest = parts[1:]
    flip = {"[": "(", "(": "[", "]": ")", ")": "]"}
    if "infty" not in a:
        forms += [
            ("end rewritten", write([(o, _rewritten(a), b, c), *rest]), True),
            ("open and closed", write([(flip[o], a, b, c), *rest]), False),
            ("end off by one", write([(o, decimal(value_of(a) - 1) or "-99", b, c), *rest]), False),
        ]
    if "infty" not in b:
        forms += [("open and closed", write([(o, a, b, flip[c]), *rest]), False)]
        forms += [("end off by one", write([(o, a, _changed(b), c), *rest]), False)]
    else:
        forms.append(("other infinity", write([(o, a, "-\\infty", c), *rest]), False))
    if not rest and "infty" not in a + b:
        low, high = {"[": "\\le", "(": "<"}[o], {"]": "\\le", ")": "<"}[c]
        other = {"\\le": "<", "<": "\\le"}
        forms.append(("inequality", f"{a} {low} x {high} {b}", True))
        forms.append(("inequality, other end", f"{a} {low} x {other[high]} {b}", False))
    if rest:
        forms += [("parts in another order", write([*rest, parts[0]]), True), ("part missing", write(rest), False)]
        forms.append(("intersection", write(parts, " \\cap "), False))
    return forms


_ENTRY = rf"\s*{_SCALAR}\s*"
_MATRIX = rf"\\begin\{{pmatrix\}}{_ENTRY}(?:(?:&|\\\\){_ENTRY})*\\end\{{pmatrix\}}"


def matrix_forms(reference: str, rng: random.Random) -> Forms:
    """A matrix or column vector of scalars."""
    body = re.sub(r"\\(?:begin|end)\{pmatrix\}", "", reference)
    cells = [[cell.strip() for cell in row.split("&")] for row in body.split("\\\\")]

    def write(m: list[list[str]], env: str = "pmatrix", row: str = " \\\\ ", cell: str = " & ") -> str:
        return f"\\begin{{{env}}} " + row.join(cell.join(r) for r in m) + f" \\end{{{env}}}"

    i, j = rng.randrange(len(cells)), rng.randrange(len(cells[0]))

    def with_cell(text: str) -> list[list[str]]:
        return [[text if (r, s) == (i, j) else cell for s, cell in enumerate(row)] for r, row in enumerate(cells)]

    fractions = [
        [re.sub(r"(-?)(\d+)/(\d+)", r"\1\\dfrac{\2}{\3}", cell) if "/" in cell else cell for cell in row]
        for row in cells
    ]
    forms: Forms = [
        ("reference", reference, True),
        ("bmatrix", write(cells, "bmatrix"), True),
        ("no spaces", write(cells, "pmatrix", "\\\\", "&"), True),
        (
            "array",
            f"\\left( \\begin{{array}}{{{'c' * len(cells[0])}}} {write(cells)[16:-14]} \\end{{array}} \\right)",
            True,
        ),
        ("nested lists", "[" + ", ".join(f"[{', '.join(row)}]" for row in cells) + "]", True),
        ("row spacing", write(cells, "pmatrix", " \\\\[4pt] "), True),
        ("fractions", write(fractions), True),
        ("one element changed", write(with_cell(_changed(cells[i][j]))), False),
    ]
    if value_of(cells[i][j]):
        forms.append(("one sign", write(with_cell(_negated(cells[i][j]))), False))
    transposed = [list(column) for column in zip(*cells, strict=True)]
    if transposed != cells:
        forms.append(("transposed", write(transposed), False))
    if cells[0] != cells[-1]:
        forms += [
            ("swapped", write([cells[-1], *cells[1:-1], cells[0]]), False),
            ("row missing", write(cells[:-1]), False),
        ]
    return forms


# ------------------------------------------------------------------------------------ equations and expressions


def equation_forms(reference: str, rng: random.Random) -> Forms:
    """``left = right`` with a right side of one or more terms."""
    left, right = (side.strip() for side in reference.split("="))
    forms: Forms = [
        ("reference", reference, True),
        ("sides swapped", f"{right} = {left}", True),
        ("no spaces", f"{left}={right}".replace(" ", ""), True),
        ("moved to one side", f"{left} - ({right}) = 0", True),
        ("doubled", f"2({left}) = 2({right})", True),
        ("right side changed", f"{left} = {right} + 1", False),
        ("one side doubled", f"2({left}) = {right}" if right != "0" else f"{left} = 1", False),
        ("side missing", f"{left} =", False),
    ]
    if right != "0":
        forms.append(("sign of a side", f"{left} = -({right})", False))
    if (number := re.search(r"(?<![\d^])\d+", right)) and number.group() != "0":
        changed = f"{right[: number.start()]}{int(number.group()) + 1}{right[number.end() :]}"
        forms.append(("coefficient changed", f"{left} = {changed}", False))
    return forms


def surd_forms(reference: str, rng: random.Random) -> Forms:
    r"""``a\sqrt{b}``, ``\sqrt{b}``, ``a\pi``."""
    match = re.fullmatch(r"(-?)(\d*)\s*\\(?:sqrt\{(\d+)\}|pi)", reference)
    assert match is not None, reference
    sign, a, b = match[1], int(match[2] or 1), match[3]
    forms: Forms = [
        ("reference", reference, True),
        ("sign", reference[1:] if sign else f"-{reference}", False),
        ("coefficient changed", f"{sign}{a + 1}" + reference[len(sign) + len(match[2]) :], False),
        ("coefficient alone", f"{sign}{a}", False),
        ("approximated", f"{sign}{a * (float(b) ** 0.5 if b else 3.14159265):.3f}", False),
        ("hedge", f"{reference} or {sign}{a + 1}" + reference[len(sign) + len(match[2]) :], False),
    ]
    if b is None:
        forms += [
            ("\\cdot", f"{sign}{a} \\cdot \\pi", True),
            ("pi sign", f"{sign}{a}\u03c0", True),
            ("pi in words", f"{sign}{a}pi", True),
            ("pi first", f"{sign}\\pi \\cdot {a}", True),
            ("halves", f"{sign}\\frac{{{2 * a}\\pi}}{{2}}", True),
            ("power changed", f"{sign}{a}\\pi^2", False),
        ]
        return forms
    forms += [
        ("space", f"{sign}{a} \\sqrt{{{b}}}", True),
        ("\\cdot", f"{sign}{a} \\cdot \\sqrt{{{b}}}", True),
        ("sqrt()", f"{sign}{a}*sqrt({b})", True),
        ("root below", f"{sign}\\frac{{{a * int(b)}}}{{\\sqrt{{{b}}}}}", True),
        ("root sign", f"{sign}{a}\u221a{b}", True),
        ("power of one half", f"{sign}{a} \\cdot {b}^{{1/2}}", True),
        ("root of the square", f"{sign}\\sqrt{{{a * a * int(b)}}}", True),
        ("radicand changed", f"{sign}{a}\\sqrt{{{int(b) + 1}}}", False),
        ("cube root", f"{sign}{a}\\sqrt[3]{{{b}}}", False),
    ]
    if a not in (1, int(b)):
        forms.append(("swapped", f"{sign}{b}\\sqrt{{{a}}}", False))
    return forms


def _factored(flat: str) -> Forms:
    """The product of the polynomial's factors, where there are several."""
    import sympy

    letters = {letter: sympy.Symbol(letter) for letter in set(re.findall(r"[a-z]", flat))}
    if "i" in letters:
        return []
    text = re.sub(r"(?<=[\da-z])(?=[a-z])", "*", flat).replace("^", "**")
    product = sympy.factor(sympy.sympify(text, locals=letters))
    return [("factored", sympy.latex(product), True)] if product.is_Mul or product.is_Pow else []


def polynomial_forms(reference: str, rng: random.Random) -> Forms:
    """A sum of at least two monomials in one or more letters."""
    flat = reference.replace(" ", "")
    terms = re.findall(r"[+-]?[^+-]+", flat)
    if len(terms) < 2:
        return []
    signed = [term if term[0] in "+-" else f"+{term}" for term in terms]

    def write(parts: list[str]) -> str:
        text = " ".join(f"{part[0]} {part[1:]}" for part in parts)
        return text[2:] if text[0] == "+" else text.replace("- ", "-", 1)

    i = rng.randrange(len(signed))
    flipped = [*signed[:i], ("-" if signed[i][0] == "+" else "+") + signed[i][1:], *signed[i + 1 :]]
    return [
        ("reference", reference, True),
        ("spaces", write(signed), True),
        ("no spaces", flat, True),
        ("order", write(signed[1:] + signed[:1]), True),
        ("reversed", write(signed[::-1]), True),
        ("parentheses", f"({write(signed)})", True),
        ("double, halved", f"\\frac{{2({write(signed)})}}{{2}}", True),
        ("powers as signs", re.sub(r"\^([23])", lambda m: {"2": "\u00b2", "3": "\u00b3"}[m[1]], write(signed)), True),
        ("stars", re.sub(r"(\d)([a-z])", r"\1*\2", flat), True),
        *_factored(flat),
        ("term's sign", write(flipped), False),
        ("term missing", write(signed[:-1]), False),
        ("constant added", f"{flat} + 1", False),
        ("coefficient changed", f"2({flat})", False),
    ]


def expression_forms(reference: str, rng: random.Random) -> Forms:
    """Any other expression that is not zero and has one value."""
    spaced = re.sub(r"\s*([+=])\s*", r" \1 ", reference)
    return [
        ("reference", reference, True),
        ("\\dfrac", re.sub(r"\\[dt]?frac", r"\\dfrac", reference), True),
        ("spaces", spaced, True),
        (
            "\\left( \\right)",
            reference.replace("\\left", "").replace("\\right", "").replace("(", "\\left(").replace(")", "\\right)"),
            True,
        ),
        ("times one", f"1 \\cdot ({reference})", True),
        ("double negation", f"-(-({reference}))", True),
        *([("equation", f"z = {reference}", True)] if "z" not in reference else []),
        ("sign", f"-({reference})", False),
        ("coefficient changed", f"2({reference})", False),
        ("constant added", f"{reference} + 1", False),
        ("hedge", f"{reference} \\text{{ or }} 2({reference})", False),
        ("unfinished", reference[: len(reference) // 2], False),
    ]


def list_forms(reference: str, rng: random.Random) -> Forms:
    """Three or more words or letters whose order is the answer."""
    words = [word.strip() for word in reference.split(",")]
    i, j = rng.sample(range(len(words)), 2)
    swapped = list(words)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    forms: Forms = [
        ("reference", reference, True),
        ("no spaces", ",".join(words), True),
        ("LaTeX", f"\\text{{{reference}}}", True),
        ("element missing", ", ".join(words[:i] + words[i + 1 :]), False),
        ("element added", ", ".join([*words, words[0]]), False),
        ("one element changed", ", ".join([*words[:i], f"{words[i]}ing", *words[i + 1 :]]), False),
    ]
    if swapped != words:
        forms.append(("two words swapped", ", ".join(swapped), False))
    return forms


# ------------------------------------------------------------------------------------------- booleans and texts


def boolean_forms(reference: str, rng: random.Random) -> Forms:
    """yes, no, true, false."""
    yes = reference.lower() in ("yes", "true")
    same, opposite = (("yes", "true"), ("no", "false")) if yes else (("no", "false"), ("yes", "true"))
    forms: Forms = [("reference", reference, True), ("upper case", reference.upper(), True)]
    forms += [("yes is true", word, True) for word in same] + [("LaTeX", f"\\text{{{reference}}}", True)]
    forms += [("opposite", word, False) for word in opposite]
    forms += [("hedge", f"{same[0]} or {opposite[0]}", False), ("undecided", "unknown", False)]
    return forms


def text_maker(texts: list[str]) -> Callable[[str, random.Random], Forms]:
    """Forms of short texts; near-misses are other texts of the same data."""
    bare = [re.sub(r"^\\text\{|\}$", "", text).strip() for text in texts]

    def text_forms(reference: str, rng: random.Random) -> Forms:
        word = re.sub(r"^\\text\{|\}$", "", reference).strip()
        if word.lower() in ("yes", "no", "true", "false"):
            return []
        others = [text for text in bare if text.lower() != word.lower()]
        other = rng.choice(others)
        forms: Forms = [
            ("reference", reference, True),
            ("upper case", word.upper(), True),
            ("lower case", word.lower(), True),
            ("LaTeX", f"\\text{{{word}}}", True),
            ("bold", f"\\textbf{{{word}}}", True),
            ("quotes", f'"{word}"', True),
            ("spaces", word.replace(" ", "  "), True),
            ("another text", other, False),
            ("negated", f"not {word}", False),
            ("hedge", f"{word} or {other}", False),
            ("list", f"{word}, {other}", False),
            ("letters lost", word[:-2], False),
        ]
        if " " not in word:
            forms.append(("article", f"the {word}", True))
        return forms

    return text_forms


_EXPRESSION = (
    r"(?=.*(?:\\sqrt|\\pi|\^|[a-z]))(?!.*(?:\\(?:pm|text|mbox|cup|infty|circ|in\b|approx|begin)|[=<>_,:;$]))"
    r"[-+\\{}()^ 0-9a-z]+"
)
SHAPES: list[tuple[str, Callable[[str, random.Random], Forms]]] = [
    (rf"-?\d+|-?\d+\.\d+|-?\d{{1,3}}(?:,\d{{3}})+|{FRACTION}", number_forms),
    (r"\d+(?:\.\d+)?(?:\^\\circ|\s*\\text\{ ?(?:feet|degrees|hours|days|cm|pounds|miles)\})", quantity_forms),
    (rf"{_SCALAR}(?:\s*,\s*{_SCALAR})+|\\\{{\s*{_SCALAR}(?:\s*,\s*{_SCALAR})+\s*\\\}}", set_forms),
    (rf"{_INTERVAL}(?:\s*\\cup\s*{_INTERVAL})+|(?=.*(?:infty|\[.*\)|\(.*\])){_INTERVAL}", interval_forms),
    (rf"(?:\\left)?\(\s*{_SCALAR}(?:\s*,\s*{_SCALAR})+\s*(?:\\right)?\)", tuple_forms),
    (_MATRIX, matrix_forms),
    (r"(?!.*\\(?:text|in|pm))[^=,<>]*[A-Za-z][^=,<>]*=[^=,<>]+", equation_forms),
    (r"-?\d*\s*\\(?:sqrt\{\d+\}|pi)", surd_forms),
    (r"(?=.*[a-z])-?\d*(?:[a-z](?:\^\d)?){0,2}(?:\s*[+-]\s*\d*(?:[a-z](?:\^\d)?){0,2}(?<=[a-z\d]))+", polynomial_forms),
    (r"(?i:yes|no|true|false)", boolean_forms),
    (r"[A-Za-z]+(?:, [A-Za-z]+){2,}", list_forms),
    (_EXPRESSION, expression_forms),
]
"""The shapes that have forms, the first that fits counts."""
