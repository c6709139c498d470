"""When a text with a right answer is still not worth imitating."""

from __future__ import annotations

import pytest

from dereason.problems.schema import frame
from dereason.supervision.checks import failed_attempts, false_calculation, spoken, stray_phrase, words_before_answer
from dereason.supervision.wording import STRAY


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
        ("05 + 07 = 13, then 2 + 2 = 5", "2 + 2 = 5"),
        ("1 + " * 600 + "1 = 9", None),
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


@pytest.mark.parametrize(
    ("response", "problem", "found"),
    [
        ("As the student wrote, 2.", "What is 1 + 1?", "the student"),
        ("The students are 30.", "How many are there?", None),
        ("Half of the students: the student counts.", "A school has 60 students.", None),
        ("The attempt is good.", "What is 1 + 1?", "the attempt"),
    ],
)
def test_stray_phrases_are_whole_words_and_not_the_problems_own(response: str, problem: str, found: str | None) -> None:
    assert stray_phrase(response, problem, STRAY) == found


def test_an_attempt_is_shown_without_its_thoughts() -> None:
    said = {"problem_id": "p", "model": "m", "purpose": "rollout", "tokens": 9, "hit_limit": False, "verdict": "wrong"}
    rows = [said | {"index": 0, "response": "<think>\nWe add.\n</think>\n2 + 3 = 6\n\\boxed{6}"}]
    assert failed_attempts(frame("sample", rows)) == {"p": "2 + 3 = 6\n\\boxed{6}"}


def test_a_thought_that_is_left_out_leaves_no_trail() -> None:
    """The blanked text is as long as the response: nothing of it may be shown or imitated."""
    said = {"problem_id": "p", "model": "m", "purpose": "teacher", "tokens": 9, "verdict": "correct"}
    thought = f"<think>\n{'hm ' * 100}\n</think>"
    responses = {
        f"{thought}\n\n\\boxed{{6}}": "\\boxed{6}",
        f"Let us see. {thought} It is \\boxed{{6}}.": "Let us see.\n\nIt is \\boxed{6}.",
        f"First:\n\n{thought}\n\n{thought}\n2 + 4\n": "First:\n\n2 + 4",
        f"It is 6.\n{thought}\n{thought[:50]}": "It is 6.",
        "a thought\n</think>\nIt is\n\n\n6.  ": "It is\n\n\n6.",
        " It is\n\n\n6.": "It is\n\n\n6.",
        thought: "",
    }
    rows = [said | {"index": i, "response": response} for i, response in enumerate(responses)]
    assert spoken(frame("sample", rows))["response"].to_list() == list(responses.values())
