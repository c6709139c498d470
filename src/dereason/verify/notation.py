r"""The parser of expressions: the LaTeX and plain notation of answers, as a tree.

Numbers, variables (with an index), ``+ - * / ^``, ``\frac``, ``\sqrt[n]{}``, ``\binom``, ``|x|``, factorials,
degrees, elementary functions, and multiplication without a sign. Recursive descent with the depth counted.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import Any

MAX_LENGTH = 1500
MAX_TOKENS = 600
MAX_DEPTH = 30
MAX_DIGITS = 400

# A node is a tuple: ("num", Fraction), ("var", name), ("add", nodes), ("mul", nodes), ("pow", base, exponent),
# ("root", radicand, degree), ("fn", name, argument), ("log", argument, base), ("binom", n, k).
Node = tuple[Any, ...]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9,])|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)
    | (?P<command>\\[A-Za-z]+)
    | (?P<word>[A-Za-z]+)
    | (?P<sign>\*\*|\\[{}|]|[-+*/^_(){}\[\]|!'])
    )""",
    re.VERBOSE,
)
_FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "exp", "ln",
    "log", "lg", "abs", "sqrt",
}  # fmt: skip
_SYNONYMS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_CONSTANTS = {"pi", "theta", "alpha", "beta", "infty"}
_LETTERS = re.compile(
    r"(?:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|pi|(?:var)?rho|sigma"
    r"|tau|upsilon|(?:var)?phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega|infty|ell|hbar)"
)
_SIGNS = {"cdot": "*", "times": "*", "ast": "*", "div": "/", "lvert": "|", "rvert": "|", "vert": "|"}
_SHORT_WORDS = re.compile(
    r"a[mnst]|be|by|[dgns]o|[hmw]e|i[fnst]|my|o[fhknr]|to|u[ps]|[ckm]m|[km]g|ml|ft|lb|oz|hr",
)
_FORMULA = re.compile(r"[=+*/^_\\]|[0-9][A-Za-z]")
# Words that no product of variables is, where spaces stand around them.
_STOP_WORDS = frozenset(
    re.findall(
        r"\S+",
        """if or and is the for not of to be as by on we an all are with where when then any no at in it so than""",
    )
)
_CHOOSE = re.compile(
    r"(?<![A-Za-z])C\s?\(\s?(\w+)\s?,\s?(\w+)\s?\)|\{\s?\}?\^\s?\{?(\w)\}?\s?C\s?_\s?\{?(\w)\}?|\{(\w+)\s?\\choose\s?(\w+)\}"
)
_FIGURE = re.compile(r"\\(?:triangle|angle|parallel|perp|odot|cong|sim)(?![A-Za-z])")
_VOWEL = re.compile(r"[aeiouyAEIOUY]|[A-Z]{2}")
# The value of a function at a number is no product: I(0) is not 0.
_AT = re.compile(r"(?<![A-Za-z\\])([A-Zfghuvxyp])\s?\(\s?([0-9]{1,4})\s?\)|(?<![A-Za-z\\])([a-z])\(0\)")
_SERIES = re.compile(r"\\(?:sum|prod|int|oint|iint|lim)(?![A-Za-z])")
_KET = re.compile(r"\|\s?([A-Za-z0-9+-]{1,4}|\\[a-z]{2,5})\s?\\rangle")
_TRANSPOSED = re.compile(r"[A-Z]\s?\^\s?\{?\s?(?:T|\\top|\\intercal|\\dagger|\\ast)(?![A-Za-z_])\s?\}?")
_STARTS = re.compile(r"[0-9.A-Za-z({\[\\]")


# Longer words that stand beside formulas.
_PROSE = frozenset(
    re.findall(
        r"\S+",
        """and for the not all any are when then than with only such that from each both none even odd sum set one two
        ways way true else zero unit real area""",
    )
)


class NotMath(ValueError):
    """The text is no expression: it has words or signs that no expression has."""


class TooHard(ValueError):
    """An expression, as far as can be seen, that is beyond this parser."""


