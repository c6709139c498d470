r"""Closed expressions and polynomials, read and compared without a computer-algebra system.

A small parser for the LaTeX and plain notation of answers: numbers, variables (with an index), ``+ - * / ^``,
``\frac``, ``\sqrt[n]{}``, ``\binom``, ``\pi``, ``e``, ``i``, ``|x|``, factorials, degrees, elementary functions,
and multiplication without a sign. Two expressions are

* equal, if their canonical forms are identical (:mod:`dereason.verify.polynomials`: exact rationals, like terms
  collected, products of sums expanded, numerical roots simplified);
* different, if their canonical forms differ and are made of independent parts only, or if their values differ at a
  fixed pseudo-random point;
* otherwise undecided: a computer-algebra system has to say.

Nothing here grows with the size of a number in the text: exponents, factorials and depth are bounded, and what
is beyond the bounds is undecided.
"""

from __future__ import annotations

import cmath
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

from dereason.verify.polynomials import Polynomial, TooLarge, Undefined, canonical, independent

MAX_LENGTH = 1500
MAX_TOKENS = 600
MAX_DEPTH = 30
MAX_DIGITS = 400

# Values further apart than this share of the larger differ. Decimals are exact numbers, here and in the symbolic
# comparison, so that 0.57735 is not \frac{\sqrt{3}}{3}.
TOLERANCE = 1e-9
POINTS = 3

# A node is a tuple: ("num", Fraction), ("var", name), ("add", nodes), ("mul", nodes), ("pow", base, exponent),
# ("fn", name, argument), ("log", argument, base), ("binom", n, k).
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
_SIGNS = {"cdot": "*", "times": "*", "ast": "*", "div": "/", "lvert": "|", "rvert": "|", "vert": "|", "lbrace": "{"}
_SHORT_WORDS = re.compile(
    r"a[mnst]|be|by|[dgns]o|[hmw]e|i[fnst]|my|o[fhknr]|to|u[ps]|[ckm]m|[km]g|ml|ft|lb|oz|hr",
)
_STARTS = re.compile(r"[0-9.A-Za-z({\[\\]")


class NotMath(ValueError):
    """The text is no expression: it has words or signs that no expression has."""


class TooHard(ValueError):
    """An expression, as far as can be seen, that is beyond this parser."""


@dataclass(frozen=True)
class Expression:
    """A parsed expression."""

    node: Node
    logarithm: bool
    r"""Whether it holds ``\log`` without a base, which is natural to some and decimal to others."""
    canonical: Polynomial | None
    """Its canonical form, None where that would be too large."""


def parse_expression(text: str) -> Expression:
    """Read an expression.

    Args:
        text: as :func:`dereason.verify.text.as_latex` gives it.

    Raises:
        NotMath: prose, nothing, or a division by zero.
        TooHard: unknown commands, or too long, too deep, too many digits.
    """
    if len(text) > MAX_LENGTH:
        raise TooHard(f"longer than {MAX_LENGTH} characters")
    found = _cached(text)
    if isinstance(found, Expression):
        return found
    error, cause = found
    raise error(cause)


@lru_cache(maxsize=2048)
def _cached(text: str) -> Expression | tuple[type[NotMath] | type[TooHard], str]:
    # Not the exception itself: each time that one is raised its traceback grows.
    try:
        parser = _Parser(_tokens(text))
        node = parser.all()
    except (NotMath, TooHard) as exc:
        return type(exc), str(exc)
    try:
        form = canonical(node)
    except TooLarge:
        form = None
    except Undefined as exc:
        return NotMath, str(exc)
    return Expression(node, parser.logarithm, form)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position, end = 0, len(text.rstrip())
    hard = False
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotMath(f"'{text[position : position + 10]}'")
        position = match.end()
        kind, token = match.lastgroup, match.group().strip()
        if kind == "word":
            tokens.extend(_split_word(token))
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


_BUILT_IN = frozenset({"frac", "sqrt", "binom", "circ", "degree", "lvert", "rvert", "vert"})


def _split_word(word: str) -> list[str]:
    r"""A run of letters as functions and variables: ``sin``, ``xy`` as x·y; "AB" is one name.

    Raises:
        NotMath: a word.
    """
    if len(word) == 1:
        return [word]
    name = _SYNONYMS.get(word, word)
    if name in _FUNCTIONS or name in _CONSTANTS:
        return ["\\" + name]
    if len(word) == 2 and word.isupper():
        return [word]  # a segment, or a label: not a product
    if word.islower() and (
        (len(word) == 2 and _SHORT_WORDS.fullmatch(word) is None)
        or (len(word) <= 4 and all(ord(b) == ord(a) + 1 for a, b in pairwise(word)))
    ):
        return list(word)
    for cut in (-1, 1):
        head, tail = word[:cut], word[cut:]
        function, letter = (head, tail) if cut == -1 else (tail, head)
        if function in _FUNCTIONS or function == "pi":
            return ["\\" + function, letter] if cut == -1 else [letter, "\\" + function]
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

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooHard(f"nested more than {MAX_DEPTH} deep")
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
                if _is_number(token) and factors[-1][0] == "num":
                    raise NotMath("two numbers side by side")
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
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooHard(f"nested more than {MAX_DEPTH} deep")
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
        if _LETTERS.fullmatch(name):
            return ("var", self.name(name.removeprefix("var") if name != "var" else name))
        raise TooHard(f"\\{name}")

    def argument(self) -> Node:
        r"""The argument of a command: a group, or the one sign that follows (``\frac12`` is a half)."""
        token = self.peek()
        if len(token) > 1 and token[0].isdigit():
            self.tokens[self.at] = token[1:]
            return self.number(token[0])
        if token in ("+", "-"):
            raise NotMath("a sign where an argument should be")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooHard(f"nested more than {MAX_DEPTH} deep")
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
        if name == "log" and base is not None:
            node: Node = ("log", argument, base)
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
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooHard(f"nested more than {MAX_DEPTH} deep")
        try:
            if self.peek() in ("(", "[", "{", "|"):
                return self.power()
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


