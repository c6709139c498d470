r"""The canonical form of an expression: a polynomial with rational coefficients in atoms.

An atom is a variable, π, e, *i*, a prime number under a root, or whatever cannot be taken apart (``sin(...)``, a
power with a variable in the exponent, the inverse of a sum), named by its own canonical form. Exponents are
rational; those of primes are kept between 0 and 1, and *i*·*i* is -1, so numerical roots come out in one form
(``\frac{1}{\sqrt{2}}`` and ``\frac{\sqrt{2}}{2}``). Equal forms mean equal expressions; expressions with different
forms may still be equal (``\sin^2 x + \cos^2 x`` and 1).

Everything is bounded: numbers by :data:`MAX_BITS`, sums by :data:`MAX_TERMS`, and the whole by :data:`MAX_WORK`.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from dereason.verify.notation import Node

MAX_BITS = 32_000
MAX_TERMS = 200
MAX_WORK = 10_000
MAX_POWER = 16
MAX_FACTORIAL = 3000
MAX_ROOT = 10**12
_TRIAL = 1000

_QUOTIENTS = {"tan": ("sin", "cos"), "cot": ("cos", "sin"), "sec": ("", "cos"), "csc": ("", "sin")}

Monomial = tuple[tuple[str, Fraction], ...]

_ONE = Fraction(1)


class TooLarge(ValueError):
    """The canonical form would pass a bound."""


class Undefined(ValueError):
    """A division by zero."""


class Polynomial:
    """A sum of monomials with rational coefficients; immutable."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Monomial, Fraction]) -> None:
        self.terms = {monomial: c for monomial, c in terms.items() if c}
        if len(self.terms) > MAX_TERMS:
            raise TooLarge(f"more than {MAX_TERMS} terms")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        """A name that is the same for equal polynomials."""
        parts = (
            # In hexadecimal, which Python writes in linear time.
            f"{c.numerator:x}/{c.denominator:x}" + "".join(f"*{atom}^{exponent}" for atom, exponent in monomial)
            for monomial, c in sorted(self.terms.items())
        )
        text = "+".join(parts) or "0"
        if len(text) > 5000:
            raise TooLarge("a name of more than 5000 characters")
        return f"({text})"

    def bits(self) -> int:
        """The size of its first coefficient, as a sample of what arithmetic with it costs."""
        return _bits(next(iter(self.terms.values()), _ONE))

    def leading(self) -> Fraction:
        """The coefficient of the first monomial in sorted order. Not for the polynomial 0."""
        return self.terms[min(self.terms)]

    def scaled(self, factor: Fraction) -> Polynomial:
        """The polynomial times a number."""
        return Polynomial({monomial: _bounded(c * factor) for monomial, c in self.terms.items()})


def rational(form: Polynomial) -> Fraction | None:
    """The number that the form is, or None where it is no rational number."""
    if not form.terms:
        return Fraction(0)
    return form.terms.get(()) if len(form.terms) == 1 else None


_NAME = re.compile(r"[A-Za-z][A-Za-z]*(?:_\w+)?'*")


def independent(form: Polynomial) -> bool:
    """Whether the form's atoms are independent of each other, so that another such form is another value.

    Roots of distinct primes, *i*, π and variables are; of e beside π nobody knows, and functions need not be.
    """
    return all(
        (int(atom) <= _TRIAL**2 if atom.isdigit() else atom != "e" and _NAME.fullmatch(atom) is not None)
        for monomial in form.terms
        for atom, _ in monomial
    )


def canonical(node: Node) -> Polynomial:
    """The canonical form of a node of :mod:`dereason.verify.notation`.

    Raises:
        TooLarge: beyond a bound.
        Undefined: a division by zero.
    """
    return _Work().form(node)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise TooLarge(f"a number of more than {MAX_BITS} bits")
    return value


def _number(value: Fraction) -> Polynomial:
    return Polynomial({(): value})


def _atom(name: str, exponent: Fraction = _ONE) -> Polynomial:
    return Polynomial({((name, exponent),): _ONE})


