"""Responses to sentences: the steps of a reasoning graph.

Ordinary splitters stumble over what reasoning is full of. Here a *sentence* ends

- at a full stop, question or exclamation mark that is followed by white space and by what can begin a sentence; not at
  the stop of a decimal, an abbreviation, an initial, a list marker (``2.``, ``B.``), a reference (``Eq. 3``), a
  factorial, nor at an ellipsis inside a series;
- at a line break, unless a wrapped paragraph goes on behind it;
- before and after a code fence, which is one piece however long it is.

Formulas (``$..$``, ``\\(..\\)``, ``\\[..\\]``, ``$$..$$``, ``\\begin{align}..``), ``\\boxed{..}`` and `` `code` `` are
never cut. A display formula belongs to the unfinished sentence before it ("Substituting:"), and what goes on in
lower case behind it ("where ...") belongs to it; of several in a row each is a sentence. A piece without a letter or
digit (a rule, a table's border) stays with the piece before it.

The paper (arXiv 2509.21128) says only that responses are split into sentences; these rules are ours. They know English
(abbreviations, words that begin a sentence) and the stops of Chinese, Japanese and Hindi.
"""

# ruff: noqa: RUF001 - quotation marks and stops of other scripts are meant

from __future__ import annotations

import re

# What must not be cut is covered, character by character, with these before anything is split. All are letters to
# no one: private use, and replaced in a text that has them.
_INLINE, _DISPLAY, _ENDED, _FENCE = "\ue000", "\ue001", "\ue002", "\ue003"
_COVERS = re.compile("[\ue000-\ue003]")

_ENVIRONMENTS = (
    r"(?:equation|align|aligned|alignat|gather|gathered|multline|eqnarray|displaymath|math|array|[bBpvV]?matrix"
    r"|smallmatrix|cases|split|tabular)\*?"
)
_OPENINGS = re.compile(
    r"^[ \t]*(?P<fence>```+|~~~+)|(?P<dollars>\$\$)|(?P<bracket>\\\[)|\\begin\{(?P<environment>"
    + _ENVIRONMENTS
    + r")\}"
    r"|\\\$|(?P<dollar>\$)(?!\s)|(?P<round>\\\()|(?P<tick>`)|(?P<boxed>\\(?:boxed|fbox|text|mathrm)\{)",
    re.MULTILINE,
)
_TABLE_ROW = re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)
_DOLLAR_ENDS = re.compile(r"(?:\\.|[^$\\\n])*(?<!\s)\$(?!\d)")
_BRACES = re.compile(r"[{}\n]")
_LONGEST_BRACES = 1000  # an unclosed \boxed{ is looked after no further

_CLOSERS = r"""[)\]}"'”’»*_`]*"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STARTERS = _words(
    "a an the this that these those there here it its i he she they we you our their my your his her let so then thus "
    "therefore hence now since because as if when while although though however but and or for from in on at by with "
    "to of after before finally first firstly second secondly third thirdly next lastly also again similarly likewise "
    "moreover furthermore additionally otherwise instead consequently accordingly suppose assume consider given note "
    "recall observe notice using use applying apply substituting substitute solving solve simplifying simplify "
    "plugging rearranging dividing multiplying adding subtracting taking find finding calculate calculating compute "
    "computing determine evaluate check checking wait hmm okay ok yes no not alternatively actually maybe perhaps "
    "what which who how why where is are was were does do can could would should will step answer conclusion question "
    "both all each every any some none one two three only once according based looking equivalently combining "
    "converting setting denote define write show prove"
)
"""Words that begin sentences; they settle what a stop behind a capital letter or a rare abbreviation is."""
_LOWER_STARTERS = _words(
    "the this these those there it its he she they we you our their let so then thus therefore hence now since because "
    "if when while although though however but finally next also again similarly moreover furthermore suppose assume"
)
"""Those that begin one in lower case too, in careless text."""

_CANDIDATE = re.compile(
    r"(?<![.!?…])(?P<stop>[.!?…]++)(?P<closers>" + _CLOSERS + r"+)(?=[^\S\n]++\S)"
    r"|(?<=[a-z0-9)\]%])\.(?=(?P<glued>" + "|".join(sorted({w.capitalize() for w in _STARTERS if len(w) > 1})) + r")\s)"
    r"|(?P<cjk>(?<![。！？｡।])[。！？｡।]++[」』”’）》】)\"']*+)(?=[^\S\n]*+[^\s,，、])"
    r"|(?P<line>(?<![^\S\n])[^\S\n]*+\n\s*+)"
    r"|(?P<display>\ue001+\ue002*)"
    r"|(?P<fence>\ue003+)"
)
_NEXT = re.compile(r"""\s*["'“‘«(\[{*_`]*(\S)""")
_NEXT_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
_VARIABLE = re.compile(r"[a-z](?:[_^]\w+)?\s*[=≈<>≤≥]")

