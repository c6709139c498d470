"""What the answers of a file are: marks, positions of options, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from dereason.errors import DereasonError
from dereason.problems.files import Place
from dereason.problems.references import AnswerIs, convention, options_of, reference_of

COLOURS = ["red", "green", "blue", "grey"]


def meant(rows: Sequence[tuple[Any, list[str]]], asked: AnswerIs = "auto") -> list[str]:
    """The answers as the verifier would take them."""
    read = [(Place("line", at), reference_of(answer, "f").answer or "", o) for at, (answer, o) in enumerate(rows, 1)]
    found = convention(read, asked, "f")
    return [found.read(answer, options, f"f: {place}") for place, answer, options in read]


def refusal(rows: Sequence[tuple[Any, list[str]]], asked: AnswerIs = "auto") -> str:
    with pytest.raises(DereasonError) as caught:
        meant(rows, asked)
    return caught.value.line()


@pytest.mark.parametrize(
    ("value", "answer", "solution", "mark"),
    [
        (18, "18", None, None),
        (18.0, "18.0", None, None),
        (True, "true", None, None),
        (" x ", "x", None, None),
        (None, None, None, None),
        (" ", None, None, None),
        ("She sells 9.\n9 * 2 = $<<9*2=18>>18\n#### 18", "18", "She sells 9.\n9 * 2 = $<<9*2=18>>18", "####"),
        ("So 1,000 it is. #### 1,000 ", "1,000", "So 1,000 it is.", "####"),
        ("#### 42", "42", None, "####"),
        ("#### a heading\nand a text", "#### a heading\nand a text", None, None),
        ("##### five", "##### five", None, None),
        (r"We add: $2+5=\boxed{7}$.", "7", r"We add: $2+5=\boxed{7}$.", "\\boxed"),
        (r"$\boxed{\frac{1}{2}}$", r"\frac{1}{2}", None, "\\boxed"),
        (r"\fbox{\{1, 2\}}", r"\{1, 2\}", None, "\\boxed"),
        (r"First $\boxed{1}$, then \boxed{2}", "2", r"First $\boxed{1}$, then \boxed{2}", "\\boxed"),
        (r"Thus $\boxed 2$.", "2", r"Thus $\boxed 2$.", "\\boxed"),
        ("so\n#### \\boxed{3}", "3", "so", "####"),
    ],
)  # fmt: skip
def test_a_reference_is_read_by_its_mark(
    value: Any, answer: str | None, solution: str | None, mark: str | None
) -> None:
    assert reference_of(value, "f: line 1") == (answer, solution, mark)


def test_a_marker_that_is_named_has_to_be_there() -> None:
    assert reference_of("because => 5 => 6", "f", "=>") == ("6", "because => 5", "=>")
    with pytest.raises(DereasonError, match="f: line 2: no '=>' in the answer"):
        reference_of("5", "f: line 2", "=>")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "the answer is nan"),
        (-math.inf, "the answer is -inf"),
        ("NaN", "the answer is 'NaN'"),
        ("inf", "the answer is 'inf'"),
        (["1"], "the answer is a list"),
        ({"value": 1}, "the answer is an object .it has value. — name the one answer inside it by dots"),
        (r"so \boxed{1", "the box in the answer is not closed"),
        (r"so \boxed{}", "the box in the answer is empty"),
        (r"so \boxed", "the box in the answer is empty"),
    ],
)
def test_what_is_no_answer_is_refused(value: Any, words: str) -> None:
    with pytest.raises(DereasonError, match=f"f: line 3: {words}"):
        reference_of(value, "f: line 3")


@pytest.mark.parametrize(
    ("rows", "letters"),
    [
        ([("B", COLOURS), ("(c)", COLOURS), ("d.", COLOURS)], ["B", "C", "D"]),
        ([("green", COLOURS), ("B", COLOURS), ("B. green", COLOURS)], ["green", "B", "B. green"]),
        ([(0, COLOURS), (2, COLOURS)], ["A", "C"]),
        ([("0", COLOURS), ("2.0", COLOURS)], ["A", "C"]),
        ([(1.0, COLOURS), (4.0, COLOURS)], ["A", "D"]),
        ([("B", COLOURS), ("1", COLOURS), ("4", COLOURS)], ["B", "A", "D"]),  # ARC mixes letters and positions from 1
        ([(12, ["10", "12"]), (7, ["7", "8"])], ["B", "A"]),
        ([(12.0, ["10", "12"])], ["B"]),
    ],
)
def test_answers_beside_options_are_found_out_over_the_file(
    rows: list[tuple[Any, list[str]]], letters: list[str]
) -> None:
    assert meant(rows) == letters


def test_two_readings_that_differ_are_refused_with_the_setting() -> None:
    rows = [(1, COLOURS), (2, COLOURS)]
    error = refusal(rows)
    assert "fit index0 and index1: in line 1 '1' would be 'green' (index0) or 'red' (index1)" in error
    assert error.endswith("say which with fields.answer_is (index0, index1)")
    assert meant(rows, "index0") == ["B", "C"]
    assert meant(rows, "index1") == ["A", "B"]
    assert "line 1 has '7' among 4 options" in refusal([(7, COLOURS)])
    assert "fit no reading" in refusal([(0, COLOURS), (4, COLOURS)])
    numbers = ["1", "2", "3"]
    assert "fit text and index0 and index1" in refusal([(2, numbers)])
    assert meant([(2, numbers), (3, numbers)]) == ["B", "C"]  # no position 3 from 0; text and position from 1 agree


def test_options_that_are_letters_themselves() -> None:
    types = ["B", "A", "O"]
    assert "letters that are answers beside options fit letter and text" in refusal([("A", types)])
    assert "in line 2 'A' would be 'B' (letter) or 'A' (text)" in refusal([("A", ["A", "B"]), ("A", types)])
    assert meant([("A", types)], "text") == ["B"]
    assert meant([("A", types)], "letter") == ["A"]
    assert meant([("A", types), ("C", types)]) == ["A", "C"]  # no option is C, so these are labels
    assert meant([("A", types), ("O", types)]) == ["B", "C"]  # there is no option O, so these are texts
    assert meant([("x", ["x", "y"])]) == ["A"]


@pytest.mark.parametrize(
    ("rows", "asked", "words"),
    [
        ([("E", COLOURS)], "auto", "f: line 1: the answer 'E' is none of the 4 options"),
        ([("E", COLOURS)], "letter", "none of the 4 options as letters of options"),
        ([("green", COLOURS)], "letter", "none of the 4 options as letters"),
        ([("A", COLOURS)], "index0", "none of the 4 options as positions among the options, counted from 0"),
        ([(0, COLOURS)], "index1", "none of the 4 options as positions among the options, counted from 1"),
        ([("B", COLOURS)], "text", "none of the 4 options as texts of options"),
    ],
)
def test_an_answer_that_is_no_option_is_refused(rows: list[tuple[Any, list[str]]], asked: AnswerIs, words: str) -> None:
    assert words in refusal(rows, asked)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (None, None),
        ([], None),
        ("", None),
        ("null", None),
        ('["a", "b"]', ["a", "b"]),
        ([" a", 2, 3.5, True], ["a", "2", "3.5", "true"]),
        ({"A": "x", "B": "y", "C": None}, ["x", "y"]),
        ([str(at) for at in range(26)], [str(at) for at in range(26)]),
    ],
)
def test_options_as_data_holds_them(value: Any, options: list[str] | None) -> None:
    assert options_of(value, "f") == options


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a"], "a single option"),
        (["a", " a"], "the option 'a' stands twice"),
        (["a", " "], "option B is empty"),
        ([str(at) for at in range(30)], "30 options, and there are letters for 26"),
        (["a", None], "no list of texts"),
        (["a", ["b"]], "no list of texts"),
        ("['a' 'b']", "a text that is not JSON"),
        ("A", "a text that is not JSON"),
        ("3", "no list of texts"),
        ("[" * 9999, "a text that is not JSON"),
        ({"a": "x", "b": "y"}, "keys are not A, B, C"),
        (7, "no list of texts"),
    ],
)
def test_malformed_options_are_refused(value: Any, words: str) -> None:
    with pytest.raises(DereasonError, match=f"f: line 2: .*{words}"):
        options_of(value, "f: line 2")
