"""Answers that say so: "the answer is X", "Final answer: X", "**Answer**" above X, and the like in other languages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dereason.verify.kinds import MATHEMATICS, Kind
from dereason.verify.last_number import is_exclamation
from dereason.verify.letters import choice_in
from dereason.verify.numbers import parse_number
from dereason.verify.reading import kind_of
from dereason.verify.single import changes, single
from dereason.verify.span import MAX_TAIL, MAX_TRIES, Span, as_written, trim
from dereason.verify.text import as_read, strip_markup

# Language: (the noun, what may stand between it and the verb, the verb). Chinese and Japanese have no word boundaries.
_SPACED = {
    "de": (r"antwort|endergebnis", "", r"ist|lautet"),
    "fr": (r"r[ée]ponse", r"finale|correcte|exacte", r"est"),
    "es": (r"respuesta", r"final|correcta", r"es"),
    "pt": (r"resposta", r"final|correta|certa", r"é"),
    "it": (r"risposta", r"finale|corretta|giusta|esatta", r"è|e'"),
    "ru": (r"ответ", "", r"это|равен|будет|[—–-](?=\s)"),
    "sv": (r"svaret|svar", r"slutliga", r"är|blir"),
    "nl": (r"antwoord", "", r"is|luidt"),
    "pl": (r"odpowiedź|odpowiedzią", "", r"to|jest"),
    "ar": (r"الإجابة|الاجابة|الجواب", r"الصحيحة|النهائية|الصحيح|النهائي", r"هي|هو"),
    "hi": (r"उत्तर|उत्तर", "", r"है"),
    "tr": (r"cevap|yan\u0131t", "", r"şudur"),
    "fi": (r"vastaus", "", r"on"),
    "ro": (r"răspuns(?:ul)?", r"corect|final", r"este|e"),
    "vi": (r"đáp án|câu trả lời", r"đúng|cuối cùng", r"là"),
    "da": (r"svaret|svar", "", r"er"),
    "cs": (r"odpověď", "", r"je"),
    "uk": (r"відповідь", "", r"це"),
    "id": (r"jawaban(?:nya)?", "", r"adalah"),
    "el": (r"απάντηση", "", r"είναι"),
}
_UNSPACED = {
    "zh": (r"答案", r"(?:应该|应|就)?(?:是|为|為|选|選)"),
    "ja": (r"答え|解答|正解|回答", r"は"),
    "ko": (r"정답|답", r"은|는"),
    "th": (r"คำตอบ", r"คือ"),
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
    .replace("{mark}", r"[:=\uff1a\u3011]")
)
NOUNS = "|".join(noun for noun, *_ in (*_SPACED.values(), *_UNSPACED.values()))
"""A pattern of the words for "answer" in languages other than English."""

# What may stand before the answer: white space, emphasis, quotation marks of Markdown, bullets, the head of a fence.
_BULLET = r"(?:>|[-+\u2022][ ])"
_LEAD = rf"(?:(?<=\n){_BULLET}|(?<=[\n>][ ]){_BULLET}|(?<=```)[a-z]{{1,10}}\n|[\s*_`:\uff1a])*+"
_PHRASE = re.compile(
    rf"""
    (?:
        (?<![^\W_])(?<!wrong[ ])(?<!incorrect[ ])(?P<final>final[ ]{{1,3}})?
        (?:answer(?:s(?=[*_]{{0,3}}(?:\s{{1,3}}are\b|:[ *_]*\S)))?|ans(?=\s?[:.=]))(?![^\W_])\.?
        (?:[ ]to[ ][^\n.:]{{1,80}}?(?=[ ]is\b))?
        [*_`]{{0,3}}\s{{0,3}}
        (?: (?P<verb>(?:is|are)\b)(?:\s{{1,3}}that\b)?\s{{0,3}}:? | [:=\uff1a]
          | (?P<weak>(?:must|should|would|will)[ ]be\b|equals\b|[\u2013\u2014\u2192](?=\s)|->|=>)
          | (?P<cell>\|)(?=[^|\n]{{1,200}}\|) | (?(final)\n|(?!)) )
      | {_OTHERS}
      | ^[ \t>]{{0,4}}(?:\#{{1,6}}[ \t]{{1,3}}|[*_]{{2,3}})(?:[^\W\d_]{{1,12}}[ ]){{0,2}}(?:answer|{NOUNS})
        (?:[ ][a-z]{{4,9}})?[ \t]?[*_]{{0,3}}[ \t]{{0,3}}\n
    )
    {_LEAD}
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_OPTION_PHRASE = re.compile(
    rf"\b(?:correct|right|best|closest|final)\s{{1,3}}(?:option|choice|alternative)\b[*_`]{{0,3}}\s{{0,3}}(?:is\b|[:=]){_LEAD}"
    rf"|(?<!不)(?:选择?|選擇?){_LEAD}"
    # "Answer B", "Correct answer - C"
    rf"|(?:^|\n)[ *_]{{0,4}}(?:A|Final|Choice|Letter|Option)[*_]{{0,3}}:{_LEAD}"
    rf"|(?<![^\W_])answer[ ](?=[*_(\[]{{0,3}}(?-i:[A-Z])[*_)\]]{{0,3}}[\s.]*(?:\n|\Z))"
    rf"|(?<![^\W_])answer\s[-\u2013\u2014]\s",
    re.IGNORECASE,
)
_BOARD = re.compile(r"(?<=\s)(?:[_*~#]\s+)+\Z")
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
_COPULA_AFTER = re.compile(r"\s?(?:입니다|이다|です|である|となる|だ|となります)\Z")
_FORMULA = re.compile(r"(?:\$\$?([^$]{1,400})\$\$?|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\])", re.DOTALL)
_YES_NO = re.compile(
    r"[*_\"'\u201c]{0,3}(?P<word>yes|no|true|false)\b(?=[*_\"'\u201d]{0,3}\s*(?:[,;:\u2013\u2014(]|\.\s|$))",
    re.IGNORECASE,
)


