"""From rows, whatever their fields are called, to a PROBLEM table."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from pydantic import Field, field_validator

from dereason.characters import whole_text
from dereason.errors import DereasonError
from dereason.problems.files import Place, Row, field, finite, name_of
from dereason.problems.references import HASH, AnswerIs, Convention, convention, mark_notes, options_of, reference_of
from dereason.problems.schema import Origin, frame
from dereason.settings import Settings


class Fields(Settings):
    """Which fields of the data hold what. A name with dots leads inside: `reward_model.ground_truth`."""

    id: str | None = "id"
    """Unique id, a text or a whole number; null, or no field `id` in any row, numbers the rows."""
    question: str = "question"
    """The question's text; of a list of messages for example `prompt.0.content`."""
    answer: str = "answer"
    """The reference answer."""
    domain: str = "domain"
    """The domain; rows without it get the source's name."""
    options: str = "options"
    """Answer options, where there are any: a list of texts, or an object whose keys are the letters."""
    solution: str = "solution"
    """A worked solution, where there is one."""
    answer_is: AnswerIs = "auto"
    """What an answer beside options is: a letter, a position counted from 0 or from 1, or an option's text. `auto`
    finds out over all rows what whole numbers are, says so, and refuses where two readings fit."""
    answer_marker: str | None = Field(default=None, min_length=1)
    """Text in the answer field behind whose last occurrence is the answer, before it the solution. GSM8K's `####` and
    MATH's box are found without."""
    solution_remove: str | None = None
    """Regular expression whose matches are taken out of solutions (GSM8K's calculator notes: `<<[^>]*>>`)."""

    @field_validator("solution_remove")
    @classmethod
    def _pattern(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                re.compile(text)
            except (re.error, RecursionError, OverflowError) as exc:
                raise ValueError(f"no regular expression: {exc}") from exc
        return text


@dataclass(frozen=True)
class Loaded:
    """Problems with where they stand.

    Attributes:
        table: PROBLEM table; answers may be null.
        where: file or data set.
        places: of each row of the table.
        notes: how the data was read where it could be read in several ways, in words.
    """

    table: pl.DataFrame
    where: str
    places: Sequence[Place]
    notes: Sequence[str] = ()


def problems_of(
    rows: Sequence[tuple[Place, Row]], fields: Fields, where: str, name: str, limit: int | None = None
) -> Loaded:
    """Rows as a PROBLEM table.

    Args:
        rows: with their places.
        fields: which fields hold what.
        where: the file, for messages.
        name: domain and source of rows that name none.
        limit: take only the first rows; what answers are is found over all.

    Raises:
        DereasonError: no rows, a field that no row has, or a row that cannot be used (named).
    """
    if not rows:
        raise DereasonError(f"{where}: no problems in it", "check the file or the split")
    fields = _present(rows, fields, where)
    reader = _Reader(fields, where, name, _found(rows, fields, where))
    taken = rows[:limit]
    table = frame("problem", [reader.problem(place, row, at) for at, (place, row) in enumerate(taken, 1)])
    return Loaded(table, where, [place for place, _ in taken], reader.notes())


@dataclass(frozen=True)
class Refused:
    """A row that is no problem.

    Attributes:
        place: where it stands.
        id: its id, None where it has none.
        cause: what is wrong with it.
    """

    place: Place
    id: str | None
    cause: str


def sound_rows(
    rows: Sequence[tuple[Place, Row]], fields: Fields, where: str, name: str
) -> tuple[list[tuple[Place, Row]], list[Refused], Fields]:
    """The rows that :func:`problems_of` takes, those that it refuses, and the fields with what answers are.

    A file with a row that is refused is refused whole by everything else. What the others' answers beside options are
    is then found by which reading leaves the fewest rows over.

    Args:
        rows: with their places.
        fields: which fields hold what.
        where: the file, for messages.
        name: domain and source of rows that name none.

    Raises:
        DereasonError: a field that no row has.
    """
    named = _present(rows, fields, where)
    readings: list[AnswerIs] = [fields.answer_is]
    if fields.answer_is == "auto" and any(field(row, fields.options) is not None for _, row in rows):
        readings += ["index0", "index1"]
    tried = [(_apart(rows, named, where, name, reading), reading) for reading in readings]
    fewest = min(len(refused) for (_, refused), _ in tried)
    best = [one for one in tried if len(one[0][1]) == fewest]
    (sound, refused), reading = best[0] if len(best) == 1 else tried[0]  # which of two it is, no row says
    return sound, refused, fields.model_copy(update={"answer_is": reading})


def _apart(
    rows: Sequence[tuple[Place, Row]], fields: Fields, where: str, name: str, reading: AnswerIs
) -> tuple[list[tuple[Place, Row]], list[Refused]]:
    sound: list[tuple[Place, Row]] = []
    refused: list[Refused] = []
    alone = fields.model_copy(update={"answer_is": reading})
    for at, (place, row) in enumerate(rows, 1):
        try:
            found = _found([(place, row)], alone, where)
            problem = _Reader(alone, where, name, found).problem(place, row, at)
        except DereasonError as exc:
            id = None if fields.id is None else name_of(field(row, fields.id))
            refused.append(Refused(place, id, exc.cause.removeprefix(f"{where}: ").removeprefix(f"{place}: ")))
            continue
        if problem["answer"] is None:
            refused.append(Refused(place, str(problem["id"]), "it has no answer"))
        else:
            sound.append((place, row))
    return sound, refused


def _present(rows: Sequence[tuple[Place, Row]], fields: Fields, where: str) -> Fields:
    """Refuse a name that somebody gave and no row has; a missing `id` numbers the rows."""
    for role in ("id", "answer", "domain", "options", "solution"):
        named = getattr(fields, role)
        if named is None or any(field(row, named) is not None for _, row in rows):
            continue
        if named != Fields.model_fields[role].default:
            raise DereasonError(
                f"{where}: no row has the field {named!r} (the first has {_keys(rows[0][1])})",
                f"name the right field under fields.{role}",
            )
        if role == "id":
            fields = fields.model_copy(update={"id": None})
    return fields


def _found(rows: Sequence[tuple[Place, Row]], fields: Fields, where: str) -> Convention:
    """What answers beside options are, by all rows."""
    found = []
    for place, row in rows:
        options = options_of(field(row, fields.options), f"{where}: {place}")
        answer = None if options is None else reference_of(field(row, fields.answer), f"{where}: {place}").answer
        if options is not None and answer is not None:
            found.append((place, answer, options))
    return convention(found, fields.answer_is, where)


_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False)  # making one for every row would take most of the time


