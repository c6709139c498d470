"""Which option of a multiple-choice problem a text names by its letter or its words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from dereason.verify.numbers import parse_number, same_number
from dereason.verify.text import normalise, prose_key, strip_markup

_LETTER = re.compile(r"[(\[{<\u3010\u300c\u201c\"']{0,2}\s?([A-Za-z])\s?[)\]}>\u3011\u300d\u201d\"'.:]{0,2}")
_WORD = re.compile(r"[^\W\d_]{3}")
_BESIDE = re.compile(r"(?P<label>[A-Z])\s(?P<text>.+)|(?P<own>.+)[(\[](?P<behind>[A-Za-z])[)\]]", re.DOTALL)
_LABELLED = re.compile(
    r"(?:[(\[]{1,2}([A-Za-z])[)\]]{1,2}[.:]?|([A-Za-z])[).:]|([A-Z])\s[-\u2013\u2014=](?=\s))\s*(\S.*)", re.DOTALL
)


def same_text(a: str, b: str) -> str | None:
    """Why two texts are equal, in words, or None."""
    if a == b:
        return "the same text"
    number_a, number_b = parse_number(a), parse_number(b)
    if number_a is not None and number_b is not None:
        return same_number(number_a, number_b)
    return "the same text after normalisation" if normalise(a) == normalise(b) else None


def _compatible(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def labels(options: Sequence[str]) -> list[str]:
    """The options without a letter that they carry themselves ("A) 21")."""
    found = [_LABELLED.fullmatch(option.strip()) for option in options]
    letters = [(m.group(1) or m.group(2) or m.group(3) or "").upper() if m else "" for m in found]
    if letters == [chr(ord("A") + i) for i in range(len(options))]:
        return [m.group(4) for m in found if m is not None]
    return list(options)


def named_option(text: str, options: Sequence[str]) -> int | None:
    """Which option the text names (0-based), or None where it names none or more than one.

    Understood: a letter alone (``B``, ``(b)``), a letter with its option's text or the beginning of it
    (``B. LIFO memory``), an option's text alone, or with its letter beside it (``LIFO memory (B)``). Where an
    option's text is itself a single letter, the letter is read as a label.
    """
    options = [_compatible(option) for option in labels(options)]
    bare = strip_markup(_compatible(text))
    letter = _LETTER.fullmatch(bare)
    if letter is not None:
        index = ord(letter.group(1).upper()) - ord("A")
        if index < len(options):
            return index
    labelled = _LABELLED.fullmatch(bare)
    if labelled is not None:
        index = ord((labelled.group(1) or labelled.group(2) or labelled.group(3)).upper()) - ord("A")
        rest = labelled.group(4)
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
    if not by_text and _WORD.search(bare) is not None and "!" not in bare and _BESIDE.fullmatch(bare) is None:
        words = prose_key(bare)
        by_text = [i for i, option in enumerate(options) if prose_key(option) == words]
    if len(by_text) > 1:  # 5 and 5% are options of their own
        by_text = [i for i in by_text if ("%" in options[i]) == ("%" in bare)]
    beside = None if by_text else _BESIDE.fullmatch(bare)
    if beside is not None:
        index = ord((beside["label"] or beside["behind"]).upper()) - ord("A")
        own = normalise(beside["text"] or beside["own"]).casefold()
        return index if index < len(options) and own == normalise(options[index]).casefold() else None
    return by_text[0] if len(by_text) == 1 else None