_CALLS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "arcsin": cmath.asin, "arccos": cmath.acos,
    "arctan": cmath.atan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh, "ln": cmath.log,
    "sqrt": cmath.sqrt, "abs": abs,
    "cot": lambda z: 1 / cmath.tan(z), "sec": lambda z: 1 / cmath.cos(z), "csc": lambda z: 1 / cmath.sin(z),
}  # fmt: skip


class _Values:
    """Evaluates nodes at one point; remembers the largest term that was added, for cancellation."""

    def __init__(self, point: int, base: float) -> None:
        self.point = point
        self.base = base
        self.largest = 0.0

    def variable(self, name: str) -> complex:
        if name == "pi":
            return math.pi
        if name == "e":
            return math.e
        if name == "i":
            return 1j
        # Positive, so that roots and logarithms of a variable are what the writer means by them.
        return 0.4 + 2 * (zlib.crc32(f"{name}{self.point}".encode()) / 2**32)

    def of(self, node: Node) -> complex:
        """The value. Raises ArithmeticError or ValueError where there is none."""
        kind = node[0]
        if kind == "num":
            return float(node[1])
        if kind == "var":
            return self.variable(node[1])
        if kind == "add":
            terms = [self.of(term) for term in node[1]]
            self.largest = max(self.largest, *(abs(term) for term in terms))
            return sum(terms)
        if kind == "mul":
            product: complex = 1.0
            for factor in node[1]:
                product *= self.of(factor)
            return product
        if kind == "pow":
            return self.of(node[1]) ** self.of(node[2])
        if kind == "root":
            return self.root(self.of(node[1]), self.of(node[2]))
        if kind == "log":
            return cmath.log(self.of(node[1])) / cmath.log(self.of(node[2]))
        if kind == "binom":
            n, k = self.of(node[1]), self.of(node[2])
            return self.factorial(n) / self.factorial(k) / self.factorial(n - k)
        value = self.of(node[2])
        if node[1] == "log":
            return cmath.log(value) / math.log(self.base)
        return self.factorial(value) if node[1] == "factorial" else complex(_CALLS[node[1]](value))

    def root(self, value: complex, degree: complex) -> complex:
        # The cube root of -8 is -2 at school.
        real, n = complex(value), complex(degree)
        if real.imag == 0 and real.real < 0 and n.imag == 0 and n.real % 2 == 1:
            return -((-real.real) ** (1 / n.real))
        return value ** (1 / degree)

    def factorial(self, value: complex) -> complex:
        z = complex(value)
        if z.imag != 0 or not -0.5 < z.real < 170:
            raise ValueError("no factorial")
        return math.gamma(z.real + 1)


def value_of(node: Node, point: int = 0, base: float = math.e) -> tuple[complex, float] | None:
    r"""The value at a point, and how large the terms were that made it; None where it has no finite value.

    ``base`` is that of a ``\log`` without one.
    """
    values = _Values(point, base)
    try:
        value = complex(values.of(node))
    except (ArithmeticError, ValueError):
        return None
    return (value, values.largest) if cmath.isfinite(value) else None


def same_expression(a: Expression, b: Expression) -> bool | None:
    """Whether two expressions are equal; None where that is not decided (see the module's docstring)."""
    if a.canonical is not None and b.canonical is not None:
        if a.canonical == b.canonical:
            return True
        if independent(a.canonical) and independent(b.canonical):
            return False
    bases = (math.e, 10.0) if a.logarithm or b.logarithm else (math.e,)
    return False if all(_differ(a.node, b.node, base) for base in bases) else None


def _differ(a: Node, b: Node, base: float) -> bool:
    """Whether the values differ at one of the points."""
    for point in range(POINTS):
        left, right = value_of(a, point, base), value_of(b, point, base)
        if left is None or right is None:
            continue
        size = max(abs(left[0]), abs(right[0]))
        noise = 1e-13 * max(left[1], right[1])
        if abs(left[0] - right[0]) > TOLERANCE * size + noise:
            return True
    return False


def same_relation(a: tuple[Expression, Expression], b: tuple[Expression, Expression], *, ordered: bool) -> bool | None:
    """Whether left - right of one relation is a nonzero multiple of that of the other.

    Args:
        a: the two sides of a relation.
        b: the two sides of the other.
        ordered: for ``<`` and its like, where only a positive multiple keeps the direction.
    """
    if any(x.logarithm for x in a) != any(x.logarithm for x in b):
        return None
    differences = [("add", (left.node, ("mul", (("num", Fraction(-1)), right.node)))) for left, right in (a, b)]
    try:
        forms = [canonical(difference) for difference in differences]
    except (TooLarge, Undefined):
        forms = []
    if forms and all(forms):
        scale = forms[0].leading() / forms[1].leading()
        if forms[0] == forms[1].scaled(scale):
            return scale > 0 or not ordered
    ratio: complex | None = None
    for point in range(POINTS + 1):
        values = [value_of(difference, point) for difference in differences]
        if values[0] is None or values[1] is None or values[1][0] == 0:
            continue
        (left, left_size), (right, right_size) = values[0], values[1]
        if abs(left) < 1e-6 * left_size or abs(right) < 1e-6 * right_size:
            continue  # mostly rounding
        now = left / right
        if ratio is None:
            ratio = now
        elif abs(now - ratio) > TOLERANCE * abs(ratio):
            return False
    # No variable, or no value: nothing was compared.
    return None if ratio is None or not ordered or ratio.real > 0 else False