# What is said about an answer, not what it is: "this answer is correct", "the answer is clear from the graph".
_COMMENT = re.compile(
    r"(?:(?:also|indeed|thus|then|therefore|now|clearly|certainly|definitely|fully|easily|very|quite|really)\s+)*"
    r"(?:correct|right|wrong|incorrect|verified|checked|confirmed|clear|obvious|found|derived|obtained|consistent|reasonable|plausible"
    r"|unique|final|complete|valid|sound|helpful|useful|justified|supported|accurate|sensible"
    r"|as (?:required|expected|desired|above)"
    r"|given|shown|the (?:derivative|result|sum|product|same|following|one)|based on|clear|proved"
    r"|proven|good|fine|ok|okay|simple|easy|done)"
    r"(?=[\s.,;:!]|\Z)(?:\s+(?:by|from|in|as|because|since|with|for|and|to|on|that|above|below|here|,).*)?[\s.!]*",
    re.IGNORECASE | re.DOTALL,
)


def stated_answer(text: str, kind: Kind, options: Sequence[str] | None) -> Span | None:
    """The last answer that the text itself calls one, None where there is none."""
    prose = comment = None
    for tail in _tails(text, bool(options), kind):
        found = _answer(text, tail, kind, options)
        if found is None:
            continue
        if _COMMENT.fullmatch(found.text) is not None and not options:
            comment = comment or found
            continue
        if kind in MATHEMATICS and kind_of(found.text) is Kind.TEXT and not options:
            # "Therefore the answer is the derivative": an earlier one may be mathematics.
            prose = prose or found
            continue
        return found
    return prose or (comment if kind in (Kind.TEXT, Kind.BOOLEAN) else None)


@dataclass(frozen=True)
class _Tail:
    start: int
    end: int
    sentence: bool  # it goes on from a verb, so that it ends with the sentence
    weak: bool  # its introduction alone does not make it an answer


def _tails(text: str, choices: bool, kind: Kind) -> Iterator[_Tail]:
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
        elif kind is Kind.LITERAL:
            blank = text.find("\n\n", start, until)
            end = min(blank if blank >= 0 else until, start + 8 * MAX_TAIL)
            start -= len(board.group()) if (board := _BOARD.search(match.group())) is not None else 0
        # A tail that the next phrase cuts off ends with its sentence too.
        cut_off = end == until < len(text) and "\n" not in text[max(start, until - 40) : until]
        sentence = groups.get("verb") is not None or _MARK.search(match.group()) is None or cut_off
        yield _Tail(start, end, sentence, groups.get("weak") is not None)
        until = match.start()


