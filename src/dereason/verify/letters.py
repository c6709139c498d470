"""Choice letters: the option that a tail names, and the letter that concludes a response.

Never a first-letter guess ("A good answer ..."), never a random letter. Where a label and a text contradict each other
("C. Flash memory" with Flash memory at B), the label counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from dereason.verify.equivalence import option_index
from dereason.verify.options import labels
from dereason.verify.span import MAX_TAIL, MAX_TRIES, How, Span, trim
from dereason.verify.text import strip_markup

_DRESS = re.compile(r"(?:[\s*_`]|->|={1,2}>|>|#{1,6}\s|[-+\u2022]\s|\||\u21d2)*+")
_OPTION_WORD = re.compile(
    r"(?:(?:the|la|le|el|die|a)\s)?(?:option|choice|letter|answer|l'option|l'opzione|opción|opção|opzione|вариант"
    r"|选项|選項|選択肢)\b[\s:*_]*+(?=[(\[]?[A-Za-z]\b|[(\[]?[A-Z](?![A-Za-z]))|(?:la|le|el|die)\s(?=\(?(?-i:[A-Z])\)?\Z)",
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
    | (?<!不)(?:选择?|選擇?)\s?\uff1a?\s?([A-Z])(?![A-Za-z])""",
    re.VERBOSE,
)
# A clause that says nothing but which letter it is.
_LEAD = (
    r"(?:so|thus|hence|therefore|then|overall|finally|consequently|accordingly|clearly|but|and|well|ok|okay|yes|=>|\u2234|\u2192|\u21d2"
    r"|in (?:conclusion|summary|short)|as a result|for this reason|i (?:think|believe|guess|conclude"
    r"|would say|say)(?:\s+that)?"
    r"|leaving|leaves|which leaves|we conclude(?:\s+that)?|this (?:means|gives|leaves|implies)(?:\s+that)?)"
)
_SUBJECT = (
    r"(?:it|this|that|which|he|(?:the|my|our|your)?\s?(?:only|final|correct|right|best|closest|most likely|likely)?\s?"
    r"(?:answer|ans|option|choice|letter|one|pick|guess|response|solution|selection)"
    r"(?:\s+(?:here|there|(?:for|to|of)\s+(?:this|the|it|that|your|question|problem)(?:\s+(?:question|problem|one))?"
    r"|(?:that\s+)?(?:i|we)\s+(?:choose|chose|pick|picked|would choose|want)|(?:which|that)\s+(?:is"
    r"|seems|fits|matches|works)(?:\s+(?:correct|right|best))?"
    r"|chosen|is correct))?"
    r"|i(?:'ll|'d|\u2019ll|\u2019d|\s+will|\s+would|\s+must|\s+shall)?|we(?:'ll|\u2019ll|\s+will|\s+can|\s+should)?)"
)
_VERB = (
    r"(?:would have to be|is going to be|'m going with|am going with|going with|is|'s|\u2019s|are|was"
    r"|be|must be|has to be|have to be|should be|would be|will be|can only be|could only be|becomes|equals"
    r"|(?:looks|seems) like|comes out (?:as|to be)|turns out to be|seems to be|appears to be|remains|say|pick|choose"
    r"|answer|select|take|go (?:with|for)"
    r"|chose|picked|:|-|\u2013|\u2014|=|\uff1a)"
)
_ADVERB = (
    r"(?:probably|clearly|indeed|then|therefore|thus|hence|in fact|definitely|(?:most )?likely"
    r"|obviously|simply|just|actually|certainly"
    r"|surely|again|now|also|only|still|undoubtedly|of course|necessarily|exactly|most probably)"
)
_CLAUSE = re.compile(
    rf"(?:{_LEAD}[\s,:]+)*(?:{_SUBJECT}(?=\W)\s*)?(?:{_ADVERB}\s+)*(?:{_VERB}\s*)?(?:{_ADVERB}\s+)*(?:(?:the\s+)?(?:option|choice|letter|answer)\s*:?\s*)?"
    r"[\"'(\[\u3010\u201c*_]{0,4}(?-i:([A-Z]))[\"')\]\u3011\u201d*_]{0,4}"
    r"(?:\s+(?:remains|(?:is|was|seems|must be|would be|has to be)\s+(?:the\s+)?(?:correct|right|best"
    r"|only|true)?\s?(?:answer|option|choice|one(?:\s+left)?|left)?(?:\s+(?:because|since)\s.*)?"
    r"|right|correct|it is)|(?<=\))\s+[^,;]{1,60}\s(?:is|was)\s+(?:right|correct|true)"
    r"|\s*[-\u2013\u2014]\s.*|\s*:\s.*)?[.!\s]*",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"(?:[^\w'\u2019]*[A-Z](?![\w'\u2019]))+\W*")
