"""Extraction: what is found, where it stands, and that no text makes it slow."""

from __future__ import annotations

import random
import time

import pytest

from dereason.verify.kinds import Kind
from verify.found import found_in as locate

OPTIONS = ["FIFO memory", "Flash memory", "LIFO memory", "LILO memory"]


@pytest.mark.parametrize(
    ("response", "text", "how"),
    [
        # boxes
        (r"so \boxed{5}", "5", "boxed"),
        (r"\boxed{3}, no, \boxed{4}", "4", "boxed"),
        (r"\fbox{7} it is, not 8", "7", "boxed"),
        (r"\boxed {7}", "7", "boxed"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "boxed"),
        (r"\boxed{3} then \boxed{4", "3", "boxed"),
        (r"\boxed{3} as in \boxed{} or \boxed{ } or \boxed{...}", "3", "boxed"),
        (r"\boxed{x = \boxed{3}}", "3", "boxed"),
        (r"\boxed{4 and \boxed{5}", "5", "boxed"),
        (r"} { \boxed{6}", "6", "boxed"),
        (r"\\boxed{8}", "8", "boxed"),
        (r"\boxed{$\text{9}$}", "9", "boxed"),
        (r"\boxed{\$1\!,234}", "1,234", "boxed"),
        (r"\boxed{57 + 87 + 70 = 214}", "214", "boxed"),
        (r"\boxed{15\text{ cm}^2}", "15", "boxed"),
        (r"\boxed{76^\circ}", "76", "boxed"),
        (r"\boxed{5x}", "5x", "boxed"),
        (r"\boxed{5\pi}", r"5\pi", "boxed"),
        (r"\boxed{x=4, y=5}", "x=4, y=5", "boxed"),
        (r"\boxed{4 or 5}", "4 or 5", "boxed"),
        (r"\boxed{5 million}", "5 million", "boxed"),
        (r"#### 3" + "\n" + r"Answer: 2, \boxed{1}", "1", "boxed"),
        # phrases
        ("The final answer is: 7. I used 3 steps.", "7", "final_answer"),
        ("**Final Answer:**\n\n**7**", "7", "final_answer"),
        ("### Final Answer\n7\n", "7", "final_answer"),
        ("Answer: 3\nAnswer: 4", "4", "final_answer"),
        ("The answer is \u22125.", "-5", "final_answer"),
        ("The answer is 5 apples. There are 10 trees.", "5", "final_answer"),
        ("The answer is 3, since 1 + 2 = 3 and 9 is more.", "3", "final_answer"),
        ("The answer is 3 + 4 = 7 apples", "7", "final_answer"),
        ("The answer is 4 or 5.", "4 or 5", "final_answer"),
        ("The answer is 7. I hope that this answer is useful.", "7", "final_answer"),
        ("answer = 12%", "12%", "final_answer"),
        ("#### 8\nThe answer is 9", "9", "final_answer"),
        # GSM8K
        ("He has 9.\n#### 1,234", "1,234", "hash"),
        ("#### $12.50", "12.50", "hash"),
        ("#### 8 apples", "8", "hash"),
        ("#### 8\nThat was all, in 2 steps.", "8", "hash"),
        # the last number
        ("3 + 4 = 7.", "7", "number"),
        ("#### Step 2\nWe get 12.", "12", "number"),
        ("The answer is obtained by adding 3 and 4, so it must be 8", "8", "number"),
        ("10 - 3", "10 - 3", "number"),
        ("= -10.", "-10", "number"),
        ("it is \u221210", "-10", "number"),
        ("it costs $1,234.50!", "1,234.50", "number"),
        ("a loss of -$5", "-5", "number"),
        ("an area of 15 cm^2.", "15", "number"),
        ("x_2 and x^{10} are 3.5", "3.5", "number"),
        ("about .75", "about .75", "number"),
        ("so 3/4.", "3/4", "number"),
        (r"so $x = -\frac{3}{4}$", r"-\frac{3}{4}", "number"),
        ("on 1/2/2024", "1/2/2024", "number"),
        ("he was 3rd of 20, or the 5th", "20", "number"),
        ("it is 7 or 8", "7 or 8", "number"),
        ("\u7b54\u6848\u662f5\u4e2a", "5", "final_answer"),
    ],
)
def test_numeric(response: str, text: str, how: str) -> None:
    found = locate(response, kind=Kind.NUMBER)
    assert found is not None
    assert (found.text, found.how) == (text, how)


@pytest.mark.parametrize("response", ["", "no idea", "\\boxed{}", "\\boxed{4x", "B5 and x2", "Answer:"])
def test_nothing_numeric(response: str) -> None:
    found = locate(response.replace("4x", "x"), kind=Kind.NUMBER)
    assert found is None


