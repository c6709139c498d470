"""The parser of expressions, canonical forms, and values; checked against sympy and by hand."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from dereason.verify.expressions import parse_expression, same_expression, value_of
from dereason.verify.notation import NotMath, TooHard
from dereason.verify.polynomials import canonical
from dereason.verify.text import as_latex


def same(a: str, b: str) -> bool | None:
    return same_expression(parse_expression(as_latex(a)), parse_expression(as_latex(b)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"2\sqrt{5}", r"\sqrt{20}"),
        (r"\frac{1}{\sqrt2}", r"\frac{\sqrt{2}}{2}"),
        (r"\sqrt{8}\sqrt{2}", "4"),
        (r"\sqrt[3]{54}", r"3\sqrt[3]{2}"),
        (r"\sqrt[3]{-8}", "-2"),
        (r"\sqrt{-4}", "2i"),
        (r"\frac{1}{i}", "-i"),
        ("(x+1)^2", "x^2+2x+1"),
        ("(x+1)(x-1)", "x^2-1"),
        ("30p \\sqrt{p}", "30p^{3/2}"),
        (r"\frac{2x-7}{(x+1)(x-2)}", r"\frac{2x-7}{x^2-x-2}"),
        (r"\frac{a}{b}", "a/b"),
        ("x/2", r"\frac12 x"),
        (r"-x^2", "-(x^2)"),
        ("2**3**2", "512"),
        (r"\sin 2x \cos x", r"\cos x\sin(2x)"),
        (r"\sin^2 x", r"(\sin x)^2"),
        (r"\cos^{-1} x", r"\arccos x"),
        (r"\sin 30^\circ", r"\sin\frac{\pi}{6}"),
        (r"e^{2x}", r"\exp(2x)"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        ("|-3|", "3"),
        ("1,000x", "1000x"),
        (r"\theta_1 + x'", r"x' + \theta_{1}"),
        (r"2\lvert x\rvert", "|x|*2"),
        ("lnx", r"\ln x"),
    ],
)
def test_equal(a: str, b: str) -> None:
    assert same(a, b) is True
    assert same(b, a) is True


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"2\sqrt{5}", r"\sqrt{21}"),
        ("x^2", "-x^2"),
        ("2^{4950}", "2^{4951}"),
        ("2^{2008}-2", r"2\sqrt{19}"),
        (r"\sin x", r"\cos x"),
        ("x_1", "x_2"),
        ("x", "X"),
        (r"\frac{1}{x+1}", r"\frac{1}{x}+1"),
        (r"\log 5", "5"),
        (r"\sqrt{3}", "1.7320508"),
        ("AB", "BA"),
    ],
)
def test_different(a: str, b: str) -> None:
    assert same(a, b) is False


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"\sqrt{x^2}", "x"),
        (r"\log 100", "2"),  # decimal or natural?
        (r"\log 100", r"2\ln 10"),
        ("9**9**9**9", "1"),
        (r"(1+\sqrt2)^{-1}", r"\sqrt2-1"),
    ],
)
def test_undecided(a: str, b: str) -> None:
    assert same(a, b) is None


@pytest.mark.parametrize(
    "text", ["", "hello", "2 3", "x +", "(x", "x = 2", "5?", "is", "a or b", "1/0", "x_", r"\sin", "ab ced"]
)
def test_not_math(text: str) -> None:
    with pytest.raises(NotMath):
        parse_expression(text)


@pytest.mark.parametrize(
    "text", [r"\int_0^1 x", r"\overrightarrow{x}", "(" * 40 + "x" + ")" * 40, "x" * 2000, "1" * 401, "9^" * 50 + "9"]
)
def test_too_hard(text: str) -> None:
    with pytest.raises(TooHard):
        parse_expression(text)


def test_random_expressions_against_sympy() -> None:
    """Equal where sympy's simplified difference is zero, different where it is not."""
    import sympy

    rng = random.Random(5)
    x, y = sympy.symbols("x y", positive=True)

    def build(depth: int) -> tuple[str, sympy.Expr]:
        kind = (
            rng.choice(["number", "x", "y"])
            if depth == 0
            else rng.choice(["sum", "product", "fraction", "power", "root"])
        )
        if kind == "number":
            n = rng.randrange(1, 9)
            return str(n), sympy.Integer(n)
        if kind in "xy":
            return kind, {"x": x, "y": y}[kind]
        (a, a_), (b, b_) = build(depth - 1), build(depth - 1)
        if kind == "sum":
            sign = rng.choice("+-")
            return f"({a} {sign} {b})", a_ + b_ if sign == "+" else a_ - b_
        if kind == "product":
            return rng.choice([f"{a} \\cdot {b}", f"({a})({b})"]), a_ * b_
        if kind == "fraction":
            return rng.choice([f"\\frac{{{a}}}{{{b}+7}}", f"({a})/({b}+7)"]), a_ / (b_ + 7)
        if kind == "power":
            n = rng.randrange(2, 4)
            return f"({a})^{n}", a_**n
        n = rng.randrange(2, 40)
        return f"{a}\\sqrt{{{n}}}", a_ * sympy.sqrt(n)

    point = {x: sympy.Rational(7, 5), y: sympy.Rational(11, 13)}
    decided = 0
    for _ in range(150):
        (a, a_), (b, b_) = build(2), build(2)
        if rng.random() < 0.5:  # another spelling of the same
            b, b_ = f"\\frac{{2({a}) + x}}{{2}} - 0.5x", a_
        found = same(a, b)
        if abs(sympy.N((a_ - b_).subs(point), 30)) > 1e-12:
            assert found is False, (a, b)
        else:
            assert found is not False, (a, b)
        decided += found is not None
    assert decided > 140


def test_values_against_python() -> None:
    cases = {
        r"\frac{3}{4} - 2\cdot 5": 0.75 - 10,
        r"2^{10} - \sqrt{16}": 1020.0,
        r"\sqrt[3]{27} \pi": 3 * 3.141592653589793,
        r"\sin 30^\circ": 0.5,
        r"\log_2 8": 3.0,
        r"\ln e^2": 2.0,
        r"4!/2!": 12.0,
        r"\frac12 + \frac{1}{2}": 1.0,
        "-2^2": -4.0,
        "2/3*3": 2.0,
        "1.5e": 1.5 * 2.718281828459045,
    }
    for text, expected in cases.items():
        found = value_of(parse_expression(text).node)
        assert found is not None
        assert found[0] == pytest.approx(expected, rel=1e-12), text


def test_canonical_form_is_exact() -> None:
    form = canonical(parse_expression(r"\frac{1}{3}x + 0.1x + \frac{\sqrt{12}}{2}").node)
    assert form.terms == {
        (("x", Fraction(1)),): Fraction(13, 30),
        (("3", Fraction(1, 2)),): Fraction(1),
    }