_PARTS = re.compile(r"\s*(?:[,;/|]|\b(?:and|or)\b)\s*")
_LABELS = re.compile(r"(?<![^\W_])\(?([A-Z])[.:)]\s*(?=(.*))", re.DOTALL)
_CALLED_WRONG = re.compile(
    r"\b(?:wrong|incorrect|false)\s+(?:answers?|options?|choices?|letters?)(?:\s+(?:is|are|would be))?\s*:"
    r"\s*\(?[A-Z]\)?[.!\s]*\Z",
    re.IGNORECASE,
)
_ALL_BUT = re.compile(r"\b(?:all|any\w*|every\w*|none|nothing) (?:but|except)\b", re.IGNORECASE)
_SAYS_TEXT = re.compile(
    rf"(?:{_LEAD}[\s,:]+)*{_SUBJECT}\s*{_VERB}\s+(?:{_ADVERB}\s+)*(.{{1,200}}?)[.!\s]*", re.IGNORECASE
)
_LEAVES = re.compile(r"\bleav(?:es|ing)\s+(?:us\s+with\s+)?(?:only\s+)?(?:option\s+)?\(?([A-Z])\)?[.!\s]*\Z")
_CLAUSES = re.compile(
    r"[,;.!:\u3002\uff0c\n]+(?:\s+|\Z)|(?<=[\u3002\uff0c])|\s+(?=(?:so|but|therefore|hence|leaving)\s)"
)
_TWO_LETTERS = re.compile(
    r"\b(?:or|and|oder|und|ou|et|o|y|e|или|и)\s+"
    + _LETTER
    + r"|[或和、]\s?"
    + _LETTER
    + r"|^\s*\(?[A-Z]\)?\s*[,/&]\s*\(?[A-Z]\)?(?![\w'])"
)
_IS_THE_ANSWER = re.compile(
    r"(?<!\w)\(?([A-Z])(?:\)|[.:)][^\n.]{1,100}?)?[*_]{0,3}\s+is\s+the\s+(?:(?:correct|right|best)\s+)?(?:answer|option|choice)\b"
    r"(?![^\n.!]{0,100}\?)"
)
_NOT = re.compile(
    r"\b(?:not|never|\w+n['\u2019]t|cannot|except|neither|nor|rule[sd]?\s+out|ruling\s+out|exclud(?:es?|ed|ing)"
    r"|eliminat(?:es?|ed|ing)|wrong|incorrect|false|unlikely|if|unless|instead of|rather than|than)\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\s(?:because|since|as)\s")
_BESIDE = re.compile(r",|\(not\b")  # "C, because B is wrong", "C (not A)"
_LABEL = re.compile(r"\s*[*_]{0,2}(?:\([A-Z]\)|[A-Z][.):])")


