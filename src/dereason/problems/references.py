r"""How the reference answers of a file are written: as values, behind a mark, as positions of options.

A file says nothing of these conventions, so they are found over the whole of it, said in words, and refused where two
of them fit. Marks: GSM8K's ``... #### 42``, whose answer is behind it, and MATH's ``... \boxed{42} ...``, whose answer
is in the last box (as MATH's own grader takes it); what stands around is the worked solution.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dereason.errors import DereasonError
from dereason.problems.files import Place, whole

AnswerIs = Literal["auto", "letter", "index0", "index1", "text"]
MAX_OPTIONS = 26
"""Options have letters."""
HASH = "####"

_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:]?")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_NO_NUMBERS = frozenset({"nan", "inf", "+inf", "-inf"})  # what a missing or overflown number becomes as text
_IN_WORDS = {
    "index0": "positions among the options, counted from 0",
    "index1": "positions among the options, counted from 1",
    "text": "texts of options",
    "letter": "letters of options",
}


class Reference(NamedTuple):
    """A row's reference, read."""

    answer: str | None
    """None where the row has none."""
    solution: str | None
    """What stood around its mark."""
    mark: str | None
    r"""``####``, ``\boxed``, or None."""


def options_of(value: Any, where: str) -> list[str] | None:
    """The options of a row; None where it has none.

    Args:
        value: a list of texts or numbers, or an object whose keys are the letters; a cell of CSV holds them as JSON.
        where: the row, for messages.

    Raises:
        DereasonError: something else, a single option, an empty or repeated one, or more than there are letters.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise DereasonError(f"{where}: options are a text that is not JSON", "give a list of texts") from exc
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, dict):
        held = {key: text for key, text in value.items() if text is not None}  # a table's struct has all keys
        if list(held) != [chr(ord("A") + at) for at in range(len(held))]:
            raise DereasonError(
                f"{where}: options are an object whose keys are not A, B, C ...", "give a list of texts"
            )
        value = list(held.values())
    texts = [_text(option) for option in value] if isinstance(value, list) else [None]
    if any(text is None for text in texts):
        raise DereasonError(f"{where}: options are no list of texts", "give a list of texts")
    options = [text.strip() for text in texts if text is not None]
    if len(options) < 2:
        raise DereasonError(f"{where}: a single option", "give every option, or none where the question is free-form")
    if len(options) > MAX_OPTIONS:
        raise DereasonError(
            f"{where}: {len(options)} options, and there are letters for {MAX_OPTIONS}",
            "give fewer, or none where the question is free-form",
        )
    for at, option in enumerate(options):
        if not option or option in options[:at]:
            what = f"the option {option!r} stands twice" if option else f"option {letter(at)} is empty"
            raise DereasonError(f"{where}: {what}", "mend the row: a response could not say which it means")
    return options


def letter(index: int) -> str:
    """The letter of an option."""
    return chr(ord("A") + index)


def reference_of(value: Any, where: str, marker: str | None = None) -> Reference:
    r"""Read a reference answer.

    Args:
        value: as it stands in the row: a text, a number, a boolean (``true`` and ``false``), or None.
        where: the row, for messages.
        marker: a text behind whose last occurrence the answer stands; None looks for ``####`` and boxes.

    Raises:
        DereasonError: an object or a list, NaN or an infinity, no marker, or a box that is not closed.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise DereasonError(f"{where}: the answer is {value}", "give the answer, or null where there is none")
    if isinstance(value, dict | list):
        inside = f" (it has {', '.join(value)})" if isinstance(value, dict) else ""
        kind = "an object" if isinstance(value, dict) else "a list"
        raise DereasonError(
            f"{where}: the answer is {kind}{inside}", "name the one answer inside it by dots, as in reward.ground_truth"
        )
    text = (_text(value) or "").strip()
    if not text:
        return Reference(None, None, None)
    if text.lower() in _NO_NUMBERS:
        raise DereasonError(
            f"{where}: the answer is {text!r}", "give the answer, or leave it empty where there is none"
        )
    if marker is not None:
        before, found, behind = text.rpartition(marker)
        if not found:
            raise DereasonError(
                f"{where}: no {marker!r} in the answer", "correct fields.answer_marker, or mend the row"
            )
        return Reference(_unboxed(behind.strip(), where).answer, before.strip() or None, marker)
    before, found, behind = text.rpartition(HASH)
    if found and behind.strip() and "\n" not in behind.strip() and not before.endswith("#"):
        return Reference(_unboxed(behind.strip(), where).answer, before.strip() or None, HASH)
    return _unboxed(text, where)


