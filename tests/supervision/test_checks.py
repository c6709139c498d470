"""When a text with a right answer is still not worth imitating."""

from __future__ import annotations

import pytest

from dereason.supervision.checks import false_calculation, words_before_answer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7 + 4 - 6 = 11\n11 - 6 = 5", "7 + 4 - 6 = 11"),
        ("First, 2*3 = 5.", "2*3 = 5"),
        ("We add 2 + 3 = 6, and so on", "2 + 3 = 6"),
        ("**2 × 3 = 7**", "2 × 3 = 7"),
        ("1 - -3 = 4 and 2 + 2 = 5", "2 + 2 = 5"),
        ("Then 11 - 6 equals 7.", "11 - 6 equals 7"),
        ("2 + 3 = 5. Then 5 - 9 = -4", None),
        ("x + 2 + 3 = 7", None),
        ("x = 2 + 3 = 7", None),
        ("2x + 3 = 7", None),
        ("2 \\times 3 + 4 = 11", None),
        ("$3 + 4 = 8x", None),
        ("8 + 7 = 3 (mod 12)", None),
        ("11 + 1 = 100 in binary", None),
        ("1,200 + 300 = 1,500", None),
        ("1.5 + 2 = 3.5", None),
        ("1 + 2 = 3 + 4 = 7", None),
        ("2^3 + 1 = 9", None),
        ("10 / 4 + 1 = 3", None),
    ],
)
def test_false_calculations_are_found_and_only_plain_ones_are_judged(text: str, found: str | None) -> None:
    assert false_calculation(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2 + 3 = 5\n\\boxed{5}", 3),
        ("2+3=5\n\n**Final answer:** $\\boxed{5}$", 3),
        ("So, the answer is \\boxed{5}.", 1),
        ("### Answer\n\n\\boxed{5}", 0),
        ("\\frac{1}{2} of ten is the answer: \\boxed{5}", 7),
        ("We see 5", None),
    ],
)
def test_words_before_the_answer(text: str, words: int | None) -> None:
    assert words_before_answer(text, "5", None) == words