def _letter_span(text: str, start: int, end: int, letter: str, how: How) -> Span:
    """Where a letter stands by itself in a stretch of the text."""
    found = list(re.finditer(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", text[start:end]))
    if not found:
        return Span(letter, start, end, how)
    return Span(letter, start + found[-1].start(), start + found[-1].end(), how)


def choice_in(text: str, start: int, end: int, options: Sequence[str], how: How) -> Span | None:
    """The option that a tail names: by itself, by a letter at its head, or in a clause that says nothing else."""
    start, end = trim(text, start, end)
    if start >= end or _is_list(text, start):
        return None
    raw = text[start:end]
    bare = strip_markup(raw if raw.isascii() else unicodedata.normalize("NFKC", raw))
    if option_index(bare, options) is not None:
        return Span(raw, start, end, how)
    if (word := _OPTION_WORD.match(bare)) is not None:
        bare = bare[word.end() :]
        if option_index(bare, options) is not None:
            return Span(bare, start, end, how)
    if _names_several(bare, options):
        return Span(raw, start, end, how)  # all options said again, or "red, green": an answer, and a wrong one
    head = _HEAD.match(bare)
    told = _REASON.split(bare, maxsplit=1)[0]
    if head is not None and _TWO_LETTERS.search(told):
        return Span(raw, start, end, how)  # "(C) or (G)" is an answer, and a wrong one
    if head is not None:
        letter = head.group(1) or head.group(2)
        denied = _NOT.search(_BESIDE.split(told, maxsplit=1)[0])
        if option_index(letter, options) is not None and denied is None:
            found = re.search(rf"(?<![A-Za-z\\]){re.escape(letter)}(?![A-Za-z])", raw)
            place = (start + found.start(), start + found.end()) if found else (start, end)
            return Span(letter, *place, how)
    letter_found = _in_clauses(bare, options)
    if letter_found is not None:
        return _letter_span(text, start, end, letter_found, how)
    # "No, it is not.": the option before a comma.
    first, comma, _ = bare.partition(",")
    if comma and option_index(first, options) is not None and len(first) > 1:
        return Span(first, start, start + len(first), how)
    return None


def _names_several(bare: str, options: Sequence[str]) -> bool:
    """Whether a tail is a list of options: of letters and nothing else, of texts, or of labels with their texts."""
    if _LETTERS.fullmatch(bare) is not None:
        return len(set(re.findall("[A-Z]", bare))) > 1
    parts = [part for part in _PARTS.split(bare) if len(part) > 1]
    if len(parts) > 1 and len({option_index(part, options) for part in parts} - {None}) > 1:
        return True
    own = [label.casefold().strip() for label in labels(options)]
    found = {
        match[1]
        for match in _LABELS.finditer(bare)
        if (at := ord(match[1]) - ord("A")) < len(own) and own[at] and match[2].casefold().startswith(own[at])
    }
    return len(found) > 1


def _in_clauses(bare: str, options: Sequence[str]) -> str | None:
    """The letter of the last clause that says nothing but a letter; clauses that deny one are passed over."""
    if len(bare) > MAX_TAIL:
        return None
    if _ALL_BUT.search(bare) is not None or _CALLED_WRONG.search(bare) is not None:
        return None
    leaves = _LEAVES.search(bare)
    if leaves is not None and option_index(leaves[1], options) is not None:
        return leaves[1]
    clauses = [clause.strip() for clause in _CLAUSES.split(bare)]
    for place, clause in enumerate([clause for clause in clauses if clause][::-1][:4]):
        if place and len(clause) == 1:
            return None  # a label: "A. What I would exclude"
        if _NOT.search(clause) is not None:
            continue
        match = _CLAUSE.fullmatch(clause)
        if match is not None and _sure_letter(clause, match) and option_index(match[1], options) is not None:
            return match[1]
        said = _SAYS_TEXT.fullmatch(clause)
        named = option_index(said[1], options) if said is not None and len(said[1]) > 1 else None
        if named is not None:
            return chr(ord("A") + named)
        if re.search(_LETTER, clause) is not None or _TWO_LETTERS.search(clause) is not None:
            return None
    return None


def _sure_letter(clause: str, match: re.Match[str]) -> bool:
    """ "I" and "A" at the head of a clause are words."""
    return match[1] not in "AI" or match.start(1) > 0 or match.end(1) == len(clause.rstrip(" .!)"))


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


def concluding_letter(text: str, options: Sequence[str]) -> Span | None:
    """A choice letter that stands for the answer by its place or its words.

    In this order: in the last line ("(B)", "B.", "B. its text", "... option B.", "So it must be B."); "B is the correct
    answer" anywhere; alone in the first line ("(B)" or "B. its text", with an explanation below).
    """
    found = _last_line(text, options)
    if found is None:
        for match in reversed(list(_IS_THE_ANSWER.finditer(text))[-MAX_TRIES:]):
            if option_index(match[1], options) is not None:
                return Span(match[1], *match.span(1), "letter")
        found = _first_line(text, options)
    return found


def _first_line(text: str, options: Sequence[str]) -> Span | None:
    dress = _DRESS.match(text)
    start = dress.end() if dress else 0
    end = text.find("\n", start)
    if end < 0 or end - start > MAX_TAIL or option_index(text[start:end], options) is None:
        return None
    below = _DRESS.match(text, end)
    after = below.end() if below else end
    if _LABEL.match(text, after) or _other_letter(text[start:end], text[after:].split("\n", 1)[0]):
        return None  # a list of options
    start, end = trim(text, start, end)
    return Span(text[start:end], start, end, "letter")


def _other_letter(one: str, other: str) -> bool:
    """Whether two lines are a letter each, and not the same one."""
    letters = [strip_markup(line).strip(" ()[]\u3010\u3011.:") for line in (one[:MAX_TAIL], other[:MAX_TAIL])]
    return all(len(letter) == 1 and letter.isalpha() for letter in letters) and letters[0] != letters[1]


def _last_line(text: str, options: Sequence[str]) -> Span | None:
    end = len(text.rstrip())
    line = text.rfind("\n", 0, end) + 1
    if end - line > MAX_TAIL:
        line = end - MAX_TAIL
    dress = _DRESS.match(text, line, end)
    start = dress.end() if dress else line
    bare = strip_markup(unicodedata.normalize("NFKC", text[start:end].rstrip("| ")))
    if len(bare.strip("()[]\u3010\u3011 ")) == 1 and option_index(bare, options) is not None:
        lines = text[:line].rstrip()
        if _other_letter(bare, lines[lines.rfind("\n") + 1 :]):
            return None  # "A" above "B" above "C"
        return Span(bare, start, end, "letter")
    if _LABEL.match(text, start, end):
        # The last line of a restated list of options is no conclusion.
        before = text[:line].rstrip()
        at = before.rfind("\n") + 1
        above = _DRESS.match(before, at)
        listed = _LABEL.match(before, above.end() if above else at)
        if listed:
            return None
        if option_index(bare, options) is not None:
            return Span(text[start:end], start, end, "letter")
    elif not text[:line].strip() and len(bare) <= 200 and option_index(bare, options) is not None:
        return Span(text[start:end], start, end, "letter")  # the whole response is an option
    letter = _in_clauses(bare, options)
    if letter is not None:
        return _letter_span(text, start, end, letter, "letter")
    named = list(_NAMED.finditer(text, start, end))
    letters = {match.group(match.lastindex or 0) for match in named}
    if len(letters) != 1 or _TWO_LETTERS.search(text, start, end) or _NOT.search(text, start, end):
        return None
    letter = letters.pop()
    if option_index(letter, options) is None:
        return None
    return Span(letter, *named[-1].span(named[-1].lastindex or 0), "letter")
