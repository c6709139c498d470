"""Choice letters: the option that a tail names, and the letter that concludes a response.

Never a first-letter guess ("A good answer ..."), never a random letter. Where a label and a text contradict each other
("C. Flash memory" with Flash memory at B), the label counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dereason.verify.choices import option_index
from dereason.verify.extraction import MAX_TAIL, MAX_TRIES, Extraction, How, trim
from dereason.verify.text import strip_markup

_DRESS = re.compile(r"(?:[\s*_`]|>|#{1,6}\s|[-+\u2022]\s|\|)*+")
_OPTION_WORD = re.compile(
    r"(?:(?:the|la|le|el|die|a)\s)?(?:option|choice|letter|answer|l'option|l'opzione|opción|opção|opzione|вариант"
    r"|选项|選項|選択肢)\b[\s:*_]*+(?=[(\[]?[A-Za-z]\b|[(\[]?[A-Z](?![A-Za-z]))",
    re.IGNORECASE,
)
# "I" and "A" are words too.
_LETTER = r"(?:\([A-Z]\)|[B-HJ-Z](?![\w'])|[AI](?![\w']|\s+[a-z]))"
_HEAD = re.compile(
    rf"""[(\[]\s?([A-Za-z])\s?[)\]]
    | ([A-Z])(?=\s*(?:[.,:;)\]\u2013\u2014=(。\uff0c、]|$)|\s-\s
        |\s(?:because|since|as|which|weil|da|car|parce|porque|perché|poiché|потому)\b
        |\s?(?:[/&]|(?:or|and|oder|und|ou|et|o|y|e|или|и)\b|[或和])\s?{_LETTER}
        |です|である|だ|选项|項)""",
    re.VERBOSE,
)
_NAMED = re.compile(
    r"""\(([A-Z])\) | \b(?i:option|choice)\s+([A-Z])\b | \b(?i:option|choice)\s+is:?\s+([A-Z])(?=[.,;!]|\s*$)
    | \b(?i:choose|pick|select|go\s+with)\s+(?:option\s+)?([A-Z])(?=[.,;!]|\s*$)
    | (?<!\w)([A-Z])[*_]{0,3}\s+is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice))?(?=[.!*_]|\s*$)
    | (?:故选|应选|选择|所以选|因此选)\s?\uff1a?\s?([A-Z])(?![A-Za-z])""",
    re.VERBOSE,
)
_TWO_LETTERS = re.compile(
    r"\b(?:or|and|oder|und|ou|et|o|y|e|или|и)\s+"
    + _LETTER
    + r"|[或和、]\s?"
    + _LETTER
    + r"|^\s*\(?[A-Z]\)?\s*[,/&]\s*\(?[A-Z]\)?(?![\w'])"
)
_IS_THE_ANSWER = re.compile(
    r"(?<!\w)\(?([A-Z])(?:\)|[.:)][^\n.]{1,100}?)?[*_]{0,3}\s+is\s+the\s+(?:correct|right|best)\s+(?:answer|option|choice)\b"
    r"(?![^\n.!]{0,100}\?)"
)
_NOT = re.compile(
    r"\b(?:not|never|isn't|cannot|can't|except|rule[sd]?\s+out|exclude[sd]?|eliminate[sd]?|wrong|incorrect)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\s*[*_]{0,2}(?:\([A-Z]\)|[A-Z][.):])")


def choice_in(text: str, start: int, end: int, options: Sequence[str], how: How) -> Extraction | None:
    """The option that a tail names: by itself, or by a letter at its head."""
    start, end = trim(text, start, end)
    if _is_list(text, start):
        return None
    bare = strip_markup(text[start:end])
    if option_index(bare, options) is not None:
        return Extraction(bare, start, end, how)
    if (word := _OPTION_WORD.match(bare)) is not None:
        bare = bare[word.end() :]
        if option_index(bare, options) is not None:
            return Extraction(bare, start, end, how)
    head = _HEAD.match(bare)
    if head is None:
        return None
    if _TWO_LETTERS.search(bare):
        return Extraction(bare, start, end, how)  # "(C) or (G)" is an answer, and a wrong one
    letter = head.group(1) or head.group(2)
    return Extraction(letter, start, end, how) if option_index(letter, options) is not None else None


def _is_list(text: str, start: int) -> bool:
    """Whether a list of options begins here: "A. x" above "B. y"."""
    one = _LABEL.match(text, start)
    end = text.find("\n", start, start + MAX_TAIL)
    if one is None or end < 0:
        return False
    below = _DRESS.match(text, end)
    other = _LABEL.match(text, below.end() if below else end)
    return other is not None and ord(_letter_of(other)) == ord(_letter_of(one)) + 1


def _letter_of(label: re.Match[str]) -> str:
    return label.group().strip("*_ ().:\n\t")


def concluding_letter(text: str, options: Sequence[str]) -> Extraction | None:
    """A choice letter that stands for the answer by its place or its words.

    In this order: in the last line ("(B)", "B.", "B. its text", "... option B."); "B is the correct answer" anywhere;
    alone in the first line ("(B)" or "B. its text", with an explanation below).
    """
    found = _last_line(text, options)
    if found is None:
        for match in reversed(list(_IS_THE_ANSWER.finditer(text))[-MAX_TRIES:]):
            if option_index(match[1], options) is not None:
                return Extraction(match[1], *match.span(1), "letter")
        found = _first_line(text, options)
    return found


def _first_line(text: str, options: Sequence[str]) -> Extraction | None:
    dress = _DRESS.match(text)
    start = dress.end() if dress else 0
    end = text.find("\n", start)
    if end < 0 or end - start > MAX_TAIL or option_index(text[start:end], options) is None:
        return None
    below = _DRESS.match(text, end)
    if _LABEL.match(text, below.end() if below else end):
        return None  # a list of options
    start, end = trim(text, start, end)
    return Extraction(strip_markup(text[start:end]), start, end, "letter")


def _last_line(text: str, options: Sequence[str]) -> Extraction | None:
    end = len(text.rstrip())
    line = text.rfind("\n", 0, end) + 1
    if end - line > MAX_TAIL:
        line = end - MAX_TAIL
    dress = _DRESS.match(text, line, end)
    start = dress.end() if dress else line
    bare = strip_markup(text[start:end].rstrip("| "))
    if len(bare.strip("()[]")) == 1 and option_index(bare, options) is not None:
        return Extraction(bare, start, end, "letter")
    if _LABEL.match(text, start, end):
        # The last line of a restated list of options is no conclusion.
        before = text[:line].rstrip()
        at = before.rfind("\n") + 1
        above = _DRESS.match(before, at)
        listed = _LABEL.match(before, above.end() if above else at)
        if listed or option_index(bare, options) is None:
            return None
        return Extraction(bare, start, end, "letter")
    named = list(_NAMED.finditer(text, start, end))
    letters = {match.group(match.lastindex or 0) for match in named}
    if len(letters) != 1 or _TWO_LETTERS.search(text, start, end) or _NOT.search(text, start, end):
        return None
    letter = letters.pop()
    if option_index(letter, options) is None:
        return None
    return Extraction(letter, *named[-1].span(named[-1].lastindex or 0), "letter")
