"""Extraction on real responses and real options: places, permutations, long hostile texts."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from dereason.verify.equivalence import option_index
from dereason.verify.kinds import Kind
from dereason.verify.locate import locate
from dereason.verify.reading import kind_of
from dereason.verify.text import as_latex, strip_markup
from verify.found import found_in

DATA = Path(__file__).parents[2].parent / "shared/data"
LETTERS = "ABCDEFGHIJ"


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"no real data: {path} is absent")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_span_contains_the_answer_as_written() -> None:
    questions = {row["id"]: row for row in rows("mmlu_pro/questions")}
    responses = [
        (row["response"], Kind.CHOICE, questions[row["problem_id"]]["options"]) for row in rows("mmlu_pro/responses")
    ]
    # The same texts as if their references were of other kinds, and worked solutions with GSM8K's ending.
    responses += [
        (text, kind, None) for text, _, _ in responses for kind in (Kind.NUMBER, Kind.QUANTITY, Kind.TEXT, Kind.SET)
    ]
    for row in rows("gsm8k/test"):
        responses += [
            (row["solution"], Kind.NUMBER, None),
            (f"{row['solution']}\n#### {row['answer']}", Kind.NUMBER, None),
        ]
    found = 0
    for response, kind, options in responses:
        extraction = found_in(response, kind=kind, options=options)
        if extraction is None:
            continue
        found += 1
        assert 0 <= extraction.start < extraction.end <= len(response)
        written = response[extraction.start : extraction.end]
        assert written == written.strip()
        assert as_latex(extraction.text) in as_latex(written), (extraction, written)
    assert found > 4000


def test_gsm8k_solutions_end_with_their_answer() -> None:
    for row in rows("gsm8k/test"):
        extraction = locate(f"{row['solution']}\n#### {row['answer']}", kind=Kind.NUMBER)
        assert extraction is not None
        assert extraction.how == "hash"
        assert extraction.text.replace(",", "") == row["answer"].replace(",", "").lstrip("$")


def _wordings(letter: str, text: str) -> list[str]:
    return [
        f"The answer is ({letter}).",
        f"\\boxed{{{letter}}}",
        f"**Answer: {letter}. {text}**",
        f"So I take option {letter}.",
        f"<think>Not (A), not B.</think>\n{letter}",
        f"<answer>{text}</answer>",
        f"\\boxed{{{text}}}",
    ]


def test_judging_by_option_does_not_depend_on_the_order() -> None:
    rng = random.Random(5)
    plain = re.compile(r"[^{}$@\\\n~_`*]{2,80}")
    questions = [
        row
        for row in rows("mmlu_pro/questions")
        if all(plain.fullmatch(option) for option in row["options"])
        and len({re.sub(r"\W+", "", option).casefold() for option in row["options"]}) == len(row["options"])
    ]
    judged = 0
    for row in rng.sample(questions, 300):
        options = row["options"]
        named = rng.randrange(len(options))
        order = rng.sample(range(len(options)), len(options))
        shuffled = [options[i] for i in order]
        before = _wordings(LETTERS[named], options[named])
        after = _wordings(LETTERS[order.index(named)], options[named])
        for one, other in zip(before, after, strict=True):
            first = locate(one, kind=Kind.CHOICE, options=options)
            second = locate(other, kind=Kind.CHOICE, options=shuffled)
            assert (first is None) == (second is None), (one, options)
            if first is None or second is None:
                continue
            index, index_after = option_index(first.text, options), option_index(second.text, shuffled)
            assert index == (None if index_after is None else order[index_after]), (one, other, options, shuffled)
            judged += index == named
    assert judged > 0.95 * 300 * 7


def test_an_option_text_is_read_whatever_the_letters() -> None:
    rng = random.Random(6)
    for row in rng.sample(rows("mmlu_pro/questions"), 200):
        options = [option for option in row["options"] if re.fullmatch(r"[A-Za-z][a-z]+(?: [a-z]+){1,8}", option)]
        options = list(dict.fromkeys(options))
        if len(options) < 3:
            continue
        text = rng.choice(options)
        for _ in range(3):
            rng.shuffle(options)
            extraction = locate(f"Let us see.\nThe answer is {text}.", kind=Kind.CHOICE, options=options)
            assert extraction is not None, (text, options)
            assert option_index(extraction.text, options) == options.index(text)


def test_references_in_boxes_are_found_whole() -> None:
    for row in rows("math/test500"):
        answer = row["answer"].strip()
        response = f"First, \\boxed{{0}}. Then {{x}} and $\\boxed{{ {answer} }}$. Done, in 3 steps."
        extraction = locate(response, kind=kind_of(answer))
        assert extraction is not None
        assert (response[extraction.start : extraction.end], extraction.how) == (answer, "boxed")


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "\\boxed{",
        "\\boxed{1} or ",
        "<think>",
        "</think>",
        "<answer>x",
        "<answer></answer>",
        "the answer is ",
        "answer: 3 ",
        "\u7b54\u6848\u662f",
        "#### 1x\n",
        "| answer | 3 ",
        "1 111",
        "1.1,",
        "3 \\times 10^",
        "\\frac{\\sqrt{",
        "(A) or ",
        "- A. x\n",
        "### answer\n",
    ],
)
@pytest.mark.parametrize("kind", [Kind.NUMBER, Kind.CHOICE])
def test_a_megabyte_of_anything(piece: str, kind: Kind) -> None:
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    locate(f"answer: {text}}}", kind=kind, options=["1", "3"] if kind == Kind.CHOICE else None)
    # Quadratic time would be hours at this length.
    assert time.process_time() - began < 10


def test_no_text_raises_and_every_span_holds_its_answer() -> None:
    rng = random.Random(8)
    pieces = [
        "\\boxed{",
        "}",
        "{",
        "\\",
        "the answer is ",
        "answer: ",
        "#### ",
        "7",
        "1,5",
        ".",
        "/",
        "$",
        "(B)",
        "B",
        "\n",
        " ",
    ]
    pieces += [
        "\\frac",
        "-",
        "**",
        "%",
        "\u2212",
        "e9",
        " or ",
        "\\text{",
        "\x00",
        "\ud800",
        "<think>",
        "</think>",
        "<answer>",
    ]
    pieces += [
        "</answer>",
        "> ",
        "|",
        "```",
        "\u7b54\u6848\u662f",
        "\u3067\u3059",
        "\u3002",
        " km",
        " = ",
        "^",
        "x",
        "yes",
        "not ",
    ]
    pieces += [
        "\\sqrt{",
        "\\begin{pmatrix}",
        "&",
        "\\\\",
        "?",
        "Step ",
        "2. ",
        "<|im_end|>",
        "A. 6",
        "\\(",
        "\\)",
        "$$",
        "\u0663",
    ]
    hows = set()
    for _ in range(4000):
        response = "".join(rng.choices(pieces, k=rng.randrange(14)))
        for kind in Kind:
            extraction = locate(response, kind=kind, options=["6", "7"] if kind == Kind.CHOICE else None)
            if extraction is None:
                continue
            hows.add(extraction.how)
            assert 0 <= extraction.start < extraction.end <= len(response), (response, extraction)
            written = " ".join(strip_markup(response[extraction.start : extraction.end]).split())
            assert " ".join(strip_markup(extraction.text).split()) in written, (response, extraction)
    assert hows == {"tag", "boxed", "final_answer", "hash", "number", "letter", "alone"}