_MARKER = re.compile(
    r"[\s>#*_(]*(?:\d{1,3}|[A-Za-z]|[ivx]{1,4}|[IVX]{1,4}|"
    r"(?:step|case|part|problem|question|option|example|theorem|lemma|claim|method|note|solution)\s+(?:\d{1,3}|[A-Z]|[IVX]{1,4}))"
    r"[.)]?[)*_]*",
    re.IGNORECASE,
)
_MARKER_LINE = re.compile(r"[\s>#*_]*(?:[-+•◦▪]|\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)]|\|)(?=\s|\||$)[*_]*")

_NEVER = _words(
    "e.g i.e eg ie cf viz vs approx resp w.r.t s.t a.k.a ca dr mr mrs ms prof messrs sgt capt lt gov sen hon"
)
_REFERENCES = _words(
    "eq eqs eqn eqns fig figs sec sect ch chap ref refs thm def lem prop cor ex tab vol art no nos p pp para "
    "jan feb mar apr jun jul aug sep sept oct nov dec c"
)
"""Abbreviations before a number, words or units elsewhere."""
_SELDOM = _words("al inc ltd co corp jr sr st mt ave dept univ ph.d v gen rev")
"""Abbreviations that may also end a sentence."""
_INITIAL = re.compile(r"\s+[A-Z]\.\s")
_ACRONYM = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_UNFINISHED = _words("the a an of and or is are was to in by with for that from at as we be than into its = +")
"""A line that ends with one of these goes on in the next."""
_WRAPPED = re.compile(
    r"(?!(?:sin|cos|tan|log|ln|exp|sqrt|lim|max|min|arg)\b)[a-z]{2,}(?:[-'][a-z]+)?[,;:.)]?(?:\s+[^\s=≈<>≤≥]|\s*$)",
    re.M,
)
_GOES_ON = re.compile(r"(?:where|which|and|or|with|so that|because|for|if|when|is|are|such that)\b(?!\s*[=(])")
_SHORTEST_WRAPPED = 50  # characters: people and tools wrap lines at 60 and more
_ENDS = re.compile(r"[.!?。！？]" + _CLOSERS + r"\Z")
_WORD = re.compile(r"\w")


def split(text: str) -> list[str]:
    """The sentences of a text, in order.

    Runs of white space inside a sentence become one blank, except in code fences. Joined, the sentences are the text
    but for its white space. Time is linear in the text: about a millisecond for 4,000 characters.
    """
    masked = _cover(text)
    pieces: list[str] = []
    start = 0
    for end in [*_boundaries(masked), len(text)]:
        piece, is_code = text[start:end].strip(), masked[start:end].lstrip().startswith(_FENCE)
        start = end
        if not piece:
            continue
        piece = piece if is_code else " ".join(piece.split())
        if (pieces and not _WORD.search(piece)) or (pieces and not _WORD.search(pieces[-1])):
            pieces[-1] += " " + piece
        else:
            pieces.append(piece)
    return pieces


def _cover(text: str) -> str:
    """The text with formulas and code covered, of the same length."""
    masked = _COVERS.sub("x", text)
    if "|" in masked:
        masked = _TABLE_ROW.sub(lambda row: row[0].replace(".", _INLINE), masked)
    if not any(sign in masked for sign in "$\\`~"):
        return masked
    parts: list[str] = []
    done = at = 0
    missing: set[str] = set()  # closings that the rest of the text does not have
    while opening := _OPENINGS.search(masked, at):
        kind = opening.lastgroup
        begin, at = opening.start(), opening.end()
        if kind is None:  # an escaped dollar
            continue
        end, cover = _closing(masked, opening, kind, missing)
        if end is None:
            continue
        parts += [masked[done:begin], _covered(masked[begin:end], cover)]
        done = at = end
    return "".join([*parts, masked[done:]])


