"""math-verify as it is used inside the workers."""

from __future__ import annotations

import pytest

from dereason.verify.symbolic import math_verify_equal


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\frac{1}{2004 \cdot 2003!}", r"\frac{1}{2004!}", True),
        (r"\frac{1}{6004!}", r"\frac{1}{2004!}", False),  # both are 0 to fifty decimals
        (r"10^{-40}", r"\frac{1}{10^{40}}", True),
        (r"2 \cdot 10^{-40}", r"10^{-40}", False),
        (r"\sqrt2 - \sqrt2", "0", True),
        ("0.333333", r"\frac{1}{3}", False),
        ("1.414214", r"\sqrt2", False),
        ("(x+1)**2", "x^2 + 2x + 1", True),
        (r"\cos 2x", r"1 - 2\sin^2 x", True),
        ("x", "y", False),
    ],
)
def test_scalars(answer: str, reference: str, equal: bool) -> None:
    assert math_verify_equal(answer, reference) is equal
    assert math_verify_equal(reference, answer) is equal
