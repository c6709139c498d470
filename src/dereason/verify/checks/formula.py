r"""Formulas that other programs may be given: a strict grammar, and nothing that it does not name.

Text goes in as a model writes it, plain or LaTeX (``3*(x+1)``, ``\frac{x^{2}}{3} + C``); what comes out is a tree of
numbers, names of a closed list, four operations, bounded powers and a few functions. :func:`python_text` writes the
tree as text for ``sympy.parse_expr``, which runs what it is given: only text from there may reach it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 2000
MAX_DEPTH = 40
MAX_DIGITS = 30
MAX_POWER = 100
"""The largest exponent, and the largest product of exponents that stand on one another."""

FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp", "sqrt", "log")},
    **{"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "asin": "asin", "acos": "acos"},
    **{"atan": "atan", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "Abs": "Abs", "abs": "Abs"},
}
_CONSTANTS = {"e": "E", "E": "E", "pi": "pi"}
_SIGNS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "−": "-", "–": "-"})
_SPELLED = {"cdot": "*", "times": "*", "ast": "*", "div": "/"}
_SILENT = frozenset({"left", "right", "quad", "qquad", "displaystyle", "big", "Big", "bigl", "bigr"})
_FRACTIONS = frozenset({"frac", "dfrac", "tfrac"})
_TOKEN = re.compile(
    r"\s+|(?P<silent>\\[,;:! ])|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|\\(?P<command>[A-Za-z]+)|(?P<name>[A-Za-z]+)"
    r"|(?P<sign>\*\*|[-+*/^(){}\[\]])",
    re.ASCII,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class NotInGrammar(ValueError):
    """The text is no formula of the kind that was asked for; the message says why."""


@dataclass(frozen=True)
class Node:
    """One node of a formula."""

    what: str
    """``number``, ``name``, ``negative``, ``call`` (the function's name in ``text``), ``power``, or ``+ - * /``."""
    text: str = ""
    """Of a number its digits, of a name or a call the name."""
    parts: tuple[Node, ...] = ()
    """What it is made of."""


def parse(text: str, names: Collection[str] = (), *, powers: bool = True, implicit: bool = True) -> Node:
    """The tree of a formula.

    Args:
        text: as it was written.
        names: the variables that may stand in it.
        powers: whether powers, functions and constants may stand in it.
        implicit: whether a product may be written without a sign (``3x``).

    Raises:
        NotInGrammar: anything else stands in it, or it is too long, too deep or too large.
    """
    if len(text) > MAX_LENGTH:
        raise NotInGrammar(f"longer than {MAX_LENGTH} characters")
    reader = _Reader(list(_tokens(text.translate(_SIGNS), names, powers)), powers, implicit)
    node = reader.sum(0)
    if reader.at < len(reader.tokens):
        raise NotInGrammar(f"{reader.tokens[reader.at][1]!r} is out of place")
    _exponents(node)
    return node


def value(node: Node) -> Fraction:
    """The value of a formula without names and calls, exactly.

    Raises:
        NotInGrammar: it has no such value.
    """
    if node.what == "number":
        return Fraction(node.text)
    parts = [value(part) for part in node.parts]
    if node.what == "negative":
        return -parts[0]
    if node.what == "power" and parts[1].denominator == 1 and (parts[0] or parts[1] > 0):
        return Fraction(parts[0] ** parts[1].numerator)
    if node.what in "+-*" and parts:
        left, right = parts
        return left + right if node.what == "+" else left - right if node.what == "-" else left * right
    if node.what == "/" and parts[1]:
        return parts[0] / parts[1]
    raise NotInGrammar("it has no value")


def numbers(node: Node) -> list[str]:
    """The numbers as they were written, in order."""
    if node.what == "number":
        return [node.text]
    return [found for part in node.parts for found in numbers(part)]


def python_text(node: Node) -> str:
    """The formula as Python writes it, every part in parentheses."""
    if node.what in ("number", "name"):
        return node.text
    parts = [python_text(part) for part in node.parts]
    if node.what == "negative":
        return f"(-{parts[0]})"
    if node.what == "call":
        return f"{node.text}({parts[0]})"
    return f"({parts[0]}{'**' if node.what == 'power' else node.what}{parts[1]})"


def _tokens(text: str, names: Collection[str], powers: bool) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise NotInGrammar(f"{text[at]!r} may not stand in it")
        at = found.end()
        if found["number"]:
            if len(found["number"]) > MAX_DIGITS:
                raise NotInGrammar(f"a number has more than {MAX_DIGITS} digits")
            yield "number", found["number"]
        elif found["sign"]:
            yield "sign", "^" if found["sign"] == "**" else found["sign"]
        elif word := found["command"]:
            if word in _SPELLED:
                yield "sign", _SPELLED[word]
            elif word in _FRACTIONS:
                yield "fraction", word
            elif word not in _SILENT:
                yield from _words(word, names, powers)
        elif found["name"]:
            yield from _words(found["name"], names, powers)


def _words(word: str, names: Collection[str], powers: bool) -> Iterator[tuple[str, str]]:
    if word in names:
        yield "name", word
    elif powers and word in FUNCTIONS:
        yield "function", FUNCTIONS[word]
    elif powers and word in _CONSTANTS:
        yield "name", _CONSTANTS[word]
    elif len(word) > 1 and all(letter in names or (powers and letter == "e") for letter in word):
        for letter in word:
            yield from _words(letter, names, powers)
    else:
        raise NotInGrammar(f"the name {word[:20]!r} may not stand in it")


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str]], powers: bool, implicit: bool) -> None:
        self.tokens, self.powers, self.implicit = tokens, powers, implicit
        self.at = 0

    def next(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *signs: str) -> str | None:
        kind, text = self.next()
        if kind == "sign" and text in signs:
            self.at += 1
            return text
        return None

    def sum(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise NotInGrammar("nested too deep")
        node = self.product(depth)
        while sign := self.take("+", "-"):
            node = Node(sign, parts=(node, self.product(depth)))
        return node

    def product(self, depth: int) -> Node:
        node = self.signed(depth)
        while True:
            if sign := self.take("*", "/"):
                node = Node(sign, parts=(node, self.signed(depth)))
            elif self.implicit and self.begins():
                node = Node("*", parts=(node, self.power(depth)))
            else:
                return node

    def begins(self) -> bool:
        """Whether a factor begins here."""
        kind, text = self.next()
        return kind in ("number", "name", "function", "fraction") or (kind == "sign" and text in _CLOSING)

    def signed(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise NotInGrammar("nested too deep")
        if sign := self.take("+", "-"):
            node = self.signed(depth + 1)
            return Node("negative", parts=(node,)) if sign == "-" else node
        return self.power(depth)

    def power(self, depth: int) -> Node:
        node = self.atom(depth)
        if self.take("^"):
            if not self.powers:
                raise NotInGrammar("a power may not stand in it")
            node = Node("power", parts=(node, self.signed(depth + 1)))
        return node

    def atom(self, depth: int) -> Node:
        kind, text = self.next()
        self.at += 1
        if kind in ("number", "name"):
            return Node(kind, text)
        if kind == "sign" and text in _CLOSING:
            node = self.sum(depth + 1)
            if not self.take(_CLOSING[text]):
                raise NotInGrammar(f"{text!r} is not closed")
            return node
        if kind == "fraction":
            return Node("/", parts=(self.group(depth), self.group(depth)))
        if kind == "function":
            exponent = self.signed(depth + 1) if self.take("^") else None
            opened = self.next() in (("sign", "("), ("sign", "{"), ("sign", "["))
            node = Node("call", text, (self.atom(depth + 1) if opened else self.power(depth + 1),))
            return node if exponent is None else Node("power", parts=(node, exponent))
        raise NotInGrammar(f"{text!r} is out of place" if text else "it ends too early")

    def group(self, depth: int) -> Node:
        if self.next() != ("sign", "{"):
            raise NotInGrammar("a fraction has no braces")
        return self.atom(depth + 1)


def _exponents(node: Node) -> Fraction:
    """The largest product of exponents that stand on one another; refuses what is larger than MAX_POWER."""
    inner = max([_exponents(part) for part in node.parts], default=Fraction(1))
    if node.what != "power":
        return inner
    base, exponent = node.parts
    try:
        size = abs(value(exponent))
    except NotInGrammar:
        # e^x, 2^x: nothing is computed there
        if base.what not in ("number", "name"):
            raise NotInGrammar("an exponent is neither a number nor that of an exponential") from None
        return inner
    largest = max(inner, Fraction(1)) * max(size, Fraction(1))
    if largest > MAX_POWER or size.denominator > MAX_POWER:
        raise NotInGrammar(f"an exponent is larger than {MAX_POWER}")
    return largest