def _closing(masked: str, opening: re.Match[str], kind: str, missing: set[str]) -> tuple[int | None, str]:
    """Where an opening's formula or code ends, and its cover; None where it is none."""
    at = opening.end()
    if kind == "dollar":
        ends = _DOLLAR_ENDS.match(masked, at)
        return (ends.end() if ends else None), _INLINE
    if kind == "boxed":
        return _closing_brace(masked, at), _INLINE
    if kind == "tick":
        end = masked.find("`", at)
        return (end + 1 if end >= 0 and masked.find("\n", at, end) < 0 else None), _INLINE
    if kind == "fence":
        mark = opening["fence"]
        close = re.compile(rf"^[ \t]*{mark}[`~]*[ \t]*$", re.MULTILINE).search(masked, at)
        return (close.end() if close else len(masked)), _FENCE  # an unclosed one was cut off
    closing = {"dollars": "$$", "bracket": "\\]", "round": "\\)"}.get(kind) or f"\\end{{{opening['environment']}}}"
    end = -1 if closing in missing else masked.find(closing, at)
    if end < 0:
        missing.add(closing)
    if kind == "round":
        return (end + 2 if end >= 0 else None), _INLINE
    if end >= 0:
        return end + len(closing), _DISPLAY
    blank = masked.find("\n\n", at)  # cut off, or forgotten
    return (blank if blank >= 0 else len(masked)), _DISPLAY


def _closing_brace(masked: str, at: int) -> int | None:
    """Behind the brace that closes the one before ``at``, on the same line."""
    depth = 1
    for brace in _BRACES.finditer(masked, at, at + _LONGEST_BRACES):
        if brace[0] == "\n":
            return None
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return None


def _covered(span: str, cover: str) -> str:
    """A cover of the same length that still shows whether the formula ends with a full stop."""
    if cover == _FENCE:
        return _FENCE * len(span)
    stripped = span.rstrip("$)]\\ \n\t}")
    ended = stripped.endswith((".", "?")) and "begin{" not in span
    if cover == _DISPLAY:
        return _DISPLAY * (len(span) - 1) + (_ENDED if ended else _DISPLAY)
    if ended:
        return _INLINE * (len(stripped) - 1) + stripped[-1] + ")" * (len(span) - len(stripped))
    return _INLINE * len(span)


def _boundaries(masked: str) -> list[int]:
    """Where sentences end."""
    found: list[int] = []
    start = 0
    for candidate in _CANDIDATE.finditer(masked):
        kind = candidate.lastgroup
        begin, end = candidate.span()
        if kind == "closers":
            cuts = [end] if _stops(masked, start, candidate) else []
        elif kind == "line":
            cuts = [end] if _breaks(masked, start, begin, end) else []
        elif kind == "display":
            cuts = _around_display(masked, start, begin, end)
        else:  # a fence, a stop glued to the next sentence, or one of an Asian script
            cuts = [end]
        found += cuts
        start = cuts[-1] if cuts else start
    return found


def _stops(masked: str, start: int, candidate: re.Match[str]) -> bool:
    """Does the sentence that began at ``start`` end at this stop, which white space follows?"""
    stop, at = candidate["stop"], candidate.start()
    following = _NEXT.match(masked, candidate.end())
    assert following is not None  # the stop's pattern looked ahead
    first, then = following[1], following.start(1)
    named = _NEXT_WORD.match(masked, then)
    word = named[0].lower() if named else ""
    starter = word in _STARTERS and first.isupper()
    if first.islower():
        opens = stop in ".!?" and (word in _LOWER_STARTERS or _VARIABLE.match(masked, then) is not None)
    else:
        negative = first in "-−" and masked[then + 1 : then + 2].isdigit()
        opens = first.isalnum() or first in "$\\•◦▪→⇒∴✓" + _INLINE or negative
    if not opens:
        return False
    tokens = masked[max(start, at - 40) : at].split()
    before = tokens[-1].lstrip("([{\"'“‘*_") if tokens and not masked[at - 1].isspace() else ""
    if stop.startswith("…") or (len(stop) > 1 and stop.count(".") == len(stop)):
        return starter or (first.isupper() and before != "")
    if stop[0] == "!" and (len(before) == 1 or before[-1:] in "0123456789)]}" + _INLINE):
        return starter  # a factorial
    if stop != ".":
        return True
    if _MARKER.fullmatch(masked, start, candidate.end()):
        return False
    return _full_stop(masked, at, before, tokens[-2] if len(tokens) > 1 else "", first, starter)


