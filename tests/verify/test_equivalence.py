"""Equivalence: exact numbers, choices, and text after normalisation."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from dereason.verify.equivalence import Comparison, compare, option_index
from dereason.verify.numbers import parse_number
from dereason.verify.text import normalise

OPTIONS = ["FIFO memory", "Flash memory", "LIFO memory", "0.5"]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("4", "4"),
        ("4.0", "4"),
        ("+4", "4"),
        ("1,234", "1234"),
        ("1{,}234.50", "1234.5"),
        ("\u22125", "-5"),
        ("$18", "18"),
        (r"\$18.00", "18"),
        ("18.", "18"),
        ("1/2", "0.5"),
        (r"\dfrac{1}{2}", r"\frac12"),
        (r"-\frac{1}{2}", "-0.5"),
        (r"\frac{-1}{2}", "-1/2"),
        (r"\frac9{19}", "9/19"),
        ("2/4", "1/2"),
        (r"137 \frac{1}{2}", "137.5"),
        ("1 1/2", "1.5"),
        ("15%", "0.15"),
        (r"15\%", "15"),
        ("15", "15 percent"),
        ("1e3", "1000"),
        ("2.5e-1", "1/4"),
        (".5", "0.50"),
        ("007", "7"),
        ("Paris", " paris "),
        (r"\text{east}", "East"),
        ("(B)", "B"),
        ("(3, 4)", "(3,4)"),
        (r"2 \sqrt{5}", r"2\sqrt{5}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\dfrac{\pi}{2})"),
        ("new   york", "New York"),
        ("\u201cyes\u201d", "yes"),
        ("1e999999999", "1e999999999"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_equal(answer: str, reference: str) -> None:
    found = compare(answer, reference)
    assert found.equal is True, found.reason
    assert compare(reference, answer).equal is True


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("5", "4"),
        ("-4", "4"),
        ("4 or 5", "4"),
        ("4, 5", "4"),
        ("4,5", "4"),
        ("1,23", "123"),
        ("0.333", "1/3"),
        ("0.3000000000000000000001", "0.3"),
        ("1e999999999", "1"),
        ("1/0", "0"),
        ("5!", "5"),
        ("5x", "5"),
        ("16%", "15"),
        ("1500%", "0.15"),
        ("n", "N"),
        ("now here", "nowhere"),
        ("x-1", "x+1"),
        ("not Paris", "Paris"),
        ("2 3", "23"),
        ("3/4/5", "3/4"),
        ("9" * 5000, "9" * 4999 + "8"),
        ("", "0"),
    ],
)
def test_not_equal(answer: str, reference: str) -> None:
    assert compare(answer, reference).equal is False
    if answer:
        assert compare(reference, answer).equal is False


def test_rationals_against_python() -> None:
    rng = random.Random(1)
    for _ in range(500):
        value = Fraction(rng.randrange(-3000, 3000), rng.choice([1, 2, 4, 5, 8, 10, 25]))
        whole, rest = divmod(abs(value), 1)
        sign = "-" if value < 0 else ""
        decimal = f"{sign}{whole:,}" + (f"{float(rest):.6f}"[1:] if rest else "")
        fraction = f"{sign}\\frac{{{abs(value).numerator}}}{{{value.denominator}}}"
        for form in (decimal, fraction, str(value)):
            number = parse_number(form)
            assert number is not None, form
            assert number.value == value
        assert compare(decimal, fraction).equal is True
        assert compare(decimal, str(value + Fraction(1, 10**9))).equal is False


@pytest.mark.parametrize("text", ["4", "-1,000.5", "1/3", r"\frac{2}{3}", "15%", "$3", "1e5", "2."])
def test_numbers(text: str) -> None:
    assert parse_number(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fourth",
        "1/0",
        "1e999999999",
        "1e1001",
        "9" * 1001,
        "4, 5",
        "x",
        "1,0,0",
        "04-22-2021",
        "12:30",
        "1..2",
        "-",
    ],
)
def test_is_not_numeric(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B", 1),
        ("(b)", 1),
        ("B.", 1),
        ("B. Flash memory", 1),
        ("(B) flash", 1),
        ("Flash memory", 1),
        ("1/2", 3),
        ("C: LIFO memory", 2),
        ("C. Flash memory", None),
        ("A or B", None),
        ("A. FIFO memory or B. Flash memory", None),
        ("E", None),
        ("memory", None),
        ("", None),
    ],
)
def test_option_index(text: str, index: int | None) -> None:
    assert option_index(text, OPTIONS) == index


def test_options_with_the_same_text_are_told_apart_by_letter_only() -> None:
    assert option_index("10", ["10", "10.0", "20"]) is None
    assert option_index("B", ["10", "10.0", "20"]) == 1


def test_letter_is_a_label_where_options_are_letters() -> None:
    assert option_index("A", ["C", "B", "A"]) == 0
    assert option_index("X", ["X", "Y"]) == 0  # no option has the label X, so it is the text


def test_choices() -> None:
    assert compare("LIFO memory", "C", OPTIONS) == Comparison(True, "option C")
    assert compare("(C)", "LIFO memory", OPTIONS) == Comparison(True, "option C")
    assert compare("B", "C", OPTIONS) == Comparison(False, "option B, not C")
    assert compare("B or C", "C", OPTIONS).equal is False


def test_bad_references() -> None:
    with pytest.raises(ValueError, match="names none of the 4 options"):
        compare("A", "Z", OPTIONS)
    with pytest.raises(ValueError, match="empty"):
        compare("4", "  ")


def test_reasons_are_words() -> None:
    assert compare("0.50", "1/2").reason == "'0.50' is the same number as '1/2'"
    assert compare("4 or 5", "4").reason == "'4 or 5' is not one number; the reference is 4"
    assert len(compare("x" * 5000, "y" * 5000).reason) < 200


def test_normalise_is_idempotent() -> None:
    for text in (r"\text{ Ab } $x$", "(C)", "a  b , c", r"\left\{1, 2\right\}", "``q''", "N n"):
        assert normalise(normalise(text)) == normalise(text)
