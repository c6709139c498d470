r"""Whole responses: a reference behind each mark of an answer, its options, and what hedges, lists or gives nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dereason.verify.audit.forms import Form, skeleton, value_of, written
from dereason.verify.kinds import Kind

_CARRIERS = {
    "boxed": "Hence $\\boxed{@}$.",
    "\\boxed alone": "\\boxed{@}",
    "the answer is": "That leads there. The answer is @.",
    "final answer": "That leads there.\n\nFinal answer: @",
    "####": "That leads there.\n#### @",
    "<answer>": "That leads there.\n<answer>@</answer>",
}
_SENTENCE = re.compile(r"[.?!;:]\s|\n|[.?!]\Z")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def carried(reference: str, *, choice: bool) -> list[Form]:
    """The reference itself behind each mark of an answer, and alone.

    Args:
        reference: the answer, or with options a letter or an option's text.
        choice: whether there are options: a response that is one of them has marked it.
    """
    bare = reference.strip()
    # in running text, an answer that holds the end of a sentence or a dollar sign of its own has no clear end
    names = [name for name in _CARRIERS if "$" not in bare or name != "boxed"]
    if _SENTENCE.search(bare):
        names = [name for name in names if name not in ("the answer is", "final answer", "####")]
    forms = [Form(name, _CARRIERS[name].replace("@", bare), True, whole=True) for name in names]
    if len(bare.split()) <= 8 and not _SENTENCE.search(bare):
        forms.append(Form("alone", bare, True, whole=True, marked=choice))
    return forms


def choice_rewritings(at: int, options: Sequence[str]) -> list[Form]:
    """What names the right option.

    Args:
        at: its place, from 0.
        options: all of them.
    """
    letter, text = _LETTERS[at], options[at]
    whole = {
        "a sentence with the letter": f"The others do not fit. The correct answer is ({letter}).",
        "the letter in bold": f"The others do not fit.\n\n**Answer: {letter}**",
        "option and letter": f"The others do not fit. The answer is option {letter}.",
    }
    forms = [
        Form("letter", letter, True),
        Form("letter in brackets", f"({letter})", True),
        Form("small letter in brackets", f"({letter.lower()})", True),
        Form("letter in \\text", f"\\text{{{letter}}}", True),
        *(Form(rule, response, True, whole=True) for rule, response in whole.items()),
    ]
    if _balanced(text):
        forms.append(Form("letter and text", f"{letter}. {text}", True))
        if _clear(options):
            forms.append(Form("option's text", text, True))
    return forms


def choice_misses(at: int, options: Sequence[str]) -> list[Form]:
    """What names another option, several or none."""
    letters = _LETTERS[: len(options)]
    other = (at + 1) % len(options)
    forms = [
        Form("another letter", letters[other], False),
        Form("another letter in a sentence", f"The answer is ({letters[other]}).", False, whole=True),
        Form("two letters", f"{letters[at]} or {letters[other]}", False),
        Form("two letters in a sentence", f"The answer is {letters[other]} or {letters[at]}.", False, whole=True),
        Form("every letter", ", ".join(letters), False),
        Form("every letter, right one last", ", ".join([*letters.replace(letters[at], ""), letters[at]]), False),
        Form("denied", f"not {letters[at]}", False),
        Form(
            "the options said again",
            "\n".join(f"{name}. {text}" for name, text in zip(letters, options, strict=True)),
            False,
            whole=True,
            marked=False,
        ),
    ]
    if _clear(options) and _balanced(options[other]):
        forms.append(Form("another option's text", options[other], False))
    return forms


def hedged(reference: str, others: Sequence[str], kind: Kind) -> list[Form]:
    """Several answers in one response, of which the reference is one.

    Args:
        reference: a reference without options.
        others: answers of other problems; the first stands beside the reference.
        kind: of the reference.
    """
    bare = reference.strip()
    number = value_of(bare)
    other = written(number + 1) if number is not None else next(iter(others), None)
    forms = []
    if other is not None and _apart(bare, other):
        forms += [
            Form("either, or", f"either {bare} or {other}", False),
            Form("either, or, right one last", f"either {other} or {bare}", False),
            Form("two boxes joined", f"\\boxed{{{other}}} or \\boxed{{{bare}}}", False, whole=True),
            Form("either, or, in a sentence", f"The answer is {other} or {bare}.", False, whole=True),
        ]
        if kind not in (Kind.TEXT, Kind.BOOLEAN):  # what follows "yes," may say why
            forms.append(Form("listed with another", f"{bare}, {other}", False))
    if number is not None and number.denominator == 1 and 0 <= number <= 9:
        digits = [str(n) for n in range(10) if n != number]
        forms += [
            Form("every digit", ", ".join(map(str, range(10))), False),
            Form("every digit, right one last", ", ".join([*digits, str(number)]), False),
            Form(
                "every digit without a mark",
                f"It may be {', '.join(digits)}, {number}",
                False,
                whole=True,
                marked=False,
            ),
        ]
    return forms


def nothing_said() -> list[Form]:
    """Responses that give no answer at all."""
    return [
        Form("empty response", "", False, whole=True),
        Form("empty box", "I give up: \\boxed{}", False, whole=True),
        Form("no answer", "I do not know how to solve this.", False, whole=True),
    ]


def answers_of_others(reference: str, others: Sequence[str]) -> list[Form]:
    """Answers of other problems, where the signs show that they say something else."""
    return [Form("another problem's answer", other, False) for other in others if _apart(reference, other)]


def _apart(one: str, other: str) -> bool:
    if ("%" in one) is not ("%" in other):
        return False  # 6 % equals 6 and 0.06, in whatever notation
    here, there = skeleton(one), skeleton(other)
    return bool(here) and bool(there) and here != there and not (set(here) <= set(there) and not value_of(one))


def _balanced(text: str) -> bool:
    return text.count("{") == text.count("}") and "\n" not in text


def _clear(options: Sequence[str]) -> bool:
    """Whether each option's text names one option, and no letter."""
    bare = [re.sub(r"[\W_]+", "", option).casefold() for option in options]
    values = [value for option in options if (value := value_of(option)) is not None]
    return len(set(bare)) == len(bare) and len(set(values)) == len(values) and all(len(text) > 1 for text in bare)
