r"""Expressions compared without a computer-algebra system.

Two expressions (:mod:`dereason.verify.notation` reads them) are

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
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from dereason.verify.notation import Node, NotMath, TooHard, read
from dereason.verify.polynomials import Polynomial, TooLarge, Undefined, canonical, independent

# Values further apart than this share of the larger differ. Decimals are exact numbers, here and in the symbolic
# comparison, so that 0.57735 is not \frac{\sqrt{3}}{3}.
TOLERANCE = 1e-9
POINTS = 3


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
    found = _cached(text)
    if isinstance(found, Expression):
        return found
    error, cause = found
    raise error(cause)


@lru_cache(maxsize=2048)
def _cached(text: str) -> Expression | tuple[type[NotMath] | type[TooHard], str]:
    # Not the exception itself: each time that one is raised its traceback grows.
    try:
        node, logarithm = read(text)
    except (NotMath, TooHard) as exc:
        return type(exc), str(exc)
    try:
        form = canonical(node)
    except TooLarge:
        form = None
    except Undefined as exc:
        return NotMath, str(exc)
    return Expression(node, logarithm, form)


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


def variables(node: Node) -> set[str]:
    """The variables of a node; π, e and *i* are none."""
    if node[0] == "var":
        return {node[1]} - {"pi", "e", "i"}
    return {
        name
        for part in node[1:]
        for child in (part if isinstance(part, tuple) and part and isinstance(part[0], tuple) else (part,))
        if isinstance(child, tuple)
        for name in variables(child)
    }


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
