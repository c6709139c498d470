r"""Find the answer in a response, and say where it stands.

Thoughts (``<think>...</think>`` and the like, see :mod:`dereason.verify.thinking`) are no answer: only what stands
outside of them is searched. Where nothing stands outside, the thoughts are searched for an answer that says it is
one, unless the last is still open: a response that is still thinking has no answer.

Tried in this order; within each the last one in the text wins:

``tag``           ``<answer>...</answer>``; the closing tag may be missing. In its content the rules below apply; where
                  none does, the content is the answer
``boxed``         ``\boxed{...}`` or ``\fbox{...}`` with balanced braces; neither empty nor left open. Boxes joined by
                  "or", "and" or a comma are one answer, a list
``final_answer``  "final answer: X", "the answer is X", "Answer: X", a heading "Answer" above X, a table's cell "Answer"
                  before X; also in German, French, Spanish, Portuguese, Italian, Russian, Chinese and Japanese
``hash``          GSM8K's ``#### X``
``number``        where the reference is a number or a quantity: the last number of the text
``letter``        where there are options: a choice letter as the conclusion: in the last line, "B is the correct
                  answer", or alone in the first line; never a first-letter guess, never a random letter
``alone``         the last line, or its last formula, is an answer of the reference's kind; for a text, the whole
                  response is a few words that make no sentence

Where the reference is a number, an answer with words around its only number ("5 apples", "x = 3 + 2 = 5") is
reduced to that number, unless a word changes the meaning ("5 million" and "4 or 5" stay as they are). Every other
kind keeps the whole answer. Everything is linear in the length of the response: no recursion into the text, and no
pattern that can backtrack far.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from dereason.verify.extract_choice import choice_in, concluding_letter
from dereason.verify.extract_number import last_number, reduce_number, reduce_quantity, starts_with_number
from dereason.verify.extract_phrase import stated_answer
from dereason.verify.extraction import MAX_TAIL, MAX_TRIES, Extraction, How, as_written, trim
from dereason.verify.kinds import Kind, kind_of
from dereason.verify.numbers import is_numeric
from dereason.verify.text import strip_markup
from dereason.verify.thinking import outside_thinking

__all__ = ["Extraction", "How", "extract", "find_box"]

# The second branch is for JSON-escaped text, in which a box is written with two backslashes.
_BRACES = re.compile(r"(?P<box>(?:\\|(?<=\\))(?:boxed|fbox)\s*+\{)|\\.|[{}]", re.DOTALL)
_CONTENT = re.compile(r"[^\s.,;:*_$`~]")
_SPACING = frozenset({f"\\{mark}" for mark in "!,;:>()[]$ \n"})
# Between two boxes that are one answer: "\boxed{3} or x = \boxed{4}".
_JOINT = re.compile(
    r"\}(?:[\s$&*_]|\\[()\[\] ,;!]|\\q?quad\b)*+(?:\\text\s*\{\s*)?"
    r"(?:[,;]|\b(?:or|and|oder|und|ou|et|o|y|e|или|и)\b|[或和])(?:\s*(?:or|and)\b)?"
    r"(?:[\s$&*_}]|\\[()\[\] ,;!]|\\q?quad\b)*+(?:[A-Za-z]\w{0,3}\s*=\s*)?\Z"
)
_TAG = re.compile(
    r"<(answer|final_answer)>\s*+(?P<content>(?:(?!</?(?:answer|final_answer)>).)*+)(?:</\1>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
# A model's end of turn, where it was decoded with the text.
_END_TOKENS = re.compile(r"\s*(?:(?:<\|[a-z_]{2,30}\|>|</s>|<end_of_turn>|<eos>)\s*)++\Z")
_FORMULA = re.compile(r"\$([^$\n]{1,100})\$|\\\(([^\n]{1,100}?)\\\)|\\\[([^\n]{1,100}?)\\\]")
_HASH = re.compile(r"(?<!\S)####[ \t]*+(?P<tail>[^\n]*+)")
_LINE_DRESS = re.compile(r"(?:[ \t*_`]|>|#{1,6}\s|[-+\u2022]\s|\|)*+")
MAX_ALONE = 100
"""Longer lines are prose."""


def extract(response: str, *, kind: Kind, options: Sequence[str] | None = None) -> Extraction | None:
    """The answer of a response, or None where it states none.

    Args:
        response: the generated text, of any length and content.
        kind: the reference's kind; what has no mark of an answer is one only where it fits the kind.
        options: the choices of a multiple-choice problem; allows a choice letter as the conclusion.
    """
    ending = _END_TOKENS.search(response, max(0, len(response) - 200))
    text, thinking = outside_thinking(response[: ending.start()] if ending else response)
    if text.strip():
        return _tagged(text, kind, options) or _explicit(text, kind, options) or _implicit(text, kind, options)
    if thinking:
        return None
    return _tagged(response, kind, options) or _explicit(response, kind, options)


def _explicit(text: str, kind: Kind, options: Sequence[str] | None) -> Extraction | None:
    return _boxed(text, kind, options) or stated_answer(text, kind, options) or _hash(text, kind, options)


def _implicit(text: str, kind: Kind, options: Sequence[str] | None) -> Extraction | None:
    if options:
        return concluding_letter(text, options)
    if kind in (Kind.NUMBER, Kind.QUANTITY):
        return last_number(text, kind) or _alone(text, kind)
    return _alone(text, kind)


def _tagged(text: str, kind: Kind, options: Sequence[str] | None) -> Extraction | None:
    for match in reversed(list(_TAG.finditer(text))[-MAX_TRIES:]):
        start, end = match.span("content")
        content = match["content"]
        if not _CONTENT.search(content):
            continue  # "put it between <answer> </answer>"
        found = _explicit(content, kind, options)
        if found is None and options and end - start <= MAX_TAIL:
            found = choice_in(content, 0, len(content), options, "tag")
        if found is None and (options or end - start > MAX_ALONE):
            found = _implicit(content, kind, options)
        if found is not None:
            return replace(found, start=start + found.start, end=start + found.end, how="tag")
        if end - start <= MAX_TAIL:
            return _extraction(text, start, end, "tag", kind, options)
    return None


def find_box(text: str) -> tuple[int, int] | None:
    r"""Where the content of the last ``\boxed{...}`` begins and ends, None where there is none.

    Of nested boxes the innermost counts. Boxes without content and boxes that are never closed are no boxes.
    """
    boxes = _boxes(text)
    return boxes[-1][1:] if boxes else None


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """Every closed box with content, by its start: (start of the command, start of the content, its end)."""
    open_braces: list[tuple[int, int]] = []  # where each open box starts, (-1, -1) for a brace that opens no box
    boxes: list[tuple[int, int, int]] = []
    position = last_content = 0
    for match in _BRACES.finditer(text):
        token = match.group()
        if _CONTENT.search(text, position, match.start()):
            last_content = match.start()
        position = match.end()
        if match.lastgroup == "box":
            open_braces.append(match.span())
        elif token == "{":
            open_braces.append((-1, -1))
        elif token == "}":
            command, start = open_braces.pop() if open_braces else (-1, -1)
            # The innermost of nested boxes starts last, and is the one that holds the answer.
            if 0 <= start < last_content:
                boxes.append((command, start, match.start()))
        elif token not in _SPACING:
            last_content = position
    return sorted(boxes, key=lambda box: box[1])


def _boxed(text: str, kind: Kind, options: Sequence[str] | None) -> Extraction | None:
    boxes = _boxes(text)
    if not boxes:
        return None
    command, start, end = boxes[-1]
    contents = {text[start:end].strip()}
    first, first_start = command, start
    for previous, previous_start, previous_end in reversed(boxes[:-1]):
        if not (previous_end < first <= previous_end + 60 and _JOINT.match(text[previous_end:first])):
            break
        first, first_start = previous, previous_start
        contents.add(text[previous_start:previous_end].strip())
    if len(contents) > 1:
        bare = " ".join(strip_markup(text[first : end + 1]).split())
        return Extraction(bare, first_start, end, "boxed")
    return _extraction(text, start, end, "boxed", kind, options)


def _hash(text: str, kind: Kind, options: Sequence[str] | None) -> Extraction | None:
    text_end = len(text.rstrip())
    numeric = kind in (Kind.NUMBER, Kind.QUANTITY)
    for match in reversed(list(_HASH.finditer(text))[-MAX_TRIES:]):
        # "#### Step 2" is a Markdown heading: only a number, or what stands in the last line, is an answer.
        is_last = match.end() >= text_end
        start, end = match.span("tail")
        if end - start > MAX_TAIL:
            continue
        tail = text[start:end]
        if options:
            found = choice_in(text, start, end, options, "hash")
        elif is_numeric(tail) or (is_last and (not numeric or starts_with_number(tail))):
            found = _extraction(text, start, end, "hash", kind, None)
        else:
            found = None
        if found is not None:
            return found
    return None


def _alone(text: str, kind: Kind) -> Extraction | None:
    end = len(text.rstrip())
    line = text.rfind("\n", 0, end) + 1
    if not 0 < end - line <= MAX_TAIL:
        return None
    dress = _LINE_DRESS.match(text, line, end)
    start = dress.end() if dress else line
    bare = strip_markup(text[start:end])
    if kind == Kind.TEXT:
        words = len(bare.split())
        sentence = text[end - 1] in ".!?\u3002\uff01\uff1f" and words > 3
        if text[:line].strip() or words > 8 or sentence:
            return None
        return as_written(text, start, end, "alone")
    if end - start <= MAX_ALONE and bare and kind_of(bare) == kind:
        return as_written(text, start, end, "alone")
    for match in reversed(list(_FORMULA.finditer(text, line, end))):
        begin, stop = match.span(match.lastindex or 0)
        if (formula := strip_markup(text[begin:stop])) and kind_of(formula) == kind:
            return as_written(text, begin, stop, "alone")
    return None


def _extraction(
    text: str, start: int, end: int, how: How, kind: Kind, options: Sequence[str] | None
) -> Extraction | None:
    start, end = trim(text, start, end)
    bare = None
    if kind == Kind.NUMBER:
        bare = reduce_number(text[start:end])
    elif kind == Kind.QUANTITY:
        bare = reduce_quantity(text[start:end])
    elif options and (choice := choice_in(text, start, end, options, how)) is not None:
        return choice
    return Extraction(bare, start, end, how) if bare else as_written(text, start, end, how)