def _factors(n: int) -> dict[int, int]:
    """Prime factors by trial division; what is left beyond the bound stays in one piece, or two equal ones."""
    if n > MAX_ROOT:
        raise TooLarge("a root of a large number")
    factors: dict[int, int] = {}
    divisor = 2
    while divisor <= _TRIAL and divisor * divisor <= n:
        while n % divisor == 0:
            factors[divisor] = factors.get(divisor, 0) + 1
            n //= divisor
        divisor += 1 if divisor == 2 else 2
    if n > 1:
        half = math.isqrt(n)
        if half * half == n:
            factors[half] = factors.get(half, 0) + 2
        else:
            factors[n] = factors.get(n, 0) + 1
    return factors


class _Work:
    """Computes one canonical form within a budget of operations on coefficients."""

    def __init__(self) -> None:
        self.left = MAX_WORK

    def spend(self, work: int) -> None:
        self.left -= work
        if self.left < 0:
            raise TooLarge("too much work")

    def form(self, node: Node) -> Polynomial:
        kind = node[0]
        if kind == "num":
            return _number(_bounded(node[1]))
        if kind == "var":
            return Polynomial({((node[1], _ONE),): _ONE})
        if kind == "add":
            terms: dict[Monomial, Fraction] = {}
            for term in node[1]:
                part = self.form(term)
                self.spend(len(part.terms) * (1 + part.bits() // 256))
                for monomial, c in part.terms.items():
                    terms[monomial] = _bounded(terms.get(monomial, Fraction(0)) + c)
            return Polynomial(terms)
        if kind == "mul":
            product = _number(_ONE)
            for factor in node[1]:
                product = self.times(product, self.form(factor))
            return product
        if kind == "pow":
            return self.power(self.form(node[1]), self.form(node[2]))
        if kind == "root":
            return self.root(self.form(node[1]), self.form(node[2]))
        if kind == "log":
            return _atom(f"log{self.form(node[1])}{self.form(node[2])}")
        if kind == "binom":
            return self.binomial(self.form(node[1]), self.form(node[2]))
        return self.function(node[1], self.form(node[2]))

    def times(self, a: Polynomial, b: Polynomial) -> Polynomial:
        self.spend(len(a.terms) * len(b.terms) * (1 + (a.bits() + b.bits()) // 256))
        terms: dict[Monomial, Fraction] = {}
        for left, c in a.terms.items():
            for right, d in b.terms.items():
                monomial, factor = self.join(left, right)
                terms[monomial] = _bounded(terms.get(monomial, Fraction(0)) + c * d * factor)
        return Polynomial(terms)

    def join(self, left: Monomial, right: Monomial) -> tuple[Monomial, Fraction]:
        """The product of two monomials: the monomial and the rational number that comes out."""
        if not left or not right:
            return left or right, _ONE
        exponents = dict(left)
        factor = _ONE
        for atom, exponent in right:
            total = exponents.pop(atom, Fraction(0)) + exponent
            if atom == "i":
                factor *= -1 if total % 4 >= 2 else 1
                total %= 2
            elif atom.isdigit():
                whole = total.numerator // total.denominator
                factor *= Fraction(int(atom)) ** whole
                total -= whole
            if total:
                exponents[atom] = total
        return tuple(sorted(exponents.items())), factor

    def power(self, base: Polynomial, exponent: Polynomial) -> Polynomial:
        n = rational(exponent)
        if n is None:
            return _atom(f"power{base}{exponent}")
        if n.denominator == 1:
            return self.whole_power(base, n.numerator)
        value = rational(base)
        if value is not None:
            return self.number_to(value, n)
        if len(base.terms) == 1:
            ((monomial, c),) = base.terms.items()
            if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0] != "i":
                return self.times(self.number_to(c, n), _atom(monomial[0][0], n)) if c > 0 else _atom(str(base), n)
        # A positive number may leave the root: (2x+2)^(1/2) is 2^(1/2) (x+1)^(1/2).
        lead = abs(base.leading())
        return self.times(self.number_to(lead, n), _atom(str(base.scaled(1 / lead)), n))

    def whole_power(self, base: Polynomial, n: int) -> Polynomial:
        if n == 0:
            return _number(_ONE)
        value = rational(base)
        if value is not None:
            if value == 0 and n < 0:
                raise Undefined("a division by zero")
            if abs(n) * math.log2(max(abs(value.numerator), value.denominator)) > MAX_BITS:
                raise TooLarge(f"a number of more than {MAX_BITS} bits")
            return _number(value**n)
        if len(base.terms) == 1:
            ((monomial, c),) = base.terms.items()
            if abs(n) > MAX_BITS:
                raise TooLarge("a large exponent")
            product = self.whole_power(_number(c), n)
            for atom, exponent in monomial:
                joined, factor = self.join(((atom, exponent * n),), ((atom, Fraction(0)),))
                product = self.times(product, Polynomial({joined: _bounded(factor)}))
            return product
        if n < 0:
            lead = base.leading()
            return self.times(self.whole_power(_number(lead), n), _atom(str(base.scaled(1 / lead)), Fraction(n)))
        if n > MAX_POWER:
            return _atom(str(base), Fraction(n))
        product = base
        for _ in range(n - 1):
            product = self.times(product, base)
        return product

    def root(self, base: Polynomial, degree: Polynomial) -> Polynomial:
        n = rational(degree)
        if n is None or n == 0:
            raise TooLarge("a root of no number")
        value = rational(base)
        if value is not None and value < 0 and n.denominator == 1 and n.numerator % 2 == 1:
            return self.number_to(-value, 1 / n).scaled(Fraction(-1))  # the cube root of -8 is -2 at school
        return self.power(base, _number(1 / n))

    def number_to(self, value: Fraction, n: Fraction) -> Polynomial:
        """A rational number to a power that is no whole number."""
        if value == 0:
            if n < 0:
                raise Undefined("a division by zero")
            return _number(Fraction(0))
        if value < 0:
            if n.denominator != 2:
                return _atom(f"({value})", n)
            return self.times(self.number_to(-value, n), self.whole_power(_atom("i"), n.numerator))
        if abs(n) > MAX_BITS:
            raise TooLarge("a large exponent")
        product = _number(_ONE)
        for whole, sign in ((value.numerator, 1), (value.denominator, -1)):
            for prime, count in _factors(whole).items():
                if abs(count * n) * prime.bit_length() > MAX_BITS:
                    raise TooLarge("a large exponent")
                joined, factor = self.join(((str(prime), Fraction(0)),), ((str(prime), n * count * sign),))
                product = self.times(product, Polynomial({joined: _bounded(factor)}))
        return product

    def function(self, name: str, argument: Polynomial) -> Polynomial:
        value = rational(argument)
        if value is not None:
            if name == "abs":
                return _number(abs(value))
            if name == "factorial" and value.denominator == 1 and 0 <= value <= MAX_FACTORIAL:
                return _number(_bounded(Fraction(math.factorial(value.numerator))))
            if name in ("ln", "log") and value == 1:
                return _number(Fraction(0))
        if name in ("ln", "log") and len(argument.terms) == 1:
            ((monomial, c),) = argument.terms.items()
            if (
                c > 0
                and (len(monomial) > 1 or (c == 1 and monomial and monomial[0][1] != 1))
                and all(atom not in ("i", "e") for atom, _ in monomial)
            ):
                # The logarithm of a product of positive things: log(x^2) is 2 log(x).
                total = self.function(name, _number(c))
                for atom, exponent in monomial:
                    part = self.function(name, _atom(atom)).scaled(exponent)
                    total = Polynomial(
                        {
                            m: total.terms.get(m, Fraction(0)) + part.terms.get(m, Fraction(0))
                            for m in (*total.terms, *part.terms)
                        }
                    )
                return total
        if name in _QUOTIENTS:
            above, below = (_atom(f"{part}{argument}") if part else _number(_ONE) for part in _QUOTIENTS[name])
            return self.times(above, self.whole_power(below, -1))
        if name == "sqrt":
            return self.power(argument, _number(Fraction(1, 2)))
        return _atom(f"{name}{argument}")

    def binomial(self, n: Polynomial, k: Polynomial) -> Polynomial:
        upper, lower = rational(n), rational(k)
        if upper is None or lower is None:
            return _atom(f"binom{n}{k}")
        if upper.denominator != 1 or lower.denominator != 1 or not 0 <= lower <= upper <= MAX_FACTORIAL:
            raise TooLarge("a large binomial coefficient")
        return _number(Fraction(math.comb(upper.numerator, lower.numerator)))
