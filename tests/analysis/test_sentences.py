"""Where sentences of reasoning text end: traps with their pieces written by hand, and properties over any text."""
# ruff: noqa: RUF001 - quotation marks and stops of other scripts are what is tested

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from dereason.analysis.sentences import split

DATA = Path(__file__).parents[3] / "shared/data/mmlu_pro/responses.jsonl"

# "‖" is where the text must be cut; the pieces are what lies between, white space at their ends taken off.
TRAPS = {
    "plain": "First, add 3 and 4. ‖ Then double it. ‖ The answer is 14.",
    "decimals": "The mass is 0.5 kg and v = 3.14 m/s. ‖ So p = 1.57.",
    "decimal without zero": "The slope is .25 and the rest .75. ‖ It falls.",
    "number and stop": "The total is 7. ‖ Then we add 3. ‖ 5 apples remain.",
    "unit": "It falls 5 m. ‖ Then it rests for 2 s. ‖ Velocity is zero.",
    "capital unit": "The voltage is 5 V. ‖ Ohm's law gives 3 A. ‖ F = 2 N. ‖ Done.",
    "degree": "It is 83.33 °C. ‖ Water boils at 100°C. ‖ Ice melts.",
    "e.g.": "Take a prime, e.g. Seven or e.g. 11. ‖ It works.",
    "i.e.": "It is even, i.e. divisible by 2. ‖ So n = 2k.",
    "titles": "Dr. Smith met Mrs. Jones and Prof. Lee. ‖ They left.",
    "vs.": "Compare 3 vs. 4 and A vs. B. ‖ The second wins.",
    "references": "By Eq. 3.2 and Fig. 4 this holds, see Sec. (2) and No. 5 on p. 7. ‖ The rest follows.",
    "reference to a formula": "From Eq. $(3)$ it follows. ‖ So we stop.",
    "no": "Is it prime? ‖ No. ‖ It is 3 times 17.",
    "initials": "This is due to J. S. Bach and John F. Kennedy. ‖ It is a law by C. Darwin.",
    "named points": "The ratio of A to B. ‖ The line through A and B. ‖ Consider the third.",
    "case law": "In Roe v. Wade the court ruled. ‖ It was overturned.",
    "acronym": "The U.S. Supreme Court sits in the U.S. ‖ It has nine judges.",
    "time of day": "He left at 5 p.m. ‖ The trip took 3 hours.",
    "etc.": "Add flour, eggs, etc. ‖ The rest is easy.",
    "et al.": "Smith et al. Found it first. ‖ We follow.",
    "company": "Acme Inc. Sold 5 tons. ‖ Beta Ltd. ‖ The firm closed.",
    "ellipsis in a series": "1 + 2 + ... + 9 = 45, and a, b, ..., z. ‖ So 45.",
    "ellipsis in a list": "The terms 2, 4, 6, ... 20 are even. ‖ Good.",
    "ellipsis as a pause": "Hmm... ‖ Let me see... maybe not. ‖ Wait… ‖ The sum is 5.",
    "factorial": "There are 5! = 120 ways and n! orders. ‖ So 3! 2! is 12. ‖ We get 5! ‖ Therefore 120.",
    "exclamation": "Great! ‖ That works! ‖ So x = 2.",
    "questions": "What is x? ‖ It is 5. ‖ Really?! ‖ Yes.",
    "quotes": "He said \"It is 5.\" ‖ She agreed. ‖ 'Go.' ‖ “No.” ‖ They left.",
    "brackets": "It is even (see above). ‖ (This was shown before.) ‖ Next, [it holds.] ‖ Fine.",
    "answer in brackets": "The answer is (B). ‖ (C) is wrong.",
    "bold": "**Step 1: Find x.** ‖ We add. ‖ **Answer:** it is *5.* ‖ Done.",
    "inline formula": "Let $x = 3.5. y$ be. ‖ Then $a. B$ and \\(c. D\\) hold. ‖ $z$ is 2.",
    "stop inside a formula": "So $x = 5.$ ‖ Then \\(y = 6.\\) ‖ We stop.",
    "money": "It costs $5 and $10. ‖ The rest is $3.50. ‖ $4 remain.",
    "escaped dollar": "It costs \\$5. ‖ Then \\$10. ‖ Total: $15$ dollars.",
    "boxed": "So \\boxed{5}. ‖ Thus \\boxed{\\text{Yes. No. Maybe}} holds. ‖ Done.",
    "text in a formula": "We have $\\text{speed. Time}$ here. ‖ Fine.",
    "inline code": "Run `a.b. C` now. ‖ Then stop.",
    "factor and stop in a sum": "3 + 4 = 7. ‖ 7 * 2 = 14. ‖ 14 - 5 = 9.",
    "numbers in words": "There were 7. ‖ 3 left.",
    "lower case": "the sum is 7. ‖ then we double it. ‖ so the answer is 14.",
    "variable": "We know x = 5. ‖ y = 6 follows. ‖ z_1 = 7.",
    "unknown abbreviation": "The temp. is high at the dept. of physics. ‖ It rises.",
    "pressure with a stop": "The value at 350. bar is small. ‖ It is 2.",
    "no blank": "It loses energy.‖The answer is (B).‖Then we stop. ‖ Import math.pi and np.Array now.",
    "options in a row": "Choose: A. 5 B. 6 C. 7 D. None. ‖ We pick C.",
    "options of words in a row": "A. The lung B. The heart C. The liver. ‖ It is B.",
    "steps in a row": "Do this: 1. Find x. ‖ 2. Find y. ‖ 3. Add them.",
    "chinese": "首先计算。‖然后相加！‖“答案是五。”‖完成",
    "hindi": "यह पाँच है। ‖ अब जोड़ें।",
    "initial at the start": "A. Lincoln was born in 1809. ‖ He was tall.",
    "web address": "See www.example.com. ‖ It says a.b.c is so.",
    "inline formula cut off": "So \\(x = 3. ‖ Then it ends",
    "display inside a sentence": "We have $$a = 1$$ in one line. ‖ Next.",
    "display with a stop inside a sentence": "So $$a = 1.$$ ‖ now b.",
    "spaced ellipsis": "The points P, Q, ... Z and A, … Z lie. ‖ So ... ‖ The sum is 5. ‖ Well... ‖ Velocity rises.",
    "exclamation before any word": "Great! ‖ Velocity rises.",
    "question about an option": "Is it Option A? ‖ B is larger.",
    "name that ends in a capital": "It is Vitamin C. ‖ Then we stop.",
    "one": "The answer is 1. ‖ Velocity rises.",
    "number behind a colon": "Total: 7. ‖ Then stop.",
    "agency": "The F.B.I. Director came. ‖ He works for the F.B.I. ‖ The end.",
    "options of words behind a colon": "Choose: A. The lung B. The heart C. The liver. ‖ It is B.",
    "negative number": "Convert it to Celsius. ‖ -40°F is -40°C. ‖ It is cold.",
    "isotope": "The reaction is n \\rightarrow ? + a. ‖ It stops.",
    "version": "Python 3.11. ‖ It is 2.0.1 now.",
}