def _text(value: Any) -> str | None:
    """A value as a reference is written; None where it is missing or no single value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _unboxed(text: str, where: str) -> Reference:
    """The content of the last box, and the text as the solution where it is more than the box."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return Reference(text or None, None, None)
    start = boxes[-1].end()
    if text[start : start + 1] != "{":  # TeX takes one sign without braces; MATH has such solutions
        bare = re.match(r"[^\s$.,;]*", text[start:])
        end = start + (bare.end() if bare else 0)
        inside = text[start:end]
    else:
        depth = 0
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            if depth == 0:
                break
        else:
            raise DereasonError(
                f"{where}: the box in the answer is not closed", "mend the row, or give the answer alone"
            )
        inside, end = text[start + 1 : end], end + 1
    if not inside.strip():
        raise DereasonError(f"{where}: the box in the answer is empty", "mend the row, or give the answer alone")
    around = (text[: boxes[-1].start()] + text[end:]).strip(" \n\t$.\\()[]")
    return Reference(inside.strip(), text if around else None, "\\boxed")


def mark_notes(marks: Mapping[str, int]) -> list[str]:
    """What is said of marks that were found.

    Args:
        marks: of each mark, in how many answers.
    """
    where = {HASH: f"what stands behind {HASH}", "\\boxed": "the content of the last \\boxed{}"}
    return [
        f"{count:,} reference {'answer is' if count == 1 else 'answers are'} {where[mark]} in the answer field"
        for mark, count in marks.items()
    ]


@dataclass(frozen=True)
class Convention:
    """How answers beside options are meant in one file.

    Attributes:
        asked: the setting.
        numbers: what whole numbers are: ``index0``, ``index1`` or ``text``; None where there are none.
        letters: what single letters are where options are letters themselves: ``letter`` or ``text``.
        notes: what was decided, for people.
    """

    asked: AnswerIs = "auto"
    numbers: AnswerIs | None = None
    letters: AnswerIs = "letter"
    notes: list[str] = field(default_factory=list)

    def decides(self, answer: str) -> bool:
        """Whether there was something to find out; of other answers the verifier reads which option they name."""
        return self.asked != "auto" or self.letters == "text" or whole(answer) is not None

    def read(self, answer: str, options: Sequence[str], where: str) -> str:
        """The reference as the verifier takes it: a letter, or a text that names an option in the verifier's own way.

        Raises:
            DereasonError: the answer is none of the options.
        """
        number = whole(answer)
        kinds: list[AnswerIs]
        if self.asked != "auto":
            kinds = [self.asked]
        elif number is not None:
            kinds = [self.numbers or "text"]
        else:
            kinds = [self.letters, "text"]
        for kind in kinds:
            found = _READ[kind](answer, options)
            if found is not None:
                # a text names its option by itself, unless it is also the letter of another one
                own = kind == "text" and self.asked == "auto" and number is None and not _single(answer)
                return answer if own else letter(found)
        if self.asked == "auto" and number is None and not _single(answer):
            return answer  # "B. its text", "(B) or its text in other words": the verifier's to read
        as_what = f" as {_IN_WORDS[kinds[0]]}" if self.asked != "auto" or number is not None else ""
        raise DereasonError(
            f"{where}: the answer {_short(answer)} is none of the {len(options)} options{as_what}",
            "mend the row, or say what answers are with fields.answer_is",
        )


