r"""Answers as text: markup stripped, one spelling of signs, and the normal forms in which texts are compared.

Three forms, each made from the one before:

* :func:`strip_markup`: without the dress of LaTeX and Markdown;
* :func:`as_latex`: Unicode signs of mathematics as LaTeX commands, digits of any script as ASCII, single spaces;
* :func:`normalise`: no spaces by symbols, long words in lower case. Equal normal forms are equal answers.

:func:`prose_key` is the more tolerant form in which answers in words are compared.
"""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(
    r"""
    (?P<wrap>\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|[mhf]box|operatorname|emph|boxed|underline
        |boldsymbol|bm|textcolor\{[a-zA-Z]{1,20}\})\s*\{)
    | (?P<drop>\\color\{[a-zA-Z]{1,20}\}
        | \\(?:left|right|displaystyle|textstyle|quad|qquad|bigl?|bigr?|Bigl?|Bigr?)(?![A-Za-z])
        | (?<=[0-9])(?:\{,\}|,\s?\\!\s?|\\,)(?=[0-9]{3}(?![0-9]))       # between thousands
        | \\[!,;:>()\[\]] | \\?\$ | (?<![\w)\]}])\*\* | \*\*(?![\w(\[{\\]) | __ | `)
    | (?P<space>\\[ ] | ~)
    | (?P<frac>\\[dtc]frac(?![A-Za-z]))
    | (?P<comma>\{,\})
    | (?P<keep>\\%)
    | \\. | [{}]
    """,
    re.VERBOSE | re.DOTALL,
)
_GOES_ON = re.compile(r"[,;]\s?\.{2,4}$")
SIGNS = str.maketrans(
    {
        "\u2212": "-",
        "\ufe63": "-",
        "\uff0d": "-",
        "\u2010": "-",
        "\u2011": "-",
        "\u2019": "'",
        "\u2018": "'",
        "\u066b": ".",
        "\u066c": ",",
        "\u066a": "%",
    }
)
"""Other forms of minus, hyphen and apostrophe, and the Arabic separators and percent sign."""

_COMMAND_OR_WORD = re.compile(r"\\[A-Za-z]+|[^\W\d_]{4,}")
_SPACE_BY_SYMBOL = re.compile(r"(?<=[^\w\s]) | (?=[^\w\s])")

