"""Verdicts on answers in the ways in which they are written, through the function that users call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dereason.problems.schema import Verdict
from dereason.verify.verifier import Item, Verifier
from verify import judged_kinds
from verify.judged_pairs import CHOOSES, DIFFERENT, EQUAL, NOT_SAID, SAID, SAYS_C

TYPESETTING = r"""
\bf X|\rm X|\sf X|{\bf X}|\mathbf X|\large X|\LARGE X|\ X\ |X \\|\bfseries X|\begin{aligned}X\end{aligned}
|\begin{array}{c}X\end{array}|\begin{gathered}X\end{gathered}|\begin{equation}X\end{equation}|\phantom{0}X
|X\phantom{0}|\vphantom{1}X|\hspace{1mm}X|\strut X|\mathop{X}|X \quad \blacksquare|\ensuremath{X}|\,X\,
|\displaystyle{X}|\fbox{X}|\underline{X}|\textcolor{red}{X}|\color{blue} X|\mbox{X}|\text{X}|\boldsymbol{X}
|\pmb{X}|\left(X\right)|{{X}}|\rule{0pt}{2ex}X|`X`|**X**|X.|\begin{matrix}X\end{matrix}
""".replace("\n", "").split("|")
VALUES = [("5", "5"), ("-5", "-5"), (r"\frac{1}{2}", "1/2"), ("1{,}234", "1234"), ("3.5", "3.5"), ("x = 5", "5"),
          (r"5\text{ cm}", "5"), (r"5\%", "5%")]  # fmt: skip
LARGER = r"""
5\pm3|5!|5²|\log_2 5|\ln 5|\exp(5)|f(5)|f^{-1}(5)|P(5)|\Gamma(5)|a - 5|x+5|5!!|> 5|\approx 5|\to 5
|5\text{ dozen}|5\text{M}|1:5|5\,x|\text{at least }5|\text{at most }5|\text{about }5|\text{not }5
|\text{between }3\text{ and }5|5^n|C_5|5 \bmod 3|5\text{ to }6|5\cdot 10^3|\text{twice }5|5\text{ squared}
|\neg 5|5\sqrt{2}|5i|5\text{th}|\frac{5}{x}
""".replace("\n", "").split("|")
WORDS = """
approximately 5|between 3 and 5|log 5|n - 5|neither 3 nor 5|the square root of 5|twice 5|half of 5|almost 5
|at most 5|up to 5|5 or 6|5 to 6|not 5|5 squared|5 million|5 dozen|3 times 5|5 over 3|a multiple of 5|5 or more
|the opposite of 5|from 3 to 5|5 lakh|5 crore|5 BC|5k|5M|5a|5!|ln(5)|5 percentage points|5 permille|5 thirds
|anything but 5|all but 5|cannot be 5|5 May|May 5|5-methylhexane|5^2|5-10|5:10|(5,10)|5i
""".replace("\n", "").split("|")


def verdicts(pairs: Sequence[tuple[str, str]], options: Sequence[str] | None = None) -> Iterator[tuple[str, bool]]:
    """Each response, with whether it is found correct."""
    with Verifier() as verifier:
        judged = verifier.judge_many([Item(response, False, answer, options) for response, answer in pairs])
    for (response, answer), one in zip(pairs, judged, strict=True):
        yield f"{response} | {answer} -> {one.extracted}: {one.reason}", one.verdict is Verdict.CORRECT


def test_equal() -> None:
    pairs = [(f"Some reasoning. So we get \\boxed{{{answer}}}", reference) for answer, reference in EQUAL]
    assert [said for said, right in verdicts([*pairs, *SAID]) if not right] == []


def test_different() -> None:
    pairs = [(f"Some reasoning. So we get \\boxed{{{answer}}}", reference) for answer, reference in DIFFERENT]
    assert [said for said, right in verdicts([*pairs, *NOT_SAID]) if right] == []


def test_kinds() -> None:
    assert [said for said, right in verdicts(judged_kinds.RIGHT) if not right] == []
    assert [said for said, right in verdicts(judged_kinds.WRONG) if right] == []
    for response, letter, options, says in judged_kinds.CHOICES:
        assert [said for said, right in verdicts([(response, letter)], options) if right is not says] == []


def test_choices() -> None:
    assert [said for said, right in verdicts([(r, "C") for r in SAYS_C], ["p", "q", "r", "s"]) if not right] == []
    assert [said for said, right in verdicts([(r, "A") for r in SAYS_C], ["p", "q", "r", "s"]) if right] == []
    for response, letter, options in CHOOSES:
        assert [said for said, right in verdicts([(response, letter)], options) if not right] == []


def test_typesetting_means_nothing() -> None:
    pairs = [
        (f"\\boxed{{{dress.replace('X', text)}}}", value)
        for dress in TYPESETTING
        for text, value in VALUES
        if not (dress == r"\left(X\right)" and "text" in text)
    ]
    assert [said for said, right in verdicts(pairs) if not right] == []


@pytest.mark.parametrize(
    "frame",
    ["The answer is $X$.", "So it is $X$.", r"\boxed{X}", "#### X", "<answer>X</answer>", "So it is:\n\n$$X$$",
     r"The answer is **$X$**.", r"The answer is $\mathbf{X}$.", "The answer is X."],
)  # fmt: skip
def test_a_number_in_a_formula_is_not_the_formula(frame: str) -> None:
    pairs = [(frame.replace("X", piece), "5") for piece in LARGER]
    assert [said for said, right in verdicts(pairs) if right] == []


@pytest.mark.parametrize(
    "frame",
    [
        "The answer is X.",
        r"\boxed{X}",
        "#### X",
        "<answer>X</answer>",
        "So it is X.",
        "Answer: X",
        "The result is **X**.",
    ],
)
def test_words_that_change_a_number(frame: str) -> None:
    assert [said for said, right in verdicts([(frame.replace("X", words), "5") for words in WORDS]) if right] == []


def test_the_sign_belongs_to_the_number() -> None:
    signed = ["x = - 5", "x=- 5", "x = \u22125", "x = \u2013 5", r"x=-\,5", "y = -{5}", r"x = \minus 5", r"x = -\!5"]
    frames = [
        "So X",
        "So X.",
        "Hence $X$.",
        r"\boxed{X}",
        r"\[ X \]",
        "#### X",
        "The answer is $X$.",
        "We find X, as expected.",
    ]
    pairs = [frame.replace("X", text) for frame in frames for text in signed]
    assert [said for said, right in verdicts([(pair, "-5") for pair in pairs]) if not right] == []
    assert [said for said, right in verdicts([(pair, "5") for pair in pairs]) if right] == []


def test_the_table_of_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/verify.md").read_text(encoding="utf-8")
    table = guide.split("| kind of the reference |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    checked = 0
    for row in table:
        kind, _, right, wrong = (cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|")))
        for cell, expected in ((right, True), (wrong, False)):
            if kind == "choice":
                continue
            pairs = re.findall(r"`([^`]+)` for `([^`]+)`", cell.replace("\\|", "|"))
            found = list(verdicts([(f"\\boxed{{{answer}}}", reference) for answer, reference in pairs]))
            assert [said for said, correct in found if correct is not expected] == [], kind
            checked += len(found)
    assert checked > 50