def convention(rows: Iterable[tuple[Place, str, Sequence[str]]], asked: AnswerIs, where: str) -> Convention:
    """Find out what the answers beside options are, over all rows of a file.

    Args:
        rows: of each row that has options: its place, its answer and the options.
        asked: the setting; ``auto`` finds out.
        where: the file, for messages.

    Raises:
        DereasonError: whole numbers fit two readings that differ, or none; or letters do.
    """
    if asked != "auto":
        return Convention(asked)
    numbers: list[tuple[Place, str, Sequence[str]]] = []
    letters: list[tuple[Place, str, Sequence[str]]] = []
    for place, answer, options in rows:
        if whole(answer) is not None:
            numbers.append((place, answer, options))
        elif _single(answer):
            letters.append((place, answer, options))
    notes = []
    decided = _only(numbers, ("text", "index0", "index1"), "the whole numbers", where) if numbers else None
    if numbers and decided is not None:
        notes.append(
            f"whole numbers that are answers beside options ({len(numbers):,}) are read as {_IN_WORDS[decided]} "
            f"(fields.answer_is: {decided})"
        )
    unclear = any(
        _as_text(a, o) not in (None, _as_letter(a, o)) and _as_letter(a, o) is not None for _, a, o in letters
    )
    named = _only(letters, ("letter", "text"), "letters", where) if unclear else None
    if named is not None and named == "text":
        notes.append("answers that are letters beside options that are letters too are read as texts of options")
    return Convention(asked, decided, named or "letter", notes)


def _only(
    rows: Sequence[tuple[Place, str, Sequence[str]]], kinds: Sequence[AnswerIs], what: str, where: str
) -> AnswerIs:
    """The reading that fits all rows."""
    fitting: dict[AnswerIs, list[int]] = {}
    refused: dict[AnswerIs, tuple[Place, str, Sequence[str]]] = {}
    for kind in kinds:
        found: list[int] = []
        for row in rows:
            at = _READ[kind](row[1], row[2])
            if at is None:
                refused[kind] = row
                break
            found.append(at)
        else:
            fitting[kind] = found
    if not fitting:
        place, answer, options = max(refused.values(), key=lambda row: row[0].number)
        raise DereasonError(
            f"{where}: {what} that are answers beside options fit no reading: {place} has {_short(answer)} among "
            f"{len(options)} options",
            "mend the row, or say what answers are with fields.answer_is",
        )
    if len({tuple(found) for found in fitting.values()}) > 1:
        differ = next(at for at in range(len(rows)) if len({found[at] for found in fitting.values()}) > 1)
        place, answer, options = rows[differ]
        meant = " or ".join(f"{options[_READ[kind](answer, options) or 0]!r} ({kind})" for kind in fitting)
        raise DereasonError(
            f"{where}: {what} that are answers beside options fit {' and '.join(fitting)}: in {place} {_short(answer)} "
            f"would be {meant}",
            f"say which with fields.answer_is ({', '.join(fitting)})",
        )
    return next(iter(fitting))


def _single(answer: str) -> bool:
    return _LETTER.fullmatch(answer.strip()) is not None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _as_letter(answer: str, options: Sequence[str]) -> int | None:
    found = _LETTER.fullmatch(answer.strip())
    index = ord(found.group(1).upper()) - ord("A") if found else len(options)
    return index if index < len(options) else None


def _as_index(answer: str, options: Sequence[str], first: int) -> int | None:
    number = whole(answer)
    return number - first if number is not None and 0 <= number - first < len(options) else None


def _as_text(answer: str, options: Sequence[str]) -> int | None:
    if answer.strip() in options:
        return list(options).index(answer.strip())
    number = whole(answer)  # a number may have passed through a table of floats
    equal = [at for at, option in enumerate(options) if number is not None and whole(option) == number]
    return equal[0] if len(equal) == 1 else None


_READ: dict[AnswerIs, Any] = {
    "letter": _as_letter,
    "index0": lambda answer, options: _as_index(answer, options, 0),
    "index1": lambda answer, options: _as_index(answer, options, 1),
    "text": _as_text,
}