_LATEX = {
    "\u00d7": r"\times ",
    "\u00b7": r"\cdot ",
    "\u22c5": r"\cdot ",
    "\u2219": r"\cdot ",
    "\u00f7": "/",
    "\u2044": "/",
    "\u2215": "/",
    "\u221e": r"\infty ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2208": r"\in ",
    "\u2264": r"\le ",
    "\u2a7d": r"\le ",
    "\u2265": r"\ge ",
    "\u2a7e": r"\ge ",
    "\u2260": r"\ne ",
    "\u2248": r"\approx ",
    "\u00b1": r"\pm ",
    "\u2213": r"\mp ",
    "\u00b0": r"^\circ ",
    "\u00ba": r"^\circ ",
    "\u2205": r"\emptyset ",
    "\u211d": r"\mathbb{R} ",
    "\u27e8": r"\langle ",
    "\u27e9": r"\rangle ",
    "\u2103": r"^\circ C",
    "\u2109": r"^\circ F",
    "\u00b5": "u",
    "\u221a": r"\sqrt ",
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
# A Greek letter is a symbol where it stands alone; within a Greek word it is text.
_FOREIGN = re.compile(
    r"""
    (?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+)
    | (?P<lowered>[₀₁₂₃₄₅₆₇₈₉]+)
    | √\s?(?P<root>[0-9]+(?:\.[0-9]+)?)
    | (?P<greek>(?<![\u0370-\u03ff])[αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ](?![\u0370-\u03ff]))
    | (?P<other>[^\x00-\x7f])
    """,
    re.VERBOSE,
)

_TOKEN = re.compile(
    r"""
    (?:(?<![^\W_])-(?=[^\W_]))?[^\W_]+(?:['.:/][^\W_]+)*   # a word, a time, "p.m"; with its sign where it has one
    | [^\w\s.,;:!?'"()\u201c\u201d\u2026-]                # any sign that is no punctuation counts
    | (?<=[A-Z])['-](?![^\W_])                          # and A- is not A, nor A'
    """,
    re.VERBOSE,
)
_WITHIN = re.compile(r"(?<![0-9])[.']|[.'](?![0-9])")
_LETTERS = re.compile(r"[^\W\d_]+")
_ARTICLES = frozenset({"a", "an", "the"})


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
    bare = "".join(out).strip(" \t\r\n\f\v\u00a0*_").lstrip(":")
    if _GOES_ON.search(bare) is None:  # "1, 2, ..." is not 1, 2
        bare = bare.rstrip(".,;: \t\r\n*_\u3002")
    bare = bare.strip()
    if len(bare) > 1 and (bare[0] + bare[-1]) in ('""', "''", "\u201c\u201d"):
        bare = bare[1:-1].strip().rstrip(".,;:")
    return bare


def _ascii(match: re.Match[str]) -> str:
    kind, token = match.lastgroup, match.group()
    if kind == "raised":
        return "^{" + token.translate(_RAISED) + "}"
    if kind == "lowered":
        return "_{" + token.translate(_LOWERED) + "}"
    if kind == "root":
        return "\\sqrt{" + match.group("root") + "}"
    if kind == "greek":
        name = unicodedata.name(token).rpartition(" ")[2].replace("LAMDA", "LAMBDA")
        return f"\\{name.lower() if token.islower() else name.capitalize()} "
    if token in _LATEX:
        return _LATEX[token]
    digit = unicodedata.decimal(token, None)
    if digit is not None:
        return str(digit)
    plain = unicodedata.normalize("NFKC", token)
    if "\u2044" in plain:  # a vulgar fraction: "1½" is a mixed number
        return " " + plain.replace("\u2044", "/")
    # Full-width signs; anything else that has another form (ligatures, accents) is text and stays.
    return plain if len(plain) == 1 and "!" <= plain <= "~" else token


def as_latex(text: str) -> str:
    r"""The text without markup, in one line, with the signs of mathematics in LaTeX and in ASCII.

    ``2√5 × 10³`` becomes ``2\sqrt{5} \times 10^{3}``; digits of any script become ASCII digits; every space
    becomes one plain space. Linear in the length.
    """
    bare = strip_markup(text)
    if not bare.isascii():
        bare = _FOREIGN.sub(_ascii, unicodedata.normalize("NFC", bare).translate(SIGNS))
    return " ".join(bare.split())


def normalise(text: str) -> str:
    r"""The text as it is compared first.

    :func:`as_latex`, spaces removed by symbols (``(3, 4)`` is ``(3,4)``), words of five letters or more in lower case,
    and words of four with one capital; one pair of parentheses around a single letter removed (``(B)`` is ``B``). Any
    other letter keeps its case: *Mm* is not *mm*, and 5 MW are not 5 mW.
    """
    bare = _SPACE_BY_SYMBOL.sub("", as_latex(text))
    bare = _COMMAND_OR_WORD.sub(lambda m: m.group() if m.group()[0] == "\\" else _small(m.group()), bare)
    if len(bare) == 3 and bare[0] == "(" and bare[2] == ")" and bare[1].isalpha():
        return bare[1]
    return bare


def _small(word: str) -> str:
    return word.casefold() if word[1:].islower() or len(word) > 4 else word


def prose_key(text: str) -> str:
    """The form in which answers in words are compared.

    Forgiven: case (not of a text that is one letter, nor of "kT"), articles, punctuation (not within a number, nor in
    "A-" and "A'"), and a hyphen for a space. Not forgiven: any other letter or sign, so no typing mistakes, no synonyms
    and no other order of words.
    """
    plain = unicodedata.normalize("NFC", strip_markup(text)).translate(SIGNS)
    # "p.m." is "pm" and "it's" is "its", but 3.5 is not 35.
    words = [_WITHIN.sub("", word) if len(word) > 1 else word for word in _TOKEN.findall(plain)]
    if len(words) == 1 and len(words[0]) == 1:
        return words[0]
    kept = []
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        # "A dog" and "the dog", but not "vitamin A", nor the letters of "A, B".
        if word.casefold() in _ARTICLES and len(following) > 1 and (word != "A" or i == 0):
            continue
        kept.append(_LETTERS.sub(_folded, word))
    return " ".join(kept)


def _folded(match: re.Match[str]) -> str:
    word = match.group()
    # "kT" and "GMm" are products, not words.
    product = len(word) <= 3 and not (word.islower() or word.isupper() or word.istitle())
    return word if product else word.casefold()
