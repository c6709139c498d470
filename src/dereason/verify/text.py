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
from functools import lru_cache

MAX_CACHED = 500
"""Longer texts are read each time."""
DRESS = "\u2060"
"""Stands before what was written in unit or text dress (``\\text``, ``\\mathrm``, siunitx), in :func:`as_read`."""
MONEY = "\u00a4"
"""Stands for a dollar sign that is money, not the edge of a formula, in :func:`as_read`."""
_MARKS = str.maketrans("", "", DRESS + MONEY)

_MARKUP = re.compile(
    r"""
    (?P<dress>\\(?:text(?:rm|normal)?|mathrm|[mhf]box|operatorname\*?|unit|si|pu|ce|rm(?=\s*\{))\s*\{)
    | (?P<wrap>\\(?:text(?:bf|it|sf|tt|sl|sc|up|md)|math(?:normal|bf|it|sf|tt|cal|bb(?=\s*\{\s*[0-9]))|emph
        |boxed|fbox|framebox|underline
        |boldsymbol|bm|pmb|bold|centerline|smash|(?:textcolor|colorbox|raisebox|scalebox)\s*\{[^{}]{1,20}\}|ensuremath|math(?:op|ord|bin|rel|inner|strut)|num|uline|mathring)\s*\{)
    | (?P<drop>\\color\s*\{[a-zA-Z]{1,20}\}
        | \\(?:[vh]?phantom|hspace\*?|vspace\*?|label|tag\*?|hskip|kern)\s*\{[^{}]{0,40}\}
            |\\rule\s*\{[^{}]{0,20}\}\s*\{[^{}]{0,20}\}
        | \\(?:left|right|middle)(?![A-Za-z])
        | (?<=[0-9])(?:\{,\}|,\s?\\!\s?|\\,)(?=[0-9]{3}(?![0-9]))       # between thousands
        | \\[!()\[\]] | \\?\$ | (?<![\w)\]}])\*\* | \*\*(?![\w(\[{\\]) | (?<!\w)__(?=\S[^_]*\S__(?!\w)) 
            | (?<=\S)__(?!\w)
        | `)
    | (?P<space>\\[ ,;:>\n] | ~ | \\(?:math)?(?:bf|rm|it|sf|tt|cal|bfseries|itshape|rmfamily|sffamily|ttfamily|upshape
        |normalfont|tiny|small|footnotesize|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|scriptstyle
        |(?:math)?strut|q?quad|bigl?|bigr?|Bigl?|Bigr?|Bigg?|bigg?|nonumber|noindent|hfill|limits|nolimits|centering
        |blacksquare|qed|square(?=\s*\Z)|Box(?=\s*\Z)|thinspace|enspace)(?![A-Za-z]))
    | (?P<frac>\\[dtc]frac(?![A-Za-z]))
    | (?P<synonym>\\(?:rightarrow|longrightarrow|wedge|vee|lnot|lbrace|rbrace|colon|minus|leftrightarrow
        |Leftrightarrow|Rightarrow
        |Longrightarrow|Longleftrightarrow|implies|iff|dots|ldots|cdots|dotsc|gets|varnothing|vert|mid|lvert|rvert|AA
        |degree|celsius|textdegree|ohm)(?![A-Za-z]))
    | (?P<comma>\{[,.]\}|(?<![\^_])\{[-+]\})
    | (?P<keep>\\[%&\#_])
    | \\. | [{}]
    """,
    re.VERBOSE | re.DOTALL,
)
_SYNONYMS = {
    "rightarrow": "\\to ", "longrightarrow": "\\to ", "wedge": "\\land ", "vee": "\\lor ", "lnot": "\\neg ",
    "lbrace": "\\{", "rbrace": "\\}", "colon": ":", "minus": "-",
    "leftrightarrow": "\\iff ", "Rightarrow": "\\implies ",
    "Leftrightarrow": "\\iff ", "Longleftrightarrow": "\\iff ", "Longrightarrow": "\\implies ",
    "implies": "\\implies ", "iff": "\\iff ", "dots": "\\ldots ", "ldots": "\\ldots ", "cdots": "\\ldots ",
    "dotsc": "\\ldots ", "gets": "\\leftarrow ", "varnothing": "\\emptyset ", "vert": "|", "mid": "|", "lvert": "|",
    "rvert": "|", "AA": "\u00c5", "degree": "^\\circ ", "textdegree": "^\\circ ",
    "celsius": "^\\circ C", "ohm": "\u03a9",
}  # fmt: skip
# A box around one cell is typesetting, around several it is a matrix or a system.
_ONE_CELL = re.compile(
    r"\\begin\{(aligned|gathered|align\*?|gather\*?|equation\*?|split|array|center|math|displaymath|[pb]?matrix|smallmatrix)\}"
    r"(?:\s*\{[lcr|@ ]{0,9}\})?((?:(?!\\begin|\\end|\\\\|&).){0,400})(?:\\\\\s*)?\\end\{\1\}",
    re.DOTALL,
)
_SIUNITX = re.compile(
    r"\\(?:SI|qty)\s*(?:\[[^\]]{0,40}\])?\s*\{([^{}]{0,60})\}\s*\{([^{}]{0,100})\}|\\ang\s*\{([^{}]{0,40})\}"
    r"|\\num\s*\{([^{}]{0,60})\}"
)
_OVER = re.compile(r"\{([^{}]{1,100}?)\\(over|choose)(?![A-Za-z])([^{}]{1,100}?)\}")
# In a derivation the signs of alignment say nothing, and a row that begins with a sign goes on with the one before.
_ALIGNED = re.compile(r"\\begin\{(aligned|align\*?|split)\}(?:(?!\\begin|\\end).){0,600}\\end\{\1\}", re.DOTALL)
_ALIGNS = re.compile(r"(?:\\\\\s*)?(?<!\\)&\s*(?==)|(?<!\\)&")
_ROWS = re.compile(r"\\begin\{(cases|aligned|gathered)\}((?:(?!\\begin|\\end|&).){0,600})\\end\{\1\}", re.DOTALL)
_SINGLE = re.compile(r"(?<!\\)(?:\\\\)*\\(?=[A-Za-z{}%$,;!(\[])")
_TWICE = re.compile(r"\\\\(?=[A-Za-z]{2}|[{}%$,;!(\[])")
_NOT_EQUAL = re.compile(r"\\not\s?=")
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
    "\u2209": r"\notin ",
    "\u2282": r"\subset ",
    "\u2283": r"\supset ",
    "\u2286": r"\subseteq ",
    "\u2287": r"\supseteq ",
    "\u2202": r"\partial ",
    "\u2207": r"\nabla ",
    "\u2261": r"\equiv ",
    "\u221d": r"\propto ",
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
    "\u2192": r"\to ",
    "\u27f6": r"\to ",
    "\u2190": r"\leftarrow ",
    "\u2194": r"\iff ",
    "\u21cc": r"\rightleftharpoons ",
    "\u21d2": r"\implies ",
    "\u21d4": r"\iff ",
    "\u2227": r"\land ",
    "\u2228": r"\lor ",
    "\u00ac": r"\neg ",
    "\u2200": r"\forall ",
    "\u2203": r"\exists ",
    "\u00c5": "\u00c5",
    "\u212b": "\u00c5",
    MONEY: MONEY,
    DRESS: DRESS,
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
    | (?<=[^\W_])['-](?![^\W_])                         # and A- is not A, nor A'
    """,
    re.VERBOSE,
)
_WITHIN = re.compile(r"'(?![0-9])|(?<![0-9])'|(?<![^\W\d_]{3})\.(?![^\W\d_]{3}|[0-9])")
_LETTERS = re.compile(r"[^\W\d_]+")
_ARTICLES = frozenset({"a", "an", "the"})


def unescaped(text: str) -> str:
    r"""LaTeX that was escaped twice on its way through JSON, once: ``\\frac{1}{5}``.

    Only where every command of the text has two backslashes: beside ``\begin`` they are the end of a row.
    """
    if "\\\\" not in text or _TWICE.search(text) is None or _SINGLE.search(text.replace("\\\\", "")) is not None:
        return text
    return _TWICE.sub(r"\\", text.replace("\\" * 4, "\\" * 2))


def strip_markup(text: str) -> str:
    r"""The text without the dress of LaTeX and Markdown.

    Removes ``\text{}`` and its like (the content stays), ``$``, ``\( \)``, ``\left``, ``\right``, sizes, phantoms, bold
    marks, back-quotes, outer quotes and closing punctuation; thin spaces are spaces. One pass, linear in the
    length, no recursion.
    """
    return _strip(text, marks=False)


def _siunitx(match: re.Match[str]) -> str:
    number, unit, angle, bare = match.groups()
    if unit is None:
        return f"{angle}^\\circ " if angle is not None else re.sub(r"[eE](?=-?[0-9])", r"\\times 10^", bare, count=1)
    named = re.sub(r"\\(squared|cubed)", r" \1", unit)
    named = " ".join(re.sub(r"\\([A-Za-z]+)", r" \1 ", named).replace(".", " ").replace("~", " ").split())
    for prefix in ("kilo", "milli", "centi", "micro", "nano", "mega", "giga", "deci", "pico"):
        named = named.replace(f"{prefix} ", prefix)
    return f"{number}\\text{{ {named.strip()}}}"


def _strip(text: str, *, marks: bool) -> str:
    text = unescaped(text)
    if "\\" in text:
        text = _NOT_EQUAL.sub(r"\\ne ", text)
        if "\\over" in text or "\\choose" in text:
            text = _OVER.sub(lambda m: f"\\{'frac' if m[2] == 'over' else 'binom'}{{{m[1]}}}{{{m[3]}}}", text)
        if "\\begin" in text:
            text = _ALIGNED.sub(lambda m: _ALIGNS.sub(" ", m.group()), text)
            text = _ROWS.sub(r" \2 ", _ONE_CELL.sub(r" \2 ", text))
        text = _SIUNITX.sub(_siunitx, text)
    out: list[str] = []
    dropped: list[bool] = []  # for each brace that is open: was its opening removed?
    position = 0
    for match in _MARKUP.finditer(text):
        out.append(text[position : match.start()])
        position = match.end()
        kind, token = match.lastgroup, match.group()
        if kind in ("wrap", "dress"):
            dropped.append(True)
            # "15\text{cm}" must not become one word
            out.append(" " + DRESS if marks and kind == "dress" else " ")
        elif kind == "space":
            out.append(" ")
        elif kind == "frac":
            out.append("\\frac")
        elif kind == "synonym":
            out.append(_SYNONYMS[token[1:]])
        elif kind == "comma" or kind == "keep":
            out.append(token[1])
        elif token == "{":
            dropped.append(False)
            out.append(token)
        elif token == "}":
            if not (dropped and dropped.pop()):
                out.append(token)
        elif kind == "drop":
            if marks and token.endswith("$") and _is_money(text, match.start(), match.end()):
                out.append(MONEY)
        else:
            out.append(token)
    out.append(text[position:])
    bare = "".join(out).strip(" \t\r\n\f\v\u00a0*").lstrip(":")
    if bare[:1] == "_" or bare[-1:] == "_":
        bare = bare.strip("_ ") if _EMPHASIS.fullmatch(bare) else bare
    bare = _ROW_END.sub("", bare)
    if _GOES_ON.search(bare) is None:  # "1, 2, ..." is not 1, 2
        bare = bare.rstrip(".,;: \t\r\n*\u3002")
    bare = bare.strip()
    if len(bare) > 1 and (bare[0] + bare[-1]) in ('""', "''", "\u201c\u201d", "\u00ab\u00bb", "\u201e\u201c"):
        bare = bare[1:-1].strip().rstrip(".,;:")
    return bare


_EMPHASIS = re.compile(r"_{1,3}[^_\s](?:[^_]*[^_\s])?_{1,3}")
_ROW_END = re.compile(r"\s*\\\\\s*\Z")
_AMOUNT = re.compile(r"\s?[-+\u2212]?\s?(?:[0-9]|\.[0-9])")


def _is_money(text: str, start: int, end: int) -> bool:
    r"""Whether a dollar sign is money: ``\$5``, and ``$5`` where no other sign closes a formula."""
    if _AMOUNT.match(text, end) is None:
        return False
    return text[start] == "\\" or (
        "$" not in text[end:].replace("\\$", "") and text[:start].replace("\\$", "").count("$") == 0
    )


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
    return _as_latex(text) if len(text) <= MAX_CACHED else _latex(strip_markup(text))


@lru_cache(maxsize=4096)
def _as_latex(text: str) -> str:
    return _latex(strip_markup(text))


def as_read(text: str) -> str:
    """:func:`as_latex` with :data:`DRESS` and :data:`MONEY` where they belong; see :func:`unmarked`."""
    return _as_read(text) if len(text) <= MAX_CACHED else _latex(_strip(text, marks=True))


@lru_cache(maxsize=4096)
def _as_read(text: str) -> str:
    return _latex(_strip(text, marks=True))


def unmarked(text: str) -> str:
    """The text without :data:`DRESS` and :data:`MONEY`."""
    if DRESS not in text and MONEY not in text:
        return text
    return " ".join(text.translate(_MARKS).split())


def _latex(bare: str) -> str:
    if not bare.isascii():
        bare = _FOREIGN.sub(_ascii, unicodedata.normalize("NFC", bare).translate(SIGNS))
    bare = _ARROWS.sub(lambda m: _ARROW[m.group()], bare)
    return " ".join(bare.split()).replace(f"{DRESS} ", DRESS)


_ARROW = {"<->": "\\iff ", "->": "\\to ", "<-": "\\leftarrow ", "<=>": "\\iff ", "=>": "\\implies ",
          "-->": "\\to ", "+/-": "\\pm "}  # fmt: skip
_ARROWS = re.compile(r"\+/-|<->|-->|->|(?<![<>])<=>|<-(?![0-9.])|(?<![<>=])=>")


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


# A sign by itself at an end of the text or beside another one: "_ Q _", "X . .", but not "2 * 3" nor "a + b".
_BOARD = re.compile(
    r"(?:^|\s)(?:[._*~#|x?]\s+[._*~#|?]|-\s+-)(?=\s|$)|^[._*~#|?]\s|\s[_*~#|?]$|^-\s.*\s-$|^\.{2,}[A-Za-z]"
)
_SPELLED = re.compile(r"(?:[A-Za-z] ){2,60}[A-Za-z]")
_NAME = re.compile(
    r"__?[A-Za-z]\w*|[!~*%&@$]{1,2}/?[A-Za-z][\w/.]*|(?:\.\.|::)[A-Za-z]\w*|~?/[\w/.~]+|</?[A-Za-z]+/?>"
    r"|[A-Za-z]\w*(?:\+\+|--|#)|[A-Z]\*"
)
# A word with a sign before it that neither LaTeX nor Markdown explains; "*x" and "$x" may be half of a pair.
_SIGNED_NAME = re.compile(r"(?:[!~@&]|__?)[A-Za-z]\w*(?<!_)")
_DRESSED = re.compile(
    r"\\(?:text(?:tt|rm|bf)?|mathrm|mathtt|verb|mbox)\s*\{(.*)\}|\*\*(.+)\*\*|```[a-z]*\n(.*)\n?```|`(.+)`|\$(.+)\$",
    re.DOTALL,
)


_ESCAPED = re.compile(r"\\([#&%_])")


def undressed(text: str) -> str:
    """The text without what surrounds the whole of it: ``\\text{}``, bold, back-quotes, a fence, dollar signs."""
    text = _ESCAPED.sub(r"\1", text.strip())
    for _ in range(3):
        match = _DRESSED.fullmatch(text)
        inner = None if match is None else match.group(match.lastindex or 0)
        if not inner or (text[0] == "$" and "$" in inner) or (text[0] == "*" and "**" in inner):
            break
        text = inner.strip()
    return text


def signed_name(text: str) -> bool:
    """Whether a sign belongs to the one word of a text: ``!p``, ``~p`` and ``_p`` are not ``p``."""
    return _SIGNED_NAME.fullmatch(undressed(text)) is not None


def literal(text: str) -> str | None:
    """The form in which signs, boards and several lines are compared, None where the text is none of these.

    White space counts once; nothing else is forgiven.
    """
    bare = undressed(text)
    if not bare or bare in ("{}", "\\{\\}"):
        return None
    lines = "\n" in bare and "\\" not in bare and "$" not in bare
    signs = not any(c.isalnum() or c in "\\\u221e" for c in bare)
    letters = _SPELLED.fullmatch(bare)
    repeated = letters is not None and len(set(bare.split())) < len(bare.split())
    if (
        signs
        or lines
        or repeated
        or _NAME.fullmatch(bare)
        or ("\\" not in bare and "=" not in bare and _BOARD.search(bare))
    ):
        return " ".join(unicodedata.normalize("NFKC", bare).split())
    return None