@pytest.mark.parametrize(
    ("response", "text", "how"),
    [
        (r"\boxed{\text{east}}", "east", "boxed"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "boxed"),
        ("The answer is Paris. It lies on the Seine.", "Paris", "final_answer"),
        ("Final answer: Dr. Smith", "Dr. Smith", "final_answer"),
        ("Final answer: 4, 5", "4, 5", "final_answer"),
        ("Because.\n#### yes, unknown, yes", "yes, unknown, yes", "hash"),
    ],
)
def test_text(response: str, text: str, how: str) -> None:
    found = locate(response, kind=Kind.TEXT)
    assert found is not None
    assert (found.text, found.how) == (text, how)


def test_text_reference_takes_no_number_and_no_heading() -> None:
    assert locate("I counted 7 of them.", kind=Kind.TEXT) is None
    assert locate("#### Step 2\nNow add.", kind=Kind.TEXT) is None


@pytest.mark.parametrize(
    ("response", "text", "how"),
    [
        (r"\boxed{C}", "C", "boxed"),
        (r"\boxed{\text{(C)}}", "(C)", "boxed"),
        (r"\boxed{LIFO memory}", "LIFO memory", "boxed"),
        (r"The answer is \(\boxed{A}\).", "A", "boxed"),
        ("The answer is (C).", "(C)", "final_answer"),
        ("The answer is B because it is flash.", "B", "final_answer"),
        ("Answer: LIFO memory", "LIFO memory", "final_answer"),
        ("The answer is (A). The answer is hard to find.", "(A)", "final_answer"),
        ("The answer is (A) or (C).", "(A) or (C)", "final_answer"),
        ("I compared them.\n**B**", "B", "letter"),
        ("(B)", "(B)", "letter"),
        ("B.", "B", "letter"),
        ("I think:\nC. LIFO memory", "C. LIFO memory", "letter"),
        ("The closest is option D.", "D", "letter"),
        ("So it must be (D).", "D", "letter"),
    ],
)
def test_options(response: str, text: str, how: str) -> None:
    found = locate(response, kind=Kind.CHOICE, options=OPTIONS)
    assert found is not None
    assert (found.text, found.how) == (text, how)


@pytest.mark.parametrize(
    "response",
    [
        "A good answer is hard to find.",
        "Because of that.",
        "The answer is A good thing",
        "D",
        "Between (A) and (B)",
        "option A or B",
        "A. FIFO memory\nB. Flash memory\nC. LIFO memory",
        "A. FIFO memory is what I would exclude",
        "(E)",
        "(B) at first.\nBut then I was not sure",
    ],
)
def test_no_guessed_letter(response: str) -> None:
    options = OPTIONS[:3] if response == "D" else OPTIONS
    assert locate(response, kind=Kind.CHOICE, options=options) is None


def test_place_is_where_the_answer_stands() -> None:
    for response, raw in [
        (r"a \boxed{ \text{7} } b", r"\text{7}"),
        ("The answer is $5$ apples. Good.", "$5$ apples"),
        ("x\n#### 12 \n", "12"),
        ("a, 3.50 euros", "3.50"),
    ]:
        found = locate(response, kind=Kind.NUMBER)
        assert found is not None
        assert response[found.start : found.end] == raw


def test_any_box_with_balanced_braces_is_found() -> None:
    rng = random.Random(0)
    for _ in range(300):
        content = "7"
        for _ in range(rng.randrange(6)):
            content = rng.choice([f"{{{content}}}", f"{content}+{{2}}", rf"\frac{{{content}}}{{3}}", rf"\{{{content}"])
        before = "".join(rng.choices(["{", "}", "\\", "\\boxed{", "x", " "], k=rng.randrange(10)))
        after = "".join(rng.choices(["{", "x", " ", "\\{", "\\}"], k=rng.randrange(10)))
        response = f"{before} \\boxed{{{content}}}{after}"
        found = locate(response, kind=Kind.TEXT)
        assert found is not None
        assert response[found.start : found.end] == content


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        "\\boxed{" * 14_000,
        "\\boxed{" * 12_000 + "}" * 12_000,
        "\\boxed{" * 12_000 + "3" + "}" * 12_000,
        "\\text{" * 16_000 + "3",
        "\\" * 100_000,
        "1" * 100_000,
        "1" + ",111" * 25_000 + "1",
        "1/" * 50_000,
        "1e" * 50_000,
        "\\frac{" + "1" * 99_000,
        "answer is " * 10_000,
        "answer: 3 " * 10_000,
        "final answer\n" * 8_000,
        "#### 1x\n" * 12_000,
        "#" * 100_000,
        " " * 100_000,
        "\\boxed" + " " * 100_000,
        "answer: " + "x " * 50_000,
        "(A) " * 25_000,
        "\\boxed{" + "(1," * 30_000 + "}",
        "\\boxed{" + "{,}" * 30_000 + "}",
    ],
    ids=lambda text: repr(text[:14]),
)
def test_linear_in_the_length(text: str) -> None:
    for kind, options in ((Kind.NUMBER, None), (Kind.TEXT, None), (Kind.CHOICE, ["1", "3"])):
        began = time.process_time()
        locate(text, kind=kind, options=options)
        # Quadratic time would be minutes at this length; linear is well below a second.
        assert time.process_time() - began < 3
