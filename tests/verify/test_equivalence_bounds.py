"""Time and depth are bounded for any text, and no text raises; nothing here leaves the process."""

from __future__ import annotations

import random
import time

import pytest

from dereason.verify.equivalence import compare
from dereason.verify.kinds import MAX_LENGTH, Kind
from dereason.verify.reading import kind_of

REFERENCES = ["4", r"\frac{1}{2}", r"15\mbox{ cm}^2", "yes", "1,-2", r"\{1,2\}", r"(2,\infty)", r"(3,\frac{\pi}{2})",
              r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "y=2x+3", r"2\sqrt{5}+x", "52_8", "ellipse"]  # fmt: skip
BOMBS = {
    "braces": "{" * 100_000,
    "balanced braces": "{" * 50_000 + "}" * 50_000,
    "fractions": r"\frac{" * 20_000,
    "tower": "9**9**9**9",
    "braced tower": "9^{9^{9^{9}}}",
    "factorials": "((((9!)!)!)!)!",
    "digits": "1" * 100_000,
    "fewer digits": "1" * 3_999,
    "commas": "," * 100_000,
    "a list": "1," * 1_900,
    "sine list": ",".join(rf"\sin({i}x)" for i in range(190)),
    "signs": r"1\pm" * 15 + "1",
    "parentheses": "(" * 1_900 + "1" + ")" * 1_900,
    "set braces": r"\{" * 900 + "1" + r"\}" * 900,
    "matrices": r"\begin{pmatrix}" * 200,
    "a wide matrix": r"\begin{pmatrix}" + "1&" * 1_900 + r"1\end{pmatrix}",
    "unions": r"(0,1)\cup" * 400 + "(0,1)",
    "relations": "1<" * 1_900 + "2",
    "spaces": " " * 3_900 + "x",
    "number words": "one hundred " * 200,
    "units": "5 " + "m " * 1_900,
    "degrees": "90" + r"^\circ" * 600,
    "words": "a b " * 25_000,
    "groups": "1 111" * 780,
    "backslashes": "\\" * 100_000,
    "dollars": "$" * 100_000,
    "indices": "_" * 4_000,
    "raised digits": "\u00b2" * 4_000,
    "powers of sums": "((a+b)^{16}+c)^{16}",
    "long products": "(a+b+c+d+e+f+g+h)" * 25,
    "large rationals": "/".join(["1" * 30] * 40),
    "exponent": r"3 \times 10^{99999}",
    "equation": "(x+1)^{15}=(y+2)^{15}",
}


def equal(answer: str, reference: str) -> bool | None:
    """What :func:`compare` says; None too where it refuses a pair for its length, which it may do only then."""
    try:
        return compare(answer, reference).equal
    except ValueError:
        assert len(answer) > MAX_LENGTH
        assert len(reference) > MAX_LENGTH // 2
        assert kind_of(reference) not in (Kind.NUMBER, Kind.TEXT)
        return None


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_cheap(name: str) -> None:
    bomb = BOMBS[name]
    compare("5 cm", "5 kg")  # the registry of units, once
    began = time.process_time()
    kind_of(bomb)
    for other in REFERENCES if len(bomb) < 10_000 else REFERENCES[:5]:
        assert equal(bomb, other) is not True
        assert equal(other, bomb) is not True
    assert equal(f" {bomb} ", bomb) is True
    equal(bomb + "1", bomb)
    # Well under a tenth of this on two slow cores, all thirty comparisons together.
    assert time.process_time() - began < 20


@pytest.mark.parametrize("reference", [*REFERENCES, "2k+2", "(A)"])
def test_an_answer_far_larger_than_its_reference_is_wrong_and_no_error(reference: str) -> None:
    """An error counts for nothing: a policy must not be spared by writing without end."""
    for answer in ("{" * 100_000, "1,2" * 1_500, "1+" * 3_000 + "1", "(" * 300 + "x" + ")" * 300, "y" * 5_000):
        assert compare(answer, reference).equal is False
    assert compare(reference + " " * 5_000, reference).equal is True


def test_what_a_reference_needs_may_be_as_large() -> None:
    values = [f"x_{{{i}}} + {i}" for i in range(190)]
    listed = ", ".join(values)
    assert compare(", ".join(reversed(values)), listed).equal is True
    with pytest.raises(ValueError, match=r"the answer has 4,\d\d\d characters, more than the 4,000"):
        compare(listed + "+1" * 950, listed)


def test_time_is_linear_in_the_length() -> None:
    def seconds(n: int) -> float:
        began = time.process_time()
        for text in ("{" * n, "a b " * (n // 4), r"\frac{" * (n // 6)):
            compare(text, text + "x")
        return time.process_time() - began

    seconds(1_000)
    # quadratic would be 100 each time; other tests' garbage may be collected in one of the two
    assert any((took := seconds(200_000)) < 0.5 or took < 40 * seconds(20_000) for _ in range(5))


_PIECES = [
    *[r"\frac", "{", "}", "(", ")", "[", "]", r"\{", r"\}", ",", "1", "2", "x", "+", "-", "^", "_", r"\sqrt", r"\pm"],
    *[r"\cup", "=", "<", r"\in", r"\infty", " and ", " or ", "cm", r"^\circ", r"\begin{pmatrix}", r"\end{pmatrix}"],
    *["&", r"\\", "|", "!", "%", "$", ".", "/", r"\text{", "\u03c0", "\u00b2", "\u00bd", "a", "the ", "yes", "10"],
    *[r"\times", "e", "\u00b0C", "\u221a", r"\log", r"\sin", "dollars", r"\$", "'", ":", "\u0663", "base 8"],
]


def test_random_texts_never_raise_and_equal_themselves() -> None:
    rng = random.Random(7)
    for _ in range(6_000):
        a, b = ("".join(rng.choice(_PIECES) for _ in range(rng.randrange(1, 14))) for _ in range(2))
        if b.strip():
            kind_of(b)
            compare(a, b)
            assert compare(f" {b} ", b).equal is True, b
