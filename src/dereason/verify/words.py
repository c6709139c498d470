"""Answers in words: the same words, the label of an option, and lists that are written without commas."""

from __future__ import annotations

import re

from dereason.verify.forms import forms
from dereason.verify.kinds import Answer, Kind
from dereason.verify.reading import read
from dereason.verify.text import prose_key

_APPOSITION = re.compile(
    r",\s(?:the|a|an|which|who|where|because|since|as|that is|i\.e\.)\s|\s\((?!\s)|\s(?:because|since)\s"
)
_OPTION_LABEL = re.compile(
    r"(?:(?:the )?(?:answer|option|choice)(?: is)?:?\s*)?\(?([A-Za-z])\)?(?:[.:)]?|[.:)]\s.+|\s[-\u2013]\s.+)",
    re.IGNORECASE | re.DOTALL,
)
_LABEL = re.compile(r"\(?([A-Z])\)?")


def same_words(answer: str, reference: str) -> bool:
    """Whether a text has the words of the reference; of a letter, whether it is the label of an option."""
    wanted = prose_key(reference)
    if prose_key(answer) == wanted:
        # CO is not Co.
        formulas = [{key for name, key in forms(side) if name == "chemistry"} for side in (answer, reference)]
        return not (
            len(reference) < 4
            and answer.isalnum()
            and formulas[0]
            and formulas[1]
            and formulas[0].isdisjoint(formulas[1])
        )
    label = _LABEL.fullmatch(reference)
    if label is not None:
        given = _OPTION_LABEL.fullmatch(answer.replace("(", " (", 1).strip() if answer[:1].isalpha() else answer)
        bracket = re.match(r"\(([A-Za-z])\)\s+\w", answer)
        letter = given[1] if given is not None else bracket[1] if bracket is not None else ""
        return letter == label[1] or (letter.upper() == label[1] and ("(" in answer or ")" in answer))
    # "Paris, the capital of France" and "Paris (France)" say Paris.
    said = _APPOSITION.search(answer)
    return said is not None and said.start() > 0 and prose_key(answer[: said.start()]) == wanted


def as_list(answer: Answer, reference: Answer) -> Answer | None:
    """A list that is written without commas, read as the reference's is: "red, green and blue", "a b c", "ACD"."""
    spelled = re.fullmatch(r"\w(?: \w)+", answer.text) is not None
    if (
        not (answer.kind is Kind.TEXT or spelled)
        or reference.kind not in (Kind.SET, Kind.TUPLE)
        or len(reference.parts) < 2
    ):
        return None
    text = answer.text
    if re.fullmatch(r"[A-Z]{2,8}", text) and all(_LABEL.fullmatch(part.text) for part in reference.parts):
        items = list(text)
    elif "," in text or " and " in text:
        items = re.split(r",\s*(?:and\s)?|\sand\s", text)
    elif all(" " not in part.text for part in reference.parts):
        items = text.split(" ")
    else:
        return None
    if len(items) != len(reference.parts) or not all(items):
        return None
    return Answer(reference.kind, text, tuple(read(item) for item in items), reference.marks)