def _full_stop(masked: str, at: int, before: str, earlier: str, first: str, starter: bool) -> bool:
    """Is the single stop at ``at``, between ``before`` and what begins with ``first``, more than an abbreviation's?"""
    lower = before.lower()
    if lower in _NEVER:
        return False
    if lower in _REFERENCES and (first.isdigit() or first in (_INLINE, "\\") or masked[at + 2 : at + 3] == "("):
        return False
    if earlier.endswith(":") and before == "1":
        return False  # "do this: 1. Find ..."
    if len(before) == 1 and before.isupper():
        return _after_capital(masked, at, before, earlier, starter)
    if lower in _SELDOM or _ACRONYM.fullmatch(before):
        return starter
    return True


def _after_capital(masked: str, at: int, letter: str, earlier: str, starter: bool) -> bool:
    """Does a sentence end at ``letter.``, which may be an initial, an option's label, a unit or a point's name?"""
    if _INITIAL.match(masked, at + 1) or _labels(masked, at, letter):
        return False
    # not in "John F. Kennedy", "J. S. Bach", "by J. Smith"
    return starter or not (earlier.istitle() or earlier in ("", "by"))


def _labels(masked: str, at: int, letter: str) -> bool:
    """Is ``letter.`` one of three labels in a row on its line, as in "A. 5 B. 6 C. 7"?"""
    low, high = masked.rfind("\n", max(0, at - 300), at) + 1, masked.find("\n", at, at + 300)
    line = masked[max(low, at - 300) : high if high >= 0 else at + 300]
    there = [f" {chr(ord(letter) + step)}. " in f" {line}" for step in (-2, -1, 1, 2)]
    return (there[0] and there[1]) or (there[1] and there[2]) or (there[2] and there[3])


def _breaks(masked: str, start: int, begin: int, end: int) -> bool:
    """Does the sentence end at this line break, which reaches from ``begin`` to ``end``?"""
    line = masked[max(start, masked.rfind("\n", 0, begin) + 1) : begin]
    if end == len(masked) or not line.strip():
        return False
    following = masked[end]
    if following in (_DISPLAY, _FENCE):
        return following == _FENCE  # before a display formula: _around_display
    if _MARKER.fullmatch(line) and line.rstrip("*_").endswith((".", ")")) and not _MARKER_LINE.match(masked, end):
        return False  # a marker on a line of its own
    last = line.rstrip()[-1]
    if last == _DISPLAY:
        return not following.islower() or bool(_VARIABLE.match(masked, end))
    if masked.count("\n", begin, end) > 1 or _ENDS.search(line) or last in ":;" or _MARKER_LINE.match(masked, end):
        return True
    if line.split()[-1].lower() in _UNFINISHED or (last == "," and len(line) >= _SHORTEST_WRAPPED):
        return False
    goes_on = _GOES_ON.match(masked, end) is not None
    return not (goes_on or (len(line) >= _SHORTEST_WRAPPED and _WRAPPED.match(masked, end) is not None))


def _around_display(masked: str, start: int, begin: int, end: int) -> list[int]:
    """Ends of sentences before and behind a display formula."""
    cuts = []
    sofar = masked[max(start, begin - 40) : begin].rstrip()
    if sofar and (_ENDS.search(sofar) or sofar[-1] in (_DISPLAY, _ENDED)):
        cuts.append(begin)
    rest = _NEXT.match(masked, end)
    if rest and (masked[end - 1] == _ENDED or rest[1].isupper()):
        cuts.append(end)
    return cuts