def _line_end(text: str, start: int, until: int) -> int:
    end = text.find("\n", start, until)
    return min(until if end < 0 else end, start + MAX_TAIL)


def _answer(text: str, tail: _Tail, kind: Kind, options: Sequence[str] | None) -> Span | None:
    start, end = tail.start, tail.end
    if kind is Kind.LITERAL and not options:
        return as_written(text, start, end, "final_answer")
    numeric = kind in (Kind.NUMBER, Kind.QUANTITY)
    if (numeric or options or tail.sentence) and (stop := _SENTENCE_END.search(text, start, end)):
        whole = end
        end = stop.start()
        number = _LAST_INTEGER.search(text, start, end)
        if text[end] == "!" and number is not None and not options and not is_exclamation(text, number.start(), end):
            end = min(stop.end(), whole)  # "5!" is a factorial
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
        start, end = word.span("word")
    formula = _FORMULA.match(text, start, end)
    if formula is not None and kind != Kind.TEXT and not re.search(r"[\d$\\]", text[formula.end() : end]):
        return as_written(text, *formula.span(formula.lastindex or 0), "final_answer")
    if kind in MATHEMATICS and (inner := _FORMULA.search(text, start, end)) is not None:
        beside = text[start : inner.start()] + text[inner.end() : end]
        if not re.search(r"[\d$\\]", beside) and not changes(beside, ""):
            return as_written(text, *inner.span(inner.lastindex or 0), "final_answer")
    if tail.sentence and (reason := _REASON.search(text, start, end)) is not None:
        end = reason.start()
    return as_written(text, start, end, "final_answer")


_LAST_INTEGER = re.compile(r"[0-9.,]+\Z")
_GIVES = re.compile(
    r"(?:,\s+|\s)(?:which|that|this|and)?\s?(?:is|gives|giving|equals|makes|making|yields|yielding"
    r"|comes to|amounts to)\s",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"\d")
# "7, roughly" and "7 (approximately)"; "1/6 (approximately 0.17)" is 1/6.
_HEDGE = re.compile(
    r"[,(*_$\s]+(?:roughly|approximately|approx\.?|give or take|maybe more|more or less|or so)[).*_$\s]*", re.IGNORECASE
)


def _number(text: str, start: int, end: int, kind: Kind) -> Span | None:
    stop = _CLAUSE_END.search(text, start, end)
    if stop is not None and _HEDGE.fullmatch(text, stop.start(), end) is not None:
        stop = None
    first_end = stop.start() if stop is not None else end
    for begin, finish in (
        (start, first_end),
        (start, end),
        *((m.end(), end) for m in _GIVES.finditer(text, start, end)),
    ):
        if single(as_read(text[begin:finish])) is not None:
            return as_written(text, begin, finish, "final_answer")
    raw = strip_markup(text[start:end])
    # "The answer is obtained by adding" states none; "the answer is twice 5" does, and no number before or behind it.
    if not raw or _COMMENT.fullmatch(raw) is not None:
        return None
    if _DIGIT.search(raw) is None and kind_of(raw) is Kind.TEXT and not _starts_with_value(raw):
        return None
    later = _DIGIT.search(text, end)
    if later is not None and not _starts_with_value(raw):
        return None
    return as_written(text, start, first_end if _DIGIT.search(text, start, first_end) else end, "final_answer")


_STARTS = re.compile(
    r"(?:[\s$({\[*=`]|[-+\u2212\u2013]|(?:approximately|about|exactly|only)\b)*+(?:\.?\d|[\u20ac\u00a3\u00a5]|\\?[dtc]?frac\b|\\)"
)


def _starts_with_value(text: str) -> bool:
    if _STARTS.match(text) is not None:
        return True
    words = text.split()
    return any(parse_number(" ".join(words[:n])) is not None for n in (1, 2, 3))
