r"""The one number or quantity that a short answer states: "5 apples" is 5 apples, "x = 3 + 2 = 5" is 5.

What may stand around the number is listed here; anything else makes the answer something larger, whose number is not
what is said: ``5!``, ``f(5)``, "at most 5", "between 3 and 5", "about 5", "12 May", "2-methylpropane".
"""

from __future__ import annotations

import re

from dereason.verify.numbers import parse_number, same_number
from dereason.verify.structures import outside, relation
from dereason.verify.text import DRESS, MONEY, unmarked
from dereason.verify.units import SIGNS, parse_quantity

MAX_SHORT = 500
"""Longer answers state no single value."""

# Before the number: something that is, has, costs or makes it ...
_VERBS = re.findall(
    r"\S+",
    """is are was were be been being equals equal equalled has have had gets get got costs cost makes make made
        earns earn earned needs need needed takes take took pays pay paid sells sell sold buys buy bought
        saves save saved spends spend spent eats eat ate reads read drives drove walks walked runs ran
        receives receive received owes owed gives give gave yields yield remain remains leaves left weighs
        weighed contains contain holds hold uses use used produces produce produced becomes become totals
        totaled totalled finds found collects collected bakes baked picks picked drinks drank wins won
        scores scored charges charged loses lost grows grew sees saw works worked donates donated ist sind
        lautet est es é è son vale""",
)
# ... and words that leave it as it is.
_FILL = re.findall(
    r"\S+",
    """so thus hence therefore then finally the a an answer result value total sum final exactly precisely only
        just it that this there we of number amount in all fact now my your our simply equal to out also
        altogether overall indeed thereby actually namely clearly of his her their its""",
)
_BEFORE = re.compile(
    rf"(?:[^\W\d_]|[-'\u2019 ,.()])*?(?:(?<![^\W\d_])(?:{'|'.join(_VERBS)})(?![^\W\d_])"
    rf"|[:=])[\s:]*(?:(?:{'|'.join(_FILL)})\b[\s:,]*)*"
    rf"|(?:(?:{'|'.join(_FILL)})\b[\s:,]*)*|[$({{\[\s]*|\s*(?:Answer|answer)\s*:?\s*",
    re.IGNORECASE,
)
# None of these anywhere before it.
_CHANGED = re.compile(
    r"(?<![^\W\d_])(?:not|never|no|\w+n['\u2019]t|cannot|hardly|close to|near|tends?|approach(?:es)?"
    r"|neither|nor|unless|if|except|but|between|from|least|most|over|under|above"
    r"|below|than|about|around|approximately|roughly|nearly|almost|twice|double|triple|half|thirds?|quarters?|square|root|cube|log|multiple"
    r"|reciprocal|opposite|inverse|negative|minus|plus|times|divided|factorial|percent|exceeds?|without|unlikely|any|up"
    r"|nicht|kein\w*|pas|não|non|не|step|case|part|equation|figure|table|option|mod|modulo|maximum"
    r"|minimum|max|min|dozens?|all but|January|February|March|April|May|June|July|August|September"
    r"|October|November|December)(?![^\W\d_])",
    re.IGNORECASE,
)
# Behind the number and its unit or noun: where, when, of what, for whom.
_BEHIND = re.compile(
    r"(?:\s*(?:in (?:total|all)|altogether|total|overall|left|remaining|remain|each|together|away|long"
    r"|tall|wide|old|high|deep|apart"
    r"|now|downwards?|upwards?|respectively|exactly)\b)?"
    r"(?:\s+(?:in|on|at|for|from|of|to|by|after|during|per|with|because|since|a|an|every|each|and|that|which|who|as|when)\s"
    r"(?:[^\W\d_]|[-'\u2019 ,.])*)?\s*[.,;]?\s*",
)
# A noun of another language: "5\u4e2a", "42 \u00c4pfel"; none that counts in thousands.
_FOREIGN = re.compile(
    r"\s?(?=\w*[^\x00-\x7f])(?![\u4e07\u4ebf\u5104\u5343\u767e\u534a\u4e0d\u6216\u5de6\u4ee5\u591a]|\u0442\u044b\u0441\u044f\u0447|\u043c\u0438\u043b\u043b)[^\W\d_]{1,20}"
    r"(?:\s[^\W\d_]{2,20})?\s*[.\u3002]?",
)
_DENIED = re.compile(
    r"(?<![^\W\d_])(?:not|never|no|nor|or|than|mod|modulo|times|plus|minus|squared|cubed|factorial|more|less|fewer|percent|hundreds?"
    r"|thousands?|millions?|billions?|dozens?|power|isn't|wrong|incorrect|error|AD|BC|BCE|CE|o'clock)(?![^\W\d_])"
)
_BARE = re.compile(
    r"\s*(?:in (?:total|all)|altogether|total|overall|left|remaining|each|together|of (?:them|these|those)|now"
    r"|per (?!cent|thousand|mille|hundred|million)[a-z]+|of the [a-z ]{1,30})?\s*[.,;]?\s*"
)
_NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9_^.\\|/:])(?:[-+]\s?)?(?:[{SIGNS}]\s?)?(?:[-+]\s?)?
    (?:(?:\d{{1,9}}\s?)?\\frac\s?\{{\s?-?\d{{1,100}}\s?\}}\s?\{{\s?\d{{1,100}}\s?\}}
      | (?:\d{{1,9}}\s(?:and\s)?)?\d+/\d+
      | (?:\d+(?:[.,']\d+|\s\d{{3}}(?!\d))*|\.\d+)(?:[eE][-+]?\d+)?)
    (?:\s?(?:\\times|\\cdot|\*|x)\s?10\s?\^\s?(?:\{{\s?-?\d+\s?\}}|-?\d+))?""",
    re.VERBOSE,
)
_OPERAND = re.compile(r"(?:(?<![^\W\d_])\w|[)}\]])\s*\Z")
_DIGIT = re.compile(r"[0-9]")
_TWICE = re.compile(r"([^()]{1,60}?)\s*\(([^()]{1,60})\)")
_ENCLOSED = re.compile(r"(?:\(|\\\{|\[|\{)(.*)(?:\)|\\\}|\]|\})", re.DOTALL)
_OR = re.compile(rf"\s{DRESS}?\s?or\s|,\s?or\s|\s\|\|\s")
_SEVERAL = re.compile(r"(?:,(?!\d{3}(?!\d))|;|\band\b|\bor\b)")
_NEXT = re.compile(r"[,;](?!\d{3}(?!\d))\s?[-+$\\]?\s?[0-9]|\b(?:and|or)\s[-+$\\]?\s?[0-9]")
_TRAILING_PERCENT = re.compile(
    r"(.*[0-9]\s?%)\s?(?:\(?(?:w/v|w/w|v/v|by (?:mass|weight|volume))\)?|[a-z]{4,20}|of [a-z ]{1,40})"
)
_SIGN_WORD = re.compile(rf"((?:.*[\s=:])?)(?:{DRESS}\s?)?(?:minus|negative)\s+(?=[0-9.{MONEY}$\\])", re.IGNORECASE)


def is_value(text: str) -> bool:
    """Whether the whole text is one number or one quantity."""
    return parse_number(unmarked(text)) is not None or parse_quantity(text) is not None


def changes(before: str, behind: str) -> bool:
    """Whether the words beside a number deny it, bound it or compute with it."""
    return _CHANGED.search(before) is not None or _CHANGES.match(behind) is not None


_CHANGES = re.compile(
    r"\s*(?:or (?:more|less|fewer|so|higher|lower|above|below)|(?:more|less|fewer"
    r"|greater) than [a-z](?![a-z])|(?:AD|BC|BCE|CE)\b|o'clock"
    r"|(?:is|are|was|were) (?:wrong|incorrect|not|false|too|excluded|impossible|invalid)|cannot\b"
    r"|(?:do|does|did|is|are|was|can|could|would|will)(?:n['\u2019]t| not)\b|times [0-9a-z](?![a-z])"
    r"|squared|cubed|factorial|mod(?:ulo)?\b|at (?:most|least))",
)


def single(text: str) -> str | None:
    """The part of a text that is its one number or quantity, or None where it states none, or not one.

    Args:
        text: as :func:`dereason.verify.text.as_read` gives it.
    """
    if len(text) > MAX_SHORT:
        return None
    if is_value(text):
        return text
    inner = _ENCLOSED.fullmatch(text)
    if inner is not None and not any(c in text[1:] for c in "([{,") and (value := single(inner[1].strip())) is not None:
        return value
    return _twice(text) or _side(text) or _percentage(text) or _in_words(text)


def _twice(text: str) -> str | None:
    """ "42 (forty-two)", ``\frac{1}{6} or 0.1\\overline{6}``: one value said twice."""
    match = _TWICE.fullmatch(text)
    parts = [match[1], match[2]] if match is not None else _OR.split(text)
    if not 2 <= len(parts) <= 4:
        return None
    numbers = [parse_number(unmarked(part).strip()) for part in parts]
    first = numbers[0]
    if first is None or any(number is None or same_number(first, number) is None for number in numbers):
        return None
    return parts[0].strip()


def _side(text: str) -> str | None:
    r"""The value at the end of ``x = 3 + 2 = 5``, before ``42 = 6 * 7``, the exact one of ``x = 1/6 \approx 0.17``."""
    if "=" not in text and "\\approx" not in text and "\\equiv" not in text:
        return None
    marks = outside(text)
    found = relation(text, marks) if marks else None
    if found is None:
        return single(text[1:].strip()) if text.startswith("=") else None
    sides, signs = found
    names = [unmarked(side) for side in sides]
    if any(mark.kind == "row" for mark in marks or ()) or _CONDITION.match(names[0]):
        return None
    if set(signs) - {"=", "~"} or any(_SEVERAL.search(name) for name in names[:-1]):
        return None
    if "~" in signs:
        about = signs.index("~")
        if any(_NEXT.search(name) for name in names[about + 1 :]):
            return None  # "2/3 is about 0.67, 5": two values
        if about == 0 and not is_value(sides[0]) and (names[0] in _CONSTANTS or not _names(names[0], strict=True)):
            return None  # of 2\pi \approx 6.28 the exact value is what is said
        if about == 0 and names[0].split()[-1].lower() in _VERBS:
            return None  # "it is \approx 5"
        sides = sides[: about + 1] if about or is_value(sides[0]) else sides
    if is_value(sides[-1]) and (len(sides) == 1 or _names(names[0])):
        return sides[-1]
    if is_value(sides[0]) and "?" not in names[-1]:
        return sides[0]
    if not _names(names[0]):
        return None
    return _in_words(sides[-1]) if _DIGIT.search(sides[-1]) else None


_CONDITION = re.compile(r"(?:if|when|unless|where|for|not)\b", re.IGNORECASE)
_CONSTANTS = ("\\pi", "\u03c0", "pi", "e")
_ARGUMENT = re.compile(
    r"(?<=[A-Za-z'}])\s?\([^()]*\)|\[[^][]*\]|\\frac\s?\{\s?d[^{}]*\}\s?\{\s?d[^{}]*\}|_\{[^{}]*\}|_\w"
)
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_OPERATION = re.compile(r"[+*/^|!]|\\(?:times|cdot|frac|sqrt|div)|[\w)}]\s?-|[0-9)]\s?[A-Za-z](?![A-Za-z])")


def _names(side: str, *, strict: bool = False) -> bool:
    """Whether a side of an equation names a value or computes with numbers: not ``x^2 + y^2``, not ``2x``."""
    bare = _ARGUMENT.sub("", side)
    operation = _OPERATION.search(bare) is not None
    return not operation or (not strict and _VARIABLE.search(bare) is None)


def _percentage(text: str) -> str | None:
    match = _TRAILING_PERCENT.fullmatch(unmarked(text))
    return match[1] if match is not None and parse_number(match[1]) is not None else None


def _in_words(text: str) -> str | None:
    """The value of a sentence that says nothing else of it."""
    text = _SIGN_WORD.sub(r"\1-", text, count=1)
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return _number_word(text)
    first = numbers[0]
    if any(later.start() >= first.end() and not _of_unit(text, first.end(), later) for later in numbers[1:]):
        return None
    before = unmarked(text[: first.start()])
    if before and first.group()[0] in "+-" and _OPERAND.search(before) is not None:
        return None  # a + 5
    if before.endswith(("(", "[", "{")) and "," in first.group():
        return None  # (3,4) is a pair
    if before and (_BEFORE.fullmatch(before) is None or _CHANGED.search(before) is not None):
        return None
    behind = text[first.end() :]
    if behind and behind[0] in ")}]" and before.rstrip()[-1:] in ("(", "{", "["):
        behind = behind[1:]
    if _BARE.fullmatch(unmarked(behind)):
        return first.group().strip()
    # The longest unit or noun, with nothing but harmless words after it.
    cuts = [m.end() for m in re.finditer(r"[^\s]+", behind)][:8]
    for cut in reversed(cuts):
        if not (unit := behind[:cut].rstrip(".,; ")):
            continue
        value = text[first.start() : first.end()] + unit
        rest = unmarked(behind[cut:])
        if (not rest or (_BEHIND.fullmatch(" " + rest) is not None and _DENIED.search(rest) is None)) and is_value(
            value
        ):
            return value
    if _FOREIGN.fullmatch(behind) is not None:
        return first.group().strip()
    if behind.lstrip().startswith("%"):
        return first.group().strip() + "%" if _BARE.fullmatch(unmarked(behind.lstrip()[1:])) else None
    return None


def _of_unit(text: str, end: int, later: re.Match[str]) -> bool:
    """Whether a later number belongs to the unit: the exponent of "m/s^2"."""
    return re.fullmatch(r"[^\s,;]*[\^{]-?", text[end : later.start()].lstrip()) is not None


def _number_word(text: str) -> str | None:
    """The number in words that a sentence states: "two apples", "the answer is forty-two"."""
    words = unmarked(text).strip(" .!").split()
    for start in range(min(len(words), 12)):
        for end in range(min(len(words), start + 8), start, -1):
            phrase = " ".join(words[start:end])
            if parse_number(phrase) is None:
                continue
            before, behind = " ".join(words[:start]), " ".join(words[end:])
            if before and (_BEFORE.fullmatch(before + " ") is None or _CHANGED.search(before) is not None):
                return None
            if not behind:
                return phrase
            whole = f"{phrase} {behind}"
            return whole if len(words) - end <= 3 and parse_quantity(whole) is not None else None
    return None
