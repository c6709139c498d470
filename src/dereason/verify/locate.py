r"""Find the answer in a response, and say where it stands.

Thoughts (``<think>...</think>`` and the like, see :mod:`dereason.verify.thinking`) are no answer: only what stands
outside of them is searched. Where nothing stands outside, the thoughts are searched for an answer that says it is
one, unless the last is still open: a response that is still thinking has no answer.

Tried in this order; within each the last one in the text wins. All but ``number`` and ``alone`` are marks: the response
says that this is its answer.

``tag``           ``<answer>...</answer>``; the closing tag may be missing. In its content the rules below apply; where
                  none does, the content is the answer. Prose in a tag marks none: its last number is a ``number``
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

What is found is the place of the answer and what stands there, as it was written: whether "5 apples" is the number 5
is for the comparison to say. Everything is linear in the length of the response: no recursion into the text, and no
pattern that can backtrack far.

With ``marks`` only these are searched, in the same order, as if the others did not exist: with ``boxed`` alone a box
counts whatever tag or "the answer is" comes after it. All marks find what is found without ``marks``, or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from dereason.verify.equivalence import option_index
from dereason.verify.kinds import Kind
from dereason.verify.last_number import last_number
from dereason.verify.letters import choice_in, concluding_letter
from dereason.verify.reading import kind_of, read
from dereason.verify.single import single
from dereason.verify.span import MARKS, MAX_TAIL, MAX_TRIES, How, Mark, Span, as_written
from dereason.verify.stated import stated_answer
from dereason.verify.text import as_read, strip_markup
from dereason.verify.thinking import inside_thinking, outside_thinking

__all__ = ["How", "Span", "find_box", "locate"]

# The second branch is for JSON-escaped text, in which a box is written with two backslashes.
_BRACES = re.compile(r"(?P<box>(?:\\|(?<=\\))(?:boxed|fbox)\s*+\{)|\\.|[{}]", re.DOTALL)
_CONTENT = re.compile(r"[^\s.,;:*_$`~]")
_SPACING = frozenset({f"\\{mark}" for mark in "!,;:>()[]$ \n"})
# Between two boxes that are one answer: "\boxed{3} or x = \boxed{4}".
_JOINT = re.compile(
    r"\}(?:[\s$&*_]|\\[()\[\] ,;!]|\\q?quad\b)*+(?:\\text\s*\{\s*)?"
    r"(?:[,;]|\b(?:or|and|oder|und|ou|et|o|y|e|или|и)\b|[或和]|(?=\([b-z1-9ivx]{1,4}\)))(?:\s*(?:or|and)\b)?"
    r"(?:[\s$&*_}]|\\[()\[\] ,;!]|\\q?quad\b)*+(?:[A-Za-z]\w{0,3}\s*[=:]\s*)?(?:\([b-z1-9ivx]{1,4}\)[:.]?[\s$]*)?\Z"
)
_TAG = re.compile(
    r"<(answer|final_answer|choice|option|final)>\s*+(?P<content>(?:(?!</?(?:answer|final_answer|choice|option|final)>).)*+)(?:</\1>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
# A model's end of turn, where it was decoded with the text.
_END_TOKENS = re.compile(r"\s*(?:(?:<\|[a-z_]{2,30}\|>|</s>|<end_of_turn>|<eos>)\s*)++\Z")
_FORMULA = re.compile(r"\$([^$\n]{1,100})\$|\\\(([^\n]{1,100}?)\\\)|\\\[([^\n]{1,100}?)\\\]")
_JSON = re.compile(
    r"[{,]\s*[\"'](?:(?:final|correct)?[_ ]?(?:answer|choice|option|letter)|result|label|final)[\"']\s*:\s*"
    r"(?:\"(?P<text>(?:[^\"\\\n]|\\.){1,400})\"|'(?P<quoted>[^'\n]{1,400})'|(?P<bare>-?[0-9.eE+-]{1,40}|true|false))\s*(?=[,}])",
    re.IGNORECASE,
)
_HASH = re.compile(r"(?<!\S)####[ \t]*+(?P<tail>[^\n]*+)")
_STEP = re.compile(r"\s*(?:step|case|part)\b", re.IGNORECASE)
_SAYS = re.compile(
    r"(?:(?:so|thus|hence|therefore|then)[\s,]+)*(?:(?:it|that|he|she)['\u2019]s|(?:it|this|that|he|she"
    r"|the [^\W\d_]+(?: [^\W\d_]+){0,4}) (?:is|are|was|were|(?:must|should|would|has to) be)(?: called| known as)?)\s+"
    r"(?P<is>[^\s,;]+(?: [^\s,;]+){0,3}?)[.!]?"
    r"|(?:(?:so|thus|hence|therefore|then)[\s,]+)*(?P<head>\S.{0,80}?) is the (?:(?:correct|right"
    r"|final|best) )?(?:answer|result)[.!]?",
    re.IGNORECASE,
)
_LINE_DRESS = re.compile(r"(?:[ \t*_`]|>|#{1,6}\s|[-+\u2022]\s|\|)*+")
MAX_ALONE = 100
"""Longer lines are prose."""


def locate(
    response: str, *, kind: Kind, options: Sequence[str] | None = None, marks: Collection[Mark] | None = None
) -> Span | None:
    """The answer of a response, or None where it states none.

    Args:
        response: the generated text, of any length and content.
        kind: the reference's kind; what has no mark of an answer is one only where it fits the kind.
        options: the choices of a multiple-choice problem; allows a choice letter as the conclusion.
        marks: only an answer at one of these counts; None: any answer does.
    """
    ending = _END_TOKENS.search(response, max(0, len(response) - 200))
    text, outside = _readable(response[: ending.start()] if ending else response)
    found = _marked(text, kind, options, MARKS if marks is None else marks)
    if found is None and outside:
        if options and (marks is None or "letter" in marks):
            found = concluding_letter(text, options)
        elif not options and marks is None:
            found = _unmarked(text, kind)
    return found if found is None or marks is None or found.how in marks else None


def _readable(response: str) -> tuple[str, bool]:
    """The response with blanks for what is no answer, and whether anything stands outside of its thoughts.

    Of nothing but thoughts that are over, the thoughts are read; of a thought that goes on, nothing.
    """
    text, thinking = outside_thinking(response)
    if text.strip():
        return text, True
    return "" if thinking else inside_thinking(response), False


def _marked(text: str, kind: Kind, options: Sequence[str] | None, marks: Collection[Mark]) -> Span | None:
    tagged = _tagged(text, kind, options) if "tag" in marks else None
    return tagged or _explicit(text, kind, options, marks)


def _explicit(text: str, kind: Kind, options: Sequence[str] | None, marks: Collection[Mark] = MARKS) -> Span | None:
    boxed = _boxed(text, kind, options) if "boxed" in marks else None
    if boxed is not None and not (options and option_index(boxed.text, options) is None):
        return boxed
    # A box that names no option is no answer while something else does.
    stated = None
    if "final_answer" in marks:
        stated = stated_answer(text, kind, options) or _json(text, kind, options)
    if stated is None and "hash" in marks:
        stated = _hash(text, kind, options)
    if stated is None and boxed is not None and options and "letter" in marks:
        stated = concluding_letter(text, options)
        stated = stated if stated is not None and stated.start > boxed.end else None
    return stated or boxed


def _json(text: str, kind: Kind, options: Sequence[str] | None) -> Span | None:
    """The answer of ``{"answer": "B"}``."""
    for match in reversed(list(_JSON.finditer(text))[-MAX_TRIES:]):
        group = "text" if match["text"] else "quoted" if match["quoted"] else "bare"
        start, end = match.span(group)
        found = (
            choice_in(text, start, end, options, "final_answer")
            if options
            else as_written(text, start, end, "final_answer")
        )
        if found is not None:
            return found
    return None


def _unmarked(text: str, kind: Kind) -> Span | None:
    if kind in (Kind.NUMBER, Kind.QUANTITY):
        return last_number(text, kind) or _alone(text, kind)
    return _alone(text, kind)


def _tagged(text: str, kind: Kind, options: Sequence[str] | None) -> Span | None:
    for match in reversed(list(_TAG.finditer(text))[-MAX_TRIES:]):
        start, end = match.span("content")
        content = match["content"]
        if not _CONTENT.search(content):
            continue  # "put it between <answer> </answer>"
        found = _explicit(content, kind, options)
        if found is None and options and end - start <= MAX_TAIL:
            found = choice_in(content, 0, len(content), options, "tag")
        if found is None and options:
            found = concluding_letter(content, options)
        elif found is None and end - start > MAX_ALONE and kind is not Kind.LITERAL:
            found = _unmarked(content, kind)
        if found is not None:
            how: How = "tag" if found.how in MARKS else found.how
            return replace(found, start=start + found.start, end=start + found.end, how=how)
        if end - start <= MAX_TAIL or (end < len(text) and not options and kind not in (Kind.NUMBER, Kind.QUANTITY)):
            return _found(text, start, end, "tag", kind, options)
    return None


def find_box(text: str) -> tuple[int, int] | None:
    r"""Where the content of the last ``\boxed{...}`` begins and ends, None where there is none.

    Of nested boxes the innermost counts. Boxes without content and boxes that are never closed are no boxes; nor are
    those in thoughts, unless there is nothing else.
    """
    boxes = _boxes(_readable(text)[0])
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


_JSON_HEADS = ('{"', '["', "[[", "[{")


def _json_end(text: str, start: int) -> int | None:
    """Where a JSON value ends that fills a box: the braces within its strings do not balance."""
    try:
        _, end = json.JSONDecoder().raw_decode(text[start : start + 8 * MAX_TAIL])
    except (ValueError, RecursionError):
        return None
    return start + end if text[start + end : start + end + 1] == "}" else None


def _boxed(text: str, kind: Kind, options: Sequence[str] | None) -> Span | None:
    boxes = _boxes(text)
    if not boxes:
        return None
    command, start, end = boxes[-1]
    if text[start : start + 2] in _JSON_HEADS and (filled := _json_end(text, start)) is not None:
        return Span(text[start:filled], start, filled, "boxed")
    contents = {text[start:end].strip()}
    first = command
    for previous, previous_start, previous_end in reversed(boxes[:-1]):
        if not (previous_end < first <= previous_end + 60 and _JOINT.match(text[previous_end:first])):
            break
        first = previous
        contents.add(text[previous_start:previous_end].strip())
    if len(contents) > 1:
        return Span(_PART.sub(", ", text[first : end + 1]), first, end + 1, "boxed")
    if kind is Kind.QUANTITY and (behind := _UNIT_BEHIND.match(text, end)) is not None:
        # The unit stands behind the box.
        inside, whole = text[start:end], f"{text[start:end]} {behind['unit']}"
        if kind_of(inside) is Kind.NUMBER and kind_of(whole) is Kind.QUANTITY:
            return Span(whole, command, behind.end("unit"), "boxed")
    return _found(text, start, end, "boxed", kind, options)


_PART = re.compile(r"(?<=\})[\s$,;]*(?:\([b-z1-9ivx]{1,4}\)[:.]?|[A-Za-z]\w{0,3}:)[\s$]*(?=\\)")
_UNIT_BEHIND = re.compile(
    r"\}[\s*]*\$?(?:\s|\\[,;: ])*(?P<unit>\\(?:text|mathrm)\s?\{[^{}\n]{1,30}\}(?:\^\{?-?\d\}?)?"
    r"|[A-Za-z\u00b0\u00b5%/\u00b2\u00b3^0-9-]{1,12}(?![A-Za-z]))"
)


def _hash(text: str, kind: Kind, options: Sequence[str] | None) -> Span | None:
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
        elif is_last or (numeric and single(as_read(tail)) is not None and _STEP.match(tail) is None):
            found = _found(text, start, end, "hash", kind, None)
        else:
            found = None
        if found is not None:
            return found
    return None


def _alone(text: str, kind: Kind) -> Span | None:
    if kind is Kind.LITERAL:
        start = text.rstrip().rfind("\n\n") + 1
        return as_written(text, start, len(text), "alone") if len(text) - start <= 8 * MAX_TAIL else None
    end = len(text.rstrip())
    line = text.rfind("\n", 0, end) + 1
    if not 0 < end - line <= MAX_TAIL:
        return None
    dress = _LINE_DRESS.match(text, line, end)
    start = dress.end() if dress else line
    bare = strip_markup(text[start:end])
    if kind == Kind.TEXT:
        words = len(bare.split())
        if not text[:line].strip() and words <= 12 and (said := _SAYS.fullmatch(text, start, end)) is not None:
            return as_written(text, *said.span("is" if said["is"] else "head"), "alone")
        sentence = text[end - 1] in ".!?\u3002\uff01\uff1f" and words > 3
        if text[:line].strip() or words > 8 or sentence:
            return None
        return as_written(text, start, end, "alone")
    if kind == Kind.BOOLEAN and (word := _YES_NO.match(text, start, end)) is not None:
        return as_written(text, start, word.end(), "alone")
    if end - start <= MAX_ALONE and bare and _fits(read(bare).kind, kind):
        return as_written(text, start, end, "alone")
    for match in reversed(list(_FORMULA.finditer(text, line, end))):
        begin, stop = match.span(match.lastindex or 0)
        if (formula := strip_markup(text[begin:stop])) and kind_of(formula) == kind:
            return as_written(text, begin, stop, "alone")
    said = _SAYS_VALUES.search(text, line, end)
    if said is not None and _fits(kind_of(strip_markup(said["values"])), kind):
        return as_written(text, *said.span("values"), "alone")
    return None


_YES_NO = re.compile(r"[*_]{0,3}(?:yes|no|true|false)\b(?=[*_]{0,3}\s*(?:[,;:.!\u2013\u2014]|\Z))", re.IGNORECASE)
_SAYS_VALUES = re.compile(r"(?:\b(?:is|are|be|equals?)|:)\s+(?P<values>[^\s].{0,100}?)[.\s]*\Z")


def _fits(found: Kind, wanted: Kind) -> bool:
    return found == wanted or {found, wanted} <= {Kind.SET, Kind.TUPLE, Kind.INTERVAL}


def _found(text: str, start: int, end: int, how: How, kind: Kind, options: Sequence[str] | None) -> Span | None:
    if options and (choice := choice_in(text, start, end, options, how)) is not None:
        return choice
    return as_written(text, start, end, how)