LINES = {
    "steps": ("3 + 4 = 7\n7 * 2 = 14\nSo 14.", ["3 + 4 = 7", "7 * 2 = 14", "So 14."]),
    "lower case variables": ("v = s / t\nv_0 = 5\nsin x = 2", ["v = s / t", "v_0 = 5", "sin x = 2"]),
    "numbered": (
        "1. **Identify**: the mass. It is 5.\n2. Solve.\n   a) Add.\n   (b) Stop.\n3) End.",
        ["1. **Identify**: the mass.", "It is 5.", "2. Solve.", "a) Add.", "(b) Stop.", "3) End."],
    ),
    "bullets": (
        "We have:\n- mass: 5 kg\n* time\n• x. Then y",
        ["We have:", "- mass: 5 kg", "* time", "• x.", "Then y"],
    ),
    "step words": ("Step 1. Find x\nStep 2. Find y. It is 3.", ["Step 1. Find x", "Step 2. Find y.", "It is 3."]),
    "options": ("Options:\nA. 0.1 m/s\nB. The rest\n", ["Options:", "A. 0.1 m/s", "B. The rest"]),
    "marker alone": ("1.\nFind x.\n\n2.\n\nFind y.", ["1. Find x.", "2. Find y."]),
    "heading": ("## Step 1: Find x\nWe add.\n\n### Answer\n5", ["## Step 1: Find x", "We add.", "### Answer", "5"]),
    "wrapped": (
        "The stone is thrown horizontally from the bridge with a speed that\nwe know, and the\nAverage is 5. It falls\n"
        "in the water.",
        [
            "The stone is thrown horizontally from the bridge with a speed that we know, and the Average is 5.",
            "It falls",
            "in the water.",
        ],
    ),
    "goes on": ("L = a * t\nwhere a is the rate.\nThen stop", ["L = a * t where a is the rate.", "Then stop"]),
    "blank lines": ("One thing\n\nand another\n \t\n\nThe end", ["One thing", "and another", "The end"]),
    "number alone": ("We get\n5\nThen 6", ["We get", "5", "Then 6"]),
    "marker before a marker": ("1.\n2. Find y", ["1.", "2. Find y"]),
    "options behind an unfinished line": ("The options are\nA. 5\nB. 6", ["The options are", "A. 5", "B. 6"]),
    "stop before lower case": ("It is 5.\nand so on", ["It is 5.", "and so on"]),
    "colon before lower case": ("We know:\nif x is 2, stop", ["We know:", "if x is 2, stop"]),
    "wrapped at a comma": (
        "The stone is thrown horizontally from the bridge at noon,\nTherefore it falls",
        ["The stone is thrown horizontally from the bridge at noon, Therefore it falls"],
    ),
    "display and a variable": ("\\[a\\]\nx = 5", ["\\[a\\]", "x = 5"]),
    "brace cut off": ("\\boxed{5\nThen 3} is. So", ["\\boxed{5", "Then 3} is.", "So"]),
    "marker before a fence": ("1.\n```\nx = 1\ny\n```", ["1.", "```\nx = 1\ny\n```"]),
    "windows": ("One.\r\nTwo.\r\n\r\nThree", ["One.", "Two.", "Three"]),
    "display": (
        "Substituting:\n\\[\nx = 3. Y\n\\]\nThen we stop.",
        ["Substituting: \\[ x = 3. Y \\]", "Then we stop."],
    ),
    "displays in a row": (
        "We get:\n\n$$a = 1$$\n\n$$b = 2$$\n\\[c = 3\\]",
        ["We get: $$a = 1$$", "$$b = 2$$", "\\[c = 3\\]"],
    ),
    "display and where": (
        "The law is\n$$F = ma$$\n\nwhere $F$ is force. Next.",
        ["The law is $$F = ma$$ where $F$ is force.", "Next."],
    ),
    "display with a stop": ("So\n\\[ a = 1. \\]\nwhere b is. End", ["So \\[ a = 1. \\]", "where b is.", "End"]),
    "display behind a stop": ("It is so.\n\\[ a = 1 \\], and b.", ["It is so.", "\\[ a = 1 \\], and b."]),
    "display glued": ("We have $$a = 1$$The rest is 2.", ["We have $$a = 1$$", "The rest is 2."]),
    "environment": (
        "Thus\n\\begin{align*}\na &= 1. \\\\\nB &= 2\n\\end{align*}\nDone",
        ["Thus \\begin{align*} a &= 1. \\\\ B &= 2 \\end{align*}", "Done"],
    ),
    "display cut off": ("We get\n\\[ a = 1. B\n\nThe end. Of it", ["We get \\[ a = 1. B", "The end.", "Of it"]),
    "dollars cut off": ("So $x = 3. Then it ends", ["So $x = 3.", "Then it ends"]),
    "fence": (
        "Run this. Now:\n```python\nx = 1. # A. B\n\nprint(x)\n```\nIt prints 1.",
        ["Run this.", "Now:", "```python\nx = 1. # A. B\n\nprint(x)\n```", "It prints 1."],
    ),
    "fence cut off": ("See:\n```\na. B\nc", ["See:", "```\na. B\nc"]),
    "table": (
        "| a | b. C |\n|---|---|\n| 1 | 2 |\n\nSo 2.",
        ["| a | b. C | |---|---|", "| 1 | 2 |", "So 2."],
    ),
    "rules": ("---\nOne.\n---\nTwo.\n***", ["--- One. ---", "Two. ***"]),
    "empty": ("", []),
    "white space": (" \n\t ", []),
    "no word": ("...", ["..."]),
    "white space inside": ("One   two\u00a0three.  Four.", ["One two three.", "Four."]),
    "thinking": ("<think>\nOkay, so 5.\n</think>\nIt is 5.", ["<think>", "Okay, so 5.", "</think>", "It is 5."]),
    "letters that cover formulas": ("A \ue000\ue001 b. Then \ue003.", ["A \ue000\ue001 b.", "Then \ue003."]),
}