def read(text: str) -> tuple[Node, bool]:
    r"""The tree of an expression, and whether it holds ``\log`` without a base.

    Raises:
        NotMath: prose, or nothing.
        TooHard: unknown commands, or too long, too deep, too many digits.
    """
    if len(text) > MAX_LENGTH:
        raise TooHard(f"longer than {MAX_LENGTH} characters")
    if _TRANSPOSED.search(text) is not None:
        raise NotMath("a product of matrices, in which the order counts")
    if _FIGURE.search(text) is not None:
        raise NotMath("a figure, or a relation of two")
    if _SERIES.search(text) is not None:
        raise TooHard("a sum, an integral or a limit")
    if "C" in text or "choose" in text:
        text = _CHOOSE.sub(_binomial, text)
    if "rangle" in text:
        text = _KET.sub(lambda m: f"Q_{{{m[1]}}}".replace("\\", "").replace("+", "p").replace("-", "m"), text)
    if "(" in text:
        text = _AT.sub(lambda m: f"{m[1] or m[3]}_{{at{m[2] or 0}}}", text)
    parser = _Parser(_tokens(text))
    node = parser.all()
    return node, parser.logarithm


def _binomial(match: re.Match[str]) -> str:
    n, k = (group for group in match.groups() if group is not None)
    return f"\\binom{{{n}}}{{{k}}}"


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position, end = 0, len(text.rstrip())
    hard = False
    formula = _FORMULA.search(text) is not None
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotMath(f"'{text[position : position + 10]}'")
        position = match.end()
        kind, token = match.lastgroup, match.group().strip()
        if kind == "word":
            start = match.start(kind)
            spaced = text[start - 1 : start] in ("", " ") and text[position : position + 1] in ("", " ")
            if spaced and len(token) > 1 and token.lower() in _STOP_WORDS:
                raise NotMath(f"the word '{token}'")
            tokens.extend(_split_word(token, formula, whole=len(token) == len(text.strip())))
        elif kind == "command":
            name = token[1:]
            hard = hard or not (name in _FUNCTIONS or name in _SIGNS or _LETTERS.fullmatch(name) or name in _BUILT_IN)
            tokens.append(_SIGNS.get(name, token))
        else:
            tokens.append(token)
    # Said last: a text with both words and unknown commands is prose.
    if hard:
        raise TooHard("an unknown command")
    if len(tokens) > MAX_TOKENS:
        raise TooHard(f"more than {MAX_TOKENS} signs")
    return tokens


# Not the arrows of vectors: their products have an order.
_ACCENTS = frozenset({"dot", "ddot", "bar", "tilde"})
_BUILT_IN = _ACCENTS | frozenset({"frac", "sqrt", "binom", "circ", "degree", "lvert", "rvert", "vert"})


def _split_word(word: str, formula: bool, *, whole: bool) -> list[str]:
    r"""A run of letters as functions and variables: ``sin``, ``xy`` as x·y, ``nRT`` as n·R·T; "AB" is one name.

    Args:
        word: the letters.
        formula: whether signs stand around it that only a formula has; "Mm" is a product there.
        whole: whether nothing else stands in the text; "AB" is a name then, and a product of two letters elsewhere.

    Raises:
        NotMath: a word.
    """
    if len(word) == 1:
        return [word]
    name = _SYNONYMS.get(word, word)
    if name in _FUNCTIONS or name in _CONSTANTS:
        return ["\\" + name]
    if len(word) == 2 and word.isupper():
        return [word] if whole else list(word)  # by itself a segment, or a label
    for cut in range(1, min(len(word), 6)):
        head, tail = word[:cut], word[cut:]
        if tail in _FUNCTIONS and len(tail) > 2 and (cut == 1 or formula):
            return [*head, "\\" + tail]
        if cut == len(word) - 1 and (head in _FUNCTIONS or head == "pi"):
            return ["\\" + head, tail]
        if cut == 1 and tail == "pi":
            return [head, "\\pi"]
    if formula and len(word) <= 4 and word.lower() not in _PROSE:
        return list(word)
    if word.islower() and (
        (len(word) == 2 and _SHORT_WORDS.fullmatch(word) is None)
        or (len(word) <= 4 and all(ord(b) == ord(a) + 1 for a, b in pairwise(word)))
    ):
        return list(word)
    if len(word) <= 4 and _VOWEL.search(word) is None:
        return list(word)  # no word, and no formula beside it: "mgh"
    mixed = len(word) <= 4 and not word.isupper() and not word.islower()
    if mixed and len(word) <= 3 and not word[1:].islower():
        return list(word)
    raise NotMath(f"the word '{word[:20]}'")


