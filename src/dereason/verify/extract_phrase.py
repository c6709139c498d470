"""Answers that say so: "the answer is X", "Final answer: X", "**Answer**" above X, and the like in other languages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dereason.verify.extract_choice import choice_in
from dereason.verify.extract_number import reduce_number, reduce_quantity, starts_with_number
from dereason.verify.extraction import MAX_TAIL, MAX_TRIES, Extraction, as_written, trim
from dereason.verify.kinds import Kind

# Language: (the noun, what may stand between it and the verb, the verb). Chinese and Japanese have no word boundaries.
_SPACED = {
    "de": (r"antwort|endergebnis", "", r"ist|lautet"),
    "fr": (r"r[ée]ponse", r"finale|correcte|exacte", r"est"),
    "es": (r"respuesta", r"final|correcta", r"es"),
    "pt": (r"resposta", r"final|correta|certa", r"é"),
    "it": (r"risposta", r"finale|corretta|giusta|esatta", r"è|e'"),
    "ru": (r"ответ", "", r"это|равен|будет|[—–-](?=\s)"),
}
_UNSPACED = {
    "zh": (r"答案", r"(?:应该|应|就)?(?:是|为|為|选|選)"),
    "ja": (r"答え|解答|正解|回答", r"は"),
}
_OTHERS = (
    "|".join(
        [
            rf"(?<!\w)(?:{noun}){rf'(?:[ ](?:{between}))?' if between else ''}{{dress}}(?:(?:{verb})(?!\w)|{{mark}})"
            for noun, between, verb in _SPACED.values()
        ]
        + [rf"(?:{noun}){{dress}}(?:{verb}|{{mark}})" for noun, verb in _UNSPACED.values()]
    )
    .replace("{dress}", r"[*_`]{0,3}\s{0,3}")
    .replace("{mark}", r"[:=\uff1a]")
)
_NOUNS = "|".join(noun for noun, *_ in (*_SPACED.values(), *_UNSPACED.values()))

# What may stand before the answer: white space, emphasis, quotation marks of Markdown, bullets, the head of a fence.
_BULLET = r"(?:>|[-+\u2022][ ])"
_LEAD = rf"(?:(?<=\n){_BULLET}|(?<=[\n>][ ]){_BULLET}|(?<=```)[a-z]{{1,10}}\n|[\s*_`:\uff1a])*+"
_PHRASE = re.compile(
    rf"""
    (?:
        (?<![^\W_])(?P<final>final[ ]{{1,3}})?
        answer(?:s(?=[*_]{{0,3}}(?:\s{{1,3}}are\b|:[ *_]*\S)))?(?![^\W_])
        (?:[ ]to[ ][^\n.:]{{1,80}}?(?=[ ]is\b))?
        [*_`]{{0,3}}\s{{0,3}}
        (?: (?P<verb>(?:is|are)\b)(?:\s{{1,3}}that\b)?\s{{0,3}}:? | [:=\uff1a]
          | (?P<weak>(?:must|should|would|will)[ ]be\b|equals\b|[\u2013\u2014\u2192](?=\s)|->|=>)
          | (?P<cell>\|)(?=[^|\n]{{1,200}}\|) | (?(final)\n|(?!)) )
      | {_OTHERS}
      | ^[ \t>]{{0,4}}(?:\#{{1,6}}[ \t]{{1,3}}|[*_]{{2,3}})(?:[^\W\d_]{{1,12}}[ ]){{0,2}}(?:answer|{_NOUNS})
        (?:[ ][a-z]{{4,9}})?[ \t]?[*_]{{0,3}}[ \t]{{0,3}}\n
    )
    {_LEAD}
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_OPTION_PHRASE = re.compile(
    rf"\b(?:correct|right|best|closest|final)\s{{1,3}}(?:option|choice|alternative)\b[*_`]{{0,3}}\s{{0,3}}(?:is\b|[:=]){_LEAD}"
    rf"|(?:故选|应选|所以选|因此选){_LEAD}",
    re.IGNORECASE,
)
_MARK = re.compile(r"[:=\uff1a|\n]")
_SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bvs)[.!?](?=[*_\"')\]]{0,3}(?:\s|$))|[\u3002\uff01\uff1f]"
)
_CLAUSE_END = re.compile(
    r",\s+(?!or\b|and\b|oder\b|ou\b|o\b)(?=[^\W\d_]{2})|\s+(?:because|since|as|which|when|where|given|weil|car|porque)\b"
    r"|\s+(?:and|but)\s+not\b|(?<=\d)[*_`$]{0,3}\s\((?!mod\b|base\b)(?=\w)"
)
_REASON = re.compile(r",?\s+(?:because|since)\s")
# Japanese and some other languages end the sentence after the answer.
_COPULA_AFTER = re.compile(r"\s?(?:です|である|となる|だ|となります)\Z")
_FORMULA = re.compile(r"(?:\$\$?([^$]{1,400})\$\$?|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\])", re.DOTALL)
_YES_NO = re.compile(
    r"[*_\"']{0,3}(?:yes|no|true|false)\b(?=[*_\"']{0,3}\s*(?:[,;:\u2013\u2014(]|\.\s|$))", re.IGNORECASE
)


def stated_answer(text: str, kind: Kind, options: Sequence[str] | None) -> Extraction | None:
    """The last answer that the text itself calls one, None where there is none."""
    for tail in _tails(text, bool(options)):
        found = _answer(text, tail, kind, options)
        if found is not None:
            return found
    return None


@dataclass(frozen=True)
class _Tail:
    start: int
    end: int
    sentence: bool  # it goes on from a verb, so that it ends with the sentence
    weak: bool  # its introduction alone does not make it an answer


def _tails(text: str, choices: bool) -> Iterator[_Tail]:
    """What follows each phrase, the last one first."""
    until = len(text)
    found = list(_PHRASE.finditer(text))
    if choices:
        found = sorted([*found, *_OPTION_PHRASE.finditer(text)], key=lambda match: match.start())
    for match in reversed(found[-MAX_TRIES:]):
        # Tails end where the next phrase begins, so that together they are no longer than the text.
        start = min(match.end(), until)
        groups = match.groupdict()
        end = _line_end(text, start, until)
        if groups.get("cell"):
            bar = text.find("|", start, end)
            end = bar if bar >= 0 else end
        elif text.startswith(("$$", "\\["), start):
            closing = text.find("$$" if text[start] == "$" else "\\]", start + 2, min(until, start + MAX_TAIL))
            end = closing + 2 if closing >= 0 else end
        sentence = groups.get("verb") is not None or _MARK.search(match.group()) is None
        yield _Tail(start, end, sentence, groups.get("weak") is not None)
        until = match.start()


def _line_end(text: str, start: int, until: int) -> int:
    end = text.find("\n", start, until)
    return min(until if end < 0 else end, start + MAX_TAIL)


def _answer(text: str, tail: _Tail, kind: Kind, options: Sequence[str] | None) -> Extraction | None:
    start, end = tail.start, tail.end
    numeric = kind in (Kind.NUMBER, Kind.QUANTITY)
    if (numeric or options or tail.sentence) and (stop := _SENTENCE_END.search(text, start, end)):
        end = stop.start()
    start, end = trim(text, start, end)
    if (after := _COPULA_AFTER.search(text, max(start, end - 8), end)) is not None:
        end = after.start()
    if options:
        return choice_in(text, start, end, options, "final_answer")
    if numeric:
        return _number(text, start, end, kind)
    if tail.weak:
        return None
    if kind == Kind.BOOLEAN and (word := _YES_NO.match(text, start, end)) is not None:
        end = word.end()
    formula = _FORMULA.match(text, start, end)
    if formula is not None and kind != Kind.TEXT and not re.search(r"[\d$\\]", text[formula.end() : end]):
        return as_written(text, *formula.span(formula.lastindex or 0), "final_answer")
    if tail.sentence and (reason := _REASON.search(text, start, end)) is not None:
        end = reason.start()
    return as_written(text, start, end, "final_answer")


def _number(text: str, start: int, end: int, kind: Kind) -> Extraction | None:
    stop = _CLAUSE_END.search(text, start, end)
    if stop is not None:
        end = stop.start()
    start, end = trim(text, start, end)
    raw = text[start:end]
    bare = reduce_number(raw) if kind == Kind.NUMBER else reduce_quantity(raw)
    if bare is None and not starts_with_number(raw):
        return None  # "the answer is obtained by adding 3 and 4" states no answer
    return Extraction(bare, start, end, "final_answer") if bare else as_written(text, start, end, "final_answer")
