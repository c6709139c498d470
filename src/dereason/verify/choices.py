"""Which option of a multiple-choice problem a text names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dereason.verify.numbers import parse_number, same_number
from dereason.verify.text import normalise, strip_markup

_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?")
_BESIDE = re.compile(r"(?P<label>[A-Z])\s(?P<text>.+)|(?P<own>.+)[(\[](?P<behind>[A-Za-z])[)\]]", re.DOTALL)
_LABELLED = re.compile(r"(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Z])[).:])\s*(\S.*)", re.DOTALL)


def same_text(a: str, b: str) -> str | None:
    """Why two texts are equal, in words, or None."""
    if a == b:
        return "the same text"
    number_a, number_b = parse_number(a), parse_number(b)
    if number_a is not None and number_b is not None:
        return same_number(number_a, number_b)
    return "the same text after normalisation" if normalise(a) == normalise(b) else None


def option_index(text: str, options: Sequence[str]) -> int | None:
    """Which option the text names (0-based), or None where it names none or more than one.

    Understood: a letter alone (``B``, ``(b)``), a letter with its option's text or the beginning of it
    (``B. LIFO memory``), an option's text alone, or with its letter beside it (``LIFO memory (B)``). Where an
    option's text is itself a single letter, the letter is read as a label.
    """
    bare = strip_markup(text)
    letter = _LETTER.fullmatch(bare)
    if letter is not None:
        index = ord(letter.group(1).upper()) - ord("A")
        if index < len(options):
            return index
    labelled = _LABELLED.fullmatch(bare)
    if labelled is not None:
        index = ord((labelled.group(1) or labelled.group(2)).upper()) - ord("A")
        rest = labelled.group(3)
        # "A. 5 or B. 6" names two options; only the option's own text may follow a label.
        if index < len(options) and (
            same_text(rest, options[index])
            or normalise(options[index]).casefold().startswith(normalise(rest).casefold())
        ):
            return index
    by_text = [i for i, option in enumerate(options) if same_text(bare, option)]
    if not by_text:
        folded = normalise(bare).casefold()
        by_text = [i for i, option in enumerate(options) if normalise(option).casefold() == folded]
    beside = None if by_text else _BESIDE.fullmatch(bare)
    if beside is not None:
        index = ord((beside["label"] or beside["behind"]).upper()) - ord("A")
        own = normalise(beside["text"] or beside["own"]).casefold()
        return index if index < len(options) and own == normalise(options[index]).casefold() else None
    return by_text[0] if len(by_text) == 1 else None