class _Parser:
    """Recursive descent over the tokens; each level of nesting is counted."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0  # open |...|
        self.logarithm = False

    def all(self) -> Node:
        if not self.tokens:
            raise NotMath("nothing")
        node = self.sum()
        if self.at < len(self.tokens):
            raise NotMath(f"'{self.peek()}' where an operation should be")
        return node

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise NotMath(f"no '{token}'")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooHard(f"nested more than {MAX_DEPTH} deep")

    def sum(self) -> Node:
        self.deeper()
        terms = [self.product()]
        while self.peek() in ("+", "-"):
            terms.append(self.product())  # takes the sign
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", tuple(terms))

    def sign(self) -> bool:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        return negative

    def product(self) -> Node:
        factors: list[Node] = [("num", Fraction(-1))] if self.sign() else []
        factors.append(self.power())
        while True:
            token = self.peek()
            if token in ("*", "/"):
                self.take()
                if self.sign():
                    factors.append(("num", Fraction(-1)))
                factor = self.power()
                factors.append(("pow", factor, ("num", Fraction(-1))) if token == "/" else factor)
            elif self.starts_factor(token):
                if _is_number(token) and (factors[-1][0] == "num" or self.tokens[self.at - 1].isalpha()):
                    raise NotMath("a number after a number or a letter")  # H2O is no product
                factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else ("mul", tuple(factors))

    def starts_factor(self, token: str) -> bool:
        if token == "|":
            return self.bars == 0
        return bool(token) and _STARTS.match(token) is not None and token not in ("\\}", "\\circ", "\\degree", "\\|")

    def power(self) -> Node:
        base = self.atom()
        while True:
            token = self.peek()
            if token == "!":
                self.take()
                base = ("fn", "factorial", base)
            elif token in ("\\circ", "\\degree"):
                self.take()
                base = _degrees(base)
            elif token in ("^", "**"):
                self.take()
                exponent = self.exponent()
                base = _degrees(base) if exponent is None else ("pow", base, exponent)
            else:
                return base

    def exponent(self) -> Node | None:
        """What follows ``^``; None for the sign of degrees. Powers of powers without braces nest to the right."""
        if self.peek() in ("\\circ", "\\degree"):
            self.take()
            return None
        if self.tokens[self.at : self.at + 3] in (["{", "\\circ", "}"], ["{", "\\degree", "}"]):
            self.at += 3
            return None
        negative = self.sign()
        self.deeper()
        node = self.atom()
        while self.peek() in ("^", "**"):
            self.take()
            raised = self.exponent()
            if raised is None:
                raise NotMath("degrees in an exponent")
            node = ("pow", node, raised)
        self.depth -= 1
        return ("mul", (("num", Fraction(-1)), node)) if negative else node

    def atom(self) -> Node:
        token = self.take()
        if _is_number(token):
            return self.number(token)
        if token in ("(", "{", "[", "\\{"):
            node = self.sum()
            self.expect({"(": ")", "{": "}", "[": "]", "\\{": "\\}"}[token])
            return node
        if token == "|" and self.bars == 0:
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.expect("|")
            return ("fn", "abs", node)
        if token.startswith("\\") and len(token) > 2:
            return self.command(token[1:])
        if token.isalpha():
            return ("var", self.name(token))
        raise NotMath(f"'{token}' where a value should be")

    def number(self, token: str) -> Node:
        if len(token) > MAX_DIGITS:
            raise TooHard(f"more than {MAX_DIGITS} digits")
        return ("num", Fraction(token.replace(",", "").rstrip(".")))

    def name(self, name: str) -> str:
        """A variable's name with its primes and index: ``x_{10}``."""
        while self.peek() == "'":
            name += self.take()
        if self.peek() == "_":
            self.take()
            token = self.take()
            index = token
            if token == "{":
                index = ""
                while self.peek() not in ("}", "") and len(index) < 50:
                    index += self.take()
                self.expect("}")
            if not index:
                raise NotMath("no index after '_'")
            name += f"_{index}"
        return name

    def command(self, name: str) -> Node:
        if name == "frac":
            return ("mul", (self.argument(), ("pow", self.argument(), ("num", Fraction(-1)))))
        if name == "binom":
            return ("binom", self.argument(), self.argument())
        if name == "sqrt":
            degree: Node = ("num", Fraction(2))
            if self.peek() == "[":
                self.take()
                degree = self.sum()
                self.expect("]")
            return ("root", self.argument(), degree)
        if name in _FUNCTIONS:
            return self.function(name)
        if name in _ACCENTS:
            accented = self.argument()
            if accented[0] != "var":
                raise TooHard(f"\\{name} over an expression")
            return ("var", self.name(f"{accented[1]}_{name}"))
        if _LETTERS.fullmatch(name):
            return ("var", self.name(name.removeprefix("var")))
        raise TooHard(f"\\{name}")

    def argument(self) -> Node:
        r"""The argument of a command: a group, or the one sign that follows (``\frac12`` is a half)."""
        token = self.peek()
        if len(token) > 1 and token[0].isdigit():
            self.tokens[self.at] = token[1:]
            return self.number(token[0])
        if token in ("+", "-"):
            raise NotMath("a sign where an argument should be")
        self.deeper()
        node = self.atom()
        self.depth -= 1
        return node

    def function(self, name: str) -> Node:
        r"""``\sin x``, ``\sin^2 x``, ``\sin^{-1} x``, ``\log_2 8``; the argument ends at a sum or another function."""
        base: Node | None = None
        raised: Node | None = None
        while self.peek() in ("^", "_"):
            if self.take() == "_":
                base = self.argument()
            else:
                raised = self.exponent()
                if raised is None:
                    raise NotMath("degrees of a function")
        argument = self.function_argument()
        if name in ("sin", "cos", "tan") and raised == ("mul", (("num", Fraction(-1)), ("num", Fraction(1)))):
            name, raised = "arc" + name, None
        if name == "log" and base == ("var", "e"):
            node: Node = ("fn", "ln", argument)
        elif name == "log" and base is not None:
            node = ("log", argument, base)
        elif name == "lg":
            node = ("log", argument, ("num", Fraction(10)))
        elif name == "exp":
            node = ("pow", ("var", "e"), argument)
        else:
            if base is not None:
                raise TooHard("an index of a function")
            self.logarithm = self.logarithm or name == "log"
            node = ("fn", name, argument)
        return node if raised is None else ("pow", node, raised)

    def function_argument(self) -> Node:
        self.deeper()
        try:
            if self.peek() in ("(", "[", "{", "|"):
                return self.atom()  # an exponent after the brackets belongs to the function
            if self.peek()[1:] in _FUNCTIONS and self.peek() != "\\sqrt":
                return self.command(self.take()[1:])
            negative = self.sign()
            factors = [("num", Fraction(-1))] if negative else []
            factors.append(self.power())
            while self.starts_factor(self.peek()) and self.peek() != "(" and self.peek()[1:] not in _FUNCTIONS:
                factors.append(self.power())
            return factors[0] if len(factors) == 1 else ("mul", tuple(factors))
        finally:
            self.depth -= 1


def _is_number(token: str) -> bool:
    return token[:1].isdigit() or (token[:1] == "." and len(token) > 1)


def _degrees(node: Node) -> Node:
    return ("mul", (node, ("var", "pi"), ("num", Fraction(1, 180))))
