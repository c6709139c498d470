"""The plain rewards, each against numbers worked out by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dereason.problems.schema import Verdict
from dereason.training.rewards.rules import (
    Judging,
    LengthShapedReward,
    ThinkThenAnswer,
    boxed_last,
    correctness,
    length_shaped,
    overlong_punishment,
)
from dereason.training.rewards.settings import (
    Format,
    LengthShaped,
    Overlong,
    Rewards,
    build,
)
from scripted_rewards import Words, call, judgement


def test_correctness_pays_by_verdict() -> None:
    assert {v: correctness(v) for v in Verdict} == {
        Verdict.CORRECT: 1.0,
        Verdict.WRONG: 0.0,
        Verdict.UNPARSABLE: 0.0,
        Verdict.TRUNCATED: 0.0,
        Verdict.ERROR: None,
    }


@pytest.mark.parametrize(
    ("verdict", "difference", "reward"),
    [
        (Verdict.CORRECT, 0, 1.0),
        (Verdict.CORRECT, 1, 0.95),
        (Verdict.CORRECT, -1, 0.95),
        (Verdict.CORRECT, 9, 0.55),
        (Verdict.CORRECT, 10, 0.5),
        (Verdict.CORRECT, -400, 0.5),
        (Verdict.WRONG, 0, 0.0),
        (Verdict.WRONG, 400, 0.0),
        (Verdict.UNPARSABLE, 0, -0.5),
        (Verdict.TRUNCATED, 0, -0.5),
        (Verdict.ERROR, 0, None),
    ],
)
def test_length_shaped_is_general_reasoners(verdict: Verdict, difference: int, reward: float | None) -> None:
    assert length_shaped(verdict, difference) == pytest.approx(reward)


def test_length_shaped_counts_the_tokenizers_tokens_without_its_special_ones() -> None:
    function = LengthShapedReward(Judging(), Words(), no_answer=-1.0, per_token=0.1, max_difference=3)
    assert function.__name__ == "length_shaped"
    answers = ["four", "it is four", "a b c d e f g", None, None]
    verdicts = [Verdict.CORRECT] * 3 + [Verdict.UNPARSABLE, Verdict.ERROR]
    got = call(function, 5, answer=["four"] * 5, judgements=list(map(judgement, verdicts, answers)))
    assert got == [1.0, pytest.approx(0.8), pytest.approx(0.7), -1.0, None]


def test_length_shaped_with_the_real_tokenizer(tiny_model: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    (function,) = build(Rewards(of=[LengthShaped()]), tokenizer=tokenizer, max_new_tokens=64)
    texts = [r"\boxed{1024}", r"\boxed{1024.000}", r"\boxed{7}", "dunno"]
    lengths = [len(tokenizer.encode(t, add_special_tokens=False)) for t in ("1024", "1024.000")]
    assert lengths[1] > lengths[0]
    got = call(function, 4, completions=texts, answer=["1024"] * 4)
    assert got == [1.0, pytest.approx(1 - 0.05 * (lengths[1] - lengths[0])), 0.0, -0.5]


@pytest.mark.parametrize(
    ("length", "punishment"), [(0, 0), (79, 0), (80, 0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1), (150, -1)]
)
def test_overlong_is_dapos(length: int, punishment: float) -> None:
    """Equation 13 with L_max 100 and L_cache 20."""
    assert overlong_punishment(length, 100, 20) == pytest.approx(punishment)


def test_overlong_is_trls() -> None:
    from trl.rewards import get_soft_overlong_punishment

    for limit, buffer in ((100, 20), (20480, 4096), (7, 7), (7, 1)):
        lengths = sorted({0, 1, limit - buffer, limit - buffer + 1, limit - 1, limit, limit + 1})
        theirs = get_soft_overlong_punishment(limit, buffer)([[1] * n for n in lengths])
        assert [overlong_punishment(n, limit, buffer) for n in lengths] == pytest.approx(theirs)


def test_overlong_reads_the_completions_ids() -> None:
    """The end token counts; a completion cut at the limit and one whose last possible token ends it both get -1."""
    (function,) = build(Rewards(of=[Overlong(buffer=4)]), tokenizer=Words(), max_new_tokens=8)
    ids = [[5] * 3 + [0], [5] * 5 + [0], [5] * 8, [5] * 7 + [0]]
    assert call(function, 4, completion_ids=ids) == [0.0, -0.5, -1.0, -1.0]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (r"so \boxed{4}", True),
        (r"so $\boxed{\frac{1}{2}}$.", True),
        (r"so \[ \boxed{\{1, 2\}} \]" + "\n", True),
        (r"**\boxed{4}**", True),
        (r"\boxed {4}", True),
        (r"{open \boxed{4}", True),
        (r"\boxed{4} apples", False),
        (r"\boxed{4} \boxed{4}", False),
        (r"\boxed{\boxed{4}}", False),
        (r"\boxed{4", False),
        (r"\boxed{\frac{1}{2}", False),
        (r"\boxed{4\}", False),
        (r"\boxed{}", False),
        (r"\boxed{ }", False),
        (r"\boxed 4", False),
        ("4", False),
        ("", False),
    ],
)
def test_boxed_shape(text: str, holds: bool) -> None:
    assert boxed_last(text) is holds


@pytest.mark.parametrize(
    ("text", "holds", "after_prompt"),
    [
        ("<think>2+2</think>4", True, False),
        ("\n<think>\n2+2\n</think>\n\n4", True, False),
        ("2+2</think>4", False, True),
        ("so <think>2+2</think>4", False, False),
        ("<think>2+2</think>", False, False),
        ("<think> </think>4", False, False),
        ("<think>2+2</think>4</think>", False, False),
        ("<think>2<think>+2</think>4", False, False),
        ("<think>2</think><think>3</think>4", False, False),
        ("<think>2+2", False, False),
        ("4", False, False),
        ("", False, False),
    ],
)
def test_think_shape(text: str, holds: bool, after_prompt: bool) -> None:
    assert ThinkThenAnswer()(text) is holds
    assert ThinkThenAnswer(opened_by_prompt=True)(text) is after_prompt


def test_shapes_are_linear_in_the_text() -> None:
    """100 kB of what costs a careless parser: open boxes, braces, closing marks, tags."""
    started = time.process_time()
    for piece in (r"\boxed{", "{", "}", r"\boxed{4}" + "$ .", "<think>", "</think>", "\\", "$ \n"):
        text = r"\boxed{4}" + piece * (100_000 // len(piece))
        boxed_last(text)
        boxed_last(text + "x")
        ThinkThenAnswer()(text)
    assert time.process_time() - started < 5  # under a tenth of that; quadratic, it would be minutes


def test_a_pattern_matches_the_whole_response() -> None:
    (function,) = build(
        Rewards(of=[Format(shape="regex", pattern=r"(?s).*#### \d+")]), tokenizer=Words(), max_new_tokens=8
    )
    assert function.__name__ == "format_regex"
    assert call(function, 3, completions=["a\n#### 4", "a #### 4 b", "4"]) == [1.0, 0.0, 0.0]


def test_a_pattern_that_takes_too_long_gives_no_reward_and_costs_its_limit() -> None:
    slow = Format(shape="regex", pattern="(a|aa)+[yz]", time_limit=0.5)
    function = build(Rewards(of=[slow]), tokenizer=Words(), max_new_tokens=8)[0]
    started = time.perf_counter()
    got = call(function, 2, completions=["a" * 5000, "aay"])
    assert time.perf_counter() - started < 30, "without a limit it takes for ever"
    assert got == [None, 1.0]
