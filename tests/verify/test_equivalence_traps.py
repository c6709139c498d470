r"""Pairs that look alike and are not, and pairs that look different and are equal: beside the rules."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from dereason.verify.equivalence import compare, option_index
from dereason.verify.kinds import Kind
from dereason.verify.reading import kind_of
from dereason.verify.symbolic import math_verify_equal
from dereason.verify.verdict import judge_response

ALIKE = [
    # the case of a letter that is a variable or a prefix
    ("5 MW", "5 mW"),
    ("5 Mg", "5 mg"),
    ("GMm/r^2", "Gmm/r^2"),
    ("nRT", "NRt"),
    ("kT", "KT"),
    (r"\sqrt{Rt}", r"\sqrt{RT}"),
    ("2xY", "2xy"),
    # currencies
    ("£5", "$5"),
    ("5€", "$5"),
    ("5 €", "£5"),
    ("¥5", "€5"),
    ("$3800, two lines", "$3800"),
    (r"\$\dfrac23 \approx \$0.67, 88572", r"\$\dfrac23 \approx \$0.67"),
    # percent and units
    ("5%", "5 cm"),
    ("5 people", "5%"),
    ("5 Hz", "5 rad/s"),
    ("3 red balls", "3 blue balls"),
    # formulas of chemistry, dates, versions, marks
    ("C2H4", "C4H2"),
    ("NO2", "2NO"),
    ("2020/05/12", "2020/12/05"),
    ("version 1.12", "version 11.2"),
    ("Room 3.5", "Room 35"),
    ("A-", "A"),
    ("O-", "O+"),
    ("A'", "A"),
    ("AB-", "AB"),
    # lists that go on
    ("1, 2, ...", "1, 2"),
    (r"1, 2, \ldots", "1, 2"),
    # intervals
    ("x < 1 and x > 2", "x < 1 or x > 2"),
    ("x < 1 and x > 2", r"(-\infty,1) \cup (2,\infty)"),
    ("y > 3", "x > 3"),
    ("0 < y < 1", "0 < x < 1"),
    ("x > 1, y < 3", "y > 1, x < 3"),
    ("x > 1, y < 3", "x > 1, x < 3"),
    (r"x \ne 1 \text{ and } x \ne 2", r"x \ne 1"),
    # pairs by name
    ("y = 1, x = 2", "(1, 2)"),
    ("(y, x) = (1, 2)", "(1, 2)"),
    # a determinant
    (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
]


@pytest.mark.parametrize(("answer", "reference"), ALIKE)
def test_alike_and_different(answer: str, reference: str) -> None:
    for pair in ((answer, reference), (reference, answer)):
        found = compare(*pair)
        assert not found.equal, (pair, found)


UNLIKE = [
    # sides swapped, whatever stands on them
    ("LRAC = SRAC", "SRAC=LRAC"),
    (r"n^{2}-n-1 = m_{\max }", r"$m_{\max }=n^{2}-n-1$"),
    ("5 KM", "5 km"),
    ("5 PEOPLE", "5 people"),
    ("TWO LINES", "two lines"),
    ("red balls: 3", "Red Balls: 3"),
    ("14 right triangles", "14 triangles"),
    ("5 pounds", "£5"),
    ("500 cents", "$5"),
    (r"5 \frac{\text{cm}}{\text{s}}", "5 cm/s"),
    ("x > 1 and x < 2", "(1, 2)"),
    (r"x < 2 \text{ and } x \ge 1", "[1, 2)"),
    (r"(-\infty,1) U (2,\infty)", r"(-\infty,1) \cup (2,\infty)"),
    ("(-∞,1)U[2,∞)", r"(-\infty,1) \cup [2,\infty)"),
    (r"(-\infty,1) \text{ and } (2,\infty)", r"(-\infty,1) \cup (2,\infty)"),
    (r"x \ne 1 \text{ and } x \ne 2", r"x \ne 2, x \ne 1"),
    ("y = 2, x = 1", "(1, 2)"),
    ("(y, x) = (2, 1)", "(1, 2)"),
    ("y = 2, x = 1", "x = 1, y = 2"),
    ("{}", r"\emptyset"),
    (r"\tan x", r"\frac{\sin x}{\cos x}"),
    (r"\sec^2 x", r"\frac{1}{\cos^2 x}"),
    (r"\pi \approx 3.14", r"\pi"),
    (r"\underline{\textcolor{blue}{12}}", "12"),
    (r"\boldsymbol{x}", "x"),
    ("No!", "no"),
    ("4:30 p.m.", "4:30 PM"),
    ("nRT", "TnR"),
]


def test_an_option_in_a_script_of_its_own_is_read_as_the_answer_is() -> None:
    options = ["C = πε₀a", "C = 10πε₀a", "C = 2πε₀a", "C = 4πε₀a"]
    for at, option in enumerate(options):
        assert option_index(option, options) == at
        judged = judge_response(f"\\boxed{{{option}}}", False, "D", options)
        assert (judged.verdict == "correct") is (at == 3), judged


@pytest.mark.parametrize(("response", "reference"), [(r"\frac 59", "5/9"), (r"\frac{270}7", r"\frac{270}{7}")])
def test_a_fraction_without_braces_is_one_number(response: str, reference: str) -> None:
    assert judge_response(response, False, reference).verdict == "correct"
    assert judge_response(response, False, response.replace("\\frac", "").strip("{}")).verdict != "correct"


@pytest.mark.parametrize(("answer", "reference"), UNLIKE)
def test_unlike_and_equal(answer: str, reference: str) -> None:
    for pair in ((answer, reference), (reference, answer)):
        assert compare(*pair).equal is True, (pair, compare(*pair))


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        # a letter right behind a number is a unit where a quantity is asked for
        ("5m", "5 m", True),
        ("12V", "12 volts", True),
        ("1500m", "1.5 km", True),
        ("5m", "5 s", False),
        ("5m", "5", False),
        # words that change a number, and one that does not
        ("5 twelfths", "5", False),
        ("5 fifteenths", "5", False),
        ("5 tens", "5", False),
        ("5 lakh", "5", False),
        ("5 times", "5", True),
        ("5 times more", "5", False),
        ("minus 5", "-5", True),
        ("negative 1/2", "-0.5", True),
        ("negative 5", "5", False),
        ("five percent", "5%", True),
        ("five percent", "0.05", True),
        ("5€", "€5", True),
        (r"\pi \approx 3.14", "3.14", False),
        (r"x \approx 3.14", "3.14", True),
        (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", "-2", False),
    ],
)  # fmt: skip
def test_by_the_reference(answer: str, reference: str, equal: bool) -> None:
    assert compare(answer, reference).equal is equal


def test_kinds_of_traps() -> None:
    assert kind_of("2020/05/12") is Kind.TEXT
    assert kind_of("C2H4") is Kind.TEXT
    assert kind_of("nRT") is Kind.EXPRESSION
    assert kind_of("kW of power") is Kind.TEXT
    assert kind_of("x > 1, y < 3") is Kind.SET


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B London", 1),
        ("London (B)", 1),
        ("London [b]", 1),
        ("Paris (B)", None),
        ("A London", None),
        ("LONDON", 1),
        ("B. LON", 1),
        ("a cat", 2),  # the text of one option, not the letter of another
        ("5 mW", 3),
        ("5 MW", 4),
        ("London (Z)", None),
    ],
)
def test_letters_beside_texts(text: str, index: int | None) -> None:
    assert option_index(text, ["cat", "London", "A cat", "5 mW", "5 MW"]) == index


@pytest.mark.parametrize("piece", ["x ", "x (", "B ", "1€", "A' ", "5 U [", "y=1, ", "..., ", r"\color{a", "minus "])
def test_time_does_not_explode(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.process_time()
    option_index(text, ["cat", "dog", "bird"])
    for reference in ("4", "£5", "ellipse"):
        assert compare(text, reference).equal is False
    for reference in ("15 cm", "1,-2", "x > 3", r"(1,2) \cup (3,4)"):
        compare(text[:4000], reference)
    assert time.process_time() - began < 10


def test_what_math_verify_would_misread() -> None:
    assert math_verify_equal("1/2", r"\cos 60^\circ")
    assert not math_verify_equal(r"\cos 60", r"\cos 60^{\circ}")
    assert math_verify_equal(r"\sin 10^\circ \sin 50^\circ \sin 70^{\circ}", r"\frac18")
    assert math_verify_equal(r"\sum_{i=1}^{3} i", "6")  # the index is not the imaginary unit
    assert math_verify_equal(r"\sqrt{-4}", "2i")


def test_examples_of_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/verify.md").read_text()
    section = guide.split("## How it is compared")[1].split("\n\n")[2]
    checked = 0
    for line in section.splitlines()[2:]:
        kind, _, *columns = (cell.strip() for cell in line.strip("|").split(" | "))
        for column, equal in zip(columns, (True, False), strict=True):
            for answer, reference in re.findall(r"`([^`]+)` for `([^`]+)`", column):
                assert compare(answer, reference, symbolic=math_verify_equal).equal is equal, (kind, answer, reference)
                checked += 1
    assert checked > 60