def _metadata(rest: Row) -> str:
    """What else the row said, as JSON that every reader takes."""
    try:
        return _ENCODER.encode(rest)
    except ValueError:
        return _ENCODER.encode(finite(rest))


def _keys(row: Row) -> str:
    return ", ".join(row) or "none"


class _Reader:
    """Makes problems of rows, and counts what it had to decide."""

    def __init__(self, fields: Fields, where: str, name: str, meant: Convention) -> None:
        self.fields, self.where, self.name, self.meant = fields, where, name, meant
        named = (fields.id, fields.question, fields.answer, fields.domain, fields.options, fields.solution)
        self.used = {each for each in named if each is not None}
        self.marks: Counter[str] = Counter()
        self.halves = 0
        self.calculations = 0

    def problem(self, place: Place, row: Row, at: int) -> dict[str, object]:
        fields, where = self.fields, f"{self.where}: {place}"
        question = field(row, fields.question)
        if not isinstance(question, str) or not question.strip():
            inside = " (of a list of messages: prompt.0.content)" if isinstance(question, list) else ""
            raise DereasonError(
                f"{where} has no text in the field {fields.question!r} (it has {_keys(row)})",
                f"name the right field under fields.question{inside}, or mend the row",
            )
        identity = str(at) if fields.id is None else name_of(field(row, fields.id))
        if identity is None:
            raise DereasonError(
                f"{where} has no id in the field {fields.id!r}",
                "give every row a text or a whole number, or none an id",
            )
        options = options_of(field(row, fields.options), where)
        read = reference_of(field(row, fields.answer), where, fields.answer_marker)
        answer = read.answer
        if read.mark is not None and fields.answer_marker is None:
            self.marks[read.mark] += 1
        if answer is not None and options is not None:
            answer = self.meant.read(answer, options, where)
        solution = self.text(row, fields.solution, where) or read.solution
        if solution is not None and fields.solution_remove is not None:
            solution = re.sub(fields.solution_remove, "", solution)
        self.calculations += read.mark == HASH and "<<" in (solution or "")
        source = row.get("source")
        return {
            "id": self.whole(identity),
            "question": self.whole(question.strip()),
            "answer": None if answer is None else self.whole(answer),
            "domain": self.whole(self.text(row, fields.domain, where) or self.name),
            "source": self.whole(source if isinstance(source, str) and source else self.name),
            "options": None if options is None else [self.whole(option) for option in options],
            "solution": None if solution is None else self.whole(solution),
            "solution_origin": None if solution is None else str(Origin.HUMAN),
            "metadata": _metadata({k: v for k, v in row.items() if k not in self.used}),
        }

    def text(self, row: Row, name: str, where: str) -> str | None:
        """A text that may be missing; numbers are taken as text."""
        value = field(row, name)
        if isinstance(value, dict | list):
            raise DereasonError(f"{where}: {name} is no text", "name the text inside it by dots, or another field")
        return None if value is None or str(value).strip() == "" else str(value)

    def whole(self, text: str) -> str:
        """The text without half surrogate pairs."""
        found = whole_text(text)
        self.halves += found != text
        return found

    def notes(self) -> list[str]:
        """What was decided, for people."""
        notes = list(self.meant.notes)
        found = mark_notes(self.marks)
        notes += [f"{note}; what is around it is the solution where the row gives none" for note in found]
        if self.calculations:
            notes.append(
                f"solutions hold calculator notes as in <<1+1=2>> ({self.calculations:,}); "
                "fields.solution_remove: '<<[^>]*>>' takes them out"
            )
        if self.halves:
            notes.append(f"texts hold half of a surrogate pair ({self.halves:,}), which is replaced by U+FFFD")
        return notes