@pytest.mark.parametrize("name", TRAPS)
def test_trap(name: str) -> None:
    pieces = [" ".join(piece.split()) for piece in TRAPS[name].split("‖")]
    assert split(TRAPS[name].replace("‖", "")) == pieces


@pytest.mark.parametrize("name", LINES)
def test_lines(name: str) -> None:
    text, pieces = LINES[name]
    assert split(text) == pieces


def _bare(text: str) -> str:
    return "".join(text.split())


def _check(text: str) -> None:
    pieces = split(text)
    assert _bare("".join(pieces)) == _bare(text)
    assert all(piece and piece == piece.strip() for piece in pieces)


def test_nothing_is_lost_from_real_responses() -> None:
    if not DATA.is_file():
        pytest.skip(f"no real data: {DATA} is absent")
    with DATA.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["response"] for line in lines]
    assert len(texts) == 1160
    for text in texts:
        _check(text)


def _listed(text: str) -> list[str]:
    return text.split("‖")


SIGNS = _listed(
    '.‖...‖!‖?‖。‖ ‖  ‖\n‖\n\n‖$‖$$‖\\[‖\\]‖\\(‖\\)‖`‖```‖|‖|---|‖1.‖A.‖- ‖a‖The‖x = 5‖Eq‖(‖)‖"‖**‖\\boxed{‖{‖}‖'
    "\\begin{align}‖\\end{align}‖\\$‖\ue000‖\u00a0‖:"
)
HOSTILE = _listed(
    ".‖$‖\\(‖\\[‖`‖\\boxed{‖ ‖\n‖a. ‖(‖```\n‖\\begin{align}‖... ‖A. ‖1. ‖|‖| . |\n‖。‖! ‖. \n‖\\‖$a$‖$$‖\\[a\\]\n‖"
    "\\$‖. ((((((((‖{‖\ue001‖a.The ‖x = 5. y = 6. "
)


def test_nothing_is_lost_from_any_text() -> None:
    generator = random.Random(0)
    for _ in range(1500):
        _check("".join(generator.choices(SIGNS, k=generator.randint(1, 30))))


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear(unit: str) -> None:
    """Four times the text takes four times as long; a quadratic rule takes sixteen, however often it is tried."""

    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        began = time.process_time()
        pieces = split(text)
        took = time.process_time() - began
        assert _bare("".join(pieces)) == _bare(text)
        return took

    # other tests' garbage may be collected, or the machine slow, in one of the two
    assert any((took := seconds(100_000)) < 0.5 or took < 9 * seconds(25_000) for _ in range(5))
