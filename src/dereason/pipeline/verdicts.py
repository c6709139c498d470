"""``dereason verify``: verdicts for a file of responses, and nothing else.

Read of each row: ``response`` and ``answer``; ``options`` and ``hit_limit`` where a row has them. Every row is written
again as it was (but JSON has no NaN: null), with the verifier's fields behind it, one JSON object a line. The whole
file is checked before the first response is judged, and the output appears when it is complete. Until then finished
rows stand in a file beside it, from which an interrupted call goes on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from dereason.errors import DereasonError
from dereason.pipeline.output import output_locked
from dereason.pipeline.progress import Screen
from dereason.pipeline.store import Info, code_version, digest
from dereason.problems.files import Row, field, finite, flag, read_rows
from dereason.problems.references import AnswerIs, Convention, convention, mark_notes, options_of, reference_of
from dereason.settings import Settings
from dereason.verify.confusion import tabulate
from dereason.verify.verdict import VERIFIER_VERSION, Judgement
from dereason.verify.verifier import Item, Verifier, VerifierSettings, item_of

FIELDS = ("verdict", "strict", "extracted", "extracted_at", "how", "kind", "reason")
"""What is added to each row."""
BATCH = 1000


class ResponseFields(Settings):
    """Which fields of the rows hold what. A name with dots leads inside: `reward_model.ground_truth`."""

    response: str = "response"
    """The response."""
    answer: str = "answer"
    """The reference answer."""
    options: str = "options"
    """Answer options, where there are any: a list of texts, or an object whose keys are the letters."""
    hit_limit: str = "hit_limit"
    """Whether the response stopped at its length limit: true and false, or 1 and 0."""
    answer_is: AnswerIs = "auto"
    """As in a recipe's `fields`."""
    answer_marker: str | None = Field(default=None, min_length=1)
    """Text in the answer field behind whose last occurrence is the answer."""


class VerifyJob(VerifierSettings):
    """Settings of ``dereason verify``: the limits of the verifier, and where rows hold what."""

    fields: ResponseFields = ResponseFields()
    """Which fields hold what."""

    def key(self) -> dict[str, Any]:
        """The settings that can change a verdict."""
        return super().key() | {"fields": self.fields.model_dump(mode="json")}


def verify_file(
    path: Path,
    out: Path,
    job: VerifyJob,
    *,
    screen: Screen | None = None,
    overwrite: bool = False,
) -> Info:
    """Judge every row of a file and write the rows with their verdicts to a JSON Lines file.

    Args:
        path: JSON Lines, JSON, CSV or Parquet: rows with ``response`` (text) and ``answer`` (text, number or boolean),
            maybe ``options`` (list of texts) and ``hit_limit`` (boolean; false where it is missing).
        out: written whole when all rows are judged; its folder is made where it is missing.
        job: limits of the verifier, and which fields hold what.
        screen: where progress is shown; None shows none.
        overwrite: replace an ``out`` that holds verdicts of an earlier call; no other file is ever replaced.

    Returns:
        ``rows``, ``verifier`` (its version), ``settings``, ``confusion``, and ``reading``: how answers were read, where
        they could be read in several ways.

    Raises:
        DereasonError: ``out`` is there already or another call is writing it, or a row cannot be used: file, row and
            field are named, and nothing has been written.

    A call that was interrupted leaves ``OUT.KEY.part`` (the key is of settings and the verifier's code). The same call
    goes on from there, with the rows that equal those of the input; its result is that of an uninterrupted one.
    """
    screen = screen or Screen(quiet=True)
    total, meant, notes = _checked(path, job.fields)
    for note in notes:
        screen.say(f"  {note}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with output_locked(out):  # two calls would write into one file
        _check_out(path, out, overwrite)
        code = code_version(("verify", "problems"))
        part = out.with_name(f"{out.name}.{digest([VERIFIER_VERSION, job.key(), code])[:8]}.part")
        seen, size = _finished(part, path, job.fields, meant)
        progress = screen.step("verify")
        try:
            with Verifier(job) as verifier, part.open("ab") as handle:
                handle.truncate(size)
                progress(len(seen), total, f"{len(seen):,} from before" if seen else "")
                rows = islice(_items(path, job.fields, meant), len(seen), None)
                while batch := list(islice(rows, BATCH)):
                    judged = verifier.judge_many([item for _, item in batch])
                    for (row, _), judgement in zip(batch, judged, strict=True):
                        handle.write(_line(row | _fields(judgement)))
                    handle.flush()
                    seen += [_seen(_fields(j)) for j in judged]
                    progress(len(seen), total, "")
            part.replace(out)
        finally:
            screen.stop()
    return {
        "rows": total,
        "verifier": VERIFIER_VERSION,
        "settings": job.model_dump(mode="json"),
        "reading": notes,
        "confusion": tabulate(seen),
    }


Seen = tuple[str, bool, str | None, str | None, str | None]


def _seen(fields: dict[str, Any]) -> Seen:
    """What the summary needs of a judged row."""
    reason = fields["reason"] if fields["verdict"] == "error" else None
    return fields["verdict"], fields["strict"], fields["kind"], fields["how"], reason


def _finished(part: Path, path: Path, fields: ResponseFields, meant: Convention) -> tuple[list[Seen], int]:
    """What an interrupted call left: its rows that equal the input's, from the first on, and their bytes."""
    seen: list[Seen] = []
    size = 0
    if not part.is_file():
        return seen, size
    with part.open("rb") as handle:
        for line, (row, _) in zip(handle, _items(path, fields, meant), strict=False):
            try:
                written = json.loads(line)
            except ValueError:  # the line that a kill cut short
                break
            if not line.endswith(b"\n") or {k: v for k, v in written.items() if k not in FIELDS} != row:
                break
            seen.append(_seen(written))
            size += len(line)
    return seen, size


def _fields(judgement: Judgement) -> dict[str, Any]:
    place = None if judgement.start is None else [judgement.start, judgement.end]
    return {name: {**judgement.columns(), "extracted_at": place}[name] for name in FIELDS}


def _line(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can carry and UTF-8 cannot
        return json.dumps(row).encode() + b"\n"


def _checked(path: Path, fields: ResponseFields) -> tuple[int, Convention, list[str]]:
    """How many rows there are, what their answers are, and what is to be said of it; every row is looked at."""
    total, marks = 0, Counter[str]()
    beside = []
    for place, row in read_rows(path):
        where = f"{path}: {place}"
        item = _item(row, fields, where)
        mark = reference_of(field(row, fields.answer), where, fields.answer_marker).mark
        if mark is not None and fields.answer_marker is None:
            marks[mark] += 1
        if item.options:
            beside.append((place, item.reference, item.options))
        total += 1
    if total == 0:
        raise DereasonError(f"{path}: no rows in it", "give rows with response and answer")
    meant = convention(beside, fields.answer_is, str(path))
    return total, meant, meant.notes + mark_notes(marks)


def _items(path: Path, fields: ResponseFields, meant: Convention) -> Iterator[tuple[Row, Item]]:
    """Each row as JSON can hold it, with what is judged of it."""
    for place, row in read_rows(path):
        where = f"{path}: {place}"
        item = _item(row, fields, where)
        if item.options and meant.decides(item.reference):
            item = replace(item, reference=meant.read(item.reference, item.options, where))
        yield finite(row), item


def _item(row: Row, fields: ResponseFields, where: str) -> Item:
    clash = [name for name in FIELDS if name in row]
    if clash:
        raise DereasonError(
            f"{where} has a field {clash[0]!r} already, which the verdict would replace",
            f"rename it, or leave it out (added are {', '.join(FIELDS)})",
        )
    response, limit = field(row, fields.response), field(row, fields.hit_limit)
    if not isinstance(response, str):
        raise _bad(row, where, fields.response, "a text (an empty one is allowed)")
    answer = reference_of(field(row, fields.answer), where, fields.answer_marker).answer
    if answer is None:
        raise _bad(row, where, fields.answer, "a text that is not empty, a number or a boolean")
    hit_limit = False if limit in (None, "") else flag(limit)
    if hit_limit is None:
        raise _bad(row, where, fields.hit_limit, "true, false or null")
    more = {name: row[name] for name in ("accepted", "tolerance") if row.get(name) is not None}
    problem = {"id": where, "answer": answer, "options": options_of(field(row, fields.options), where)}
    return item_of(response, hit_limit, problem | {"source": row.get("source"), "metadata": json.dumps(more)})


def _bad(row: Row, where: str, name: str, wanted: str) -> DereasonError:
    found = field(row, name)
    if found is None and name not in row:
        return DereasonError(f"{where} has no field {name!r} (it has {', '.join(row) or 'none'})", f"give {wanted}")
    shown = json.dumps(found)
    return DereasonError(f"{where}: {name} is {shown if len(shown) <= 60 else shown[:59] + '…'}", f"give {wanted}")


def _check_out(path: Path, out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_file() or out.samefile(path) or not _ours(out):
        raise DereasonError(f"{out} exists and holds no verdicts of dereason", "choose another --out")
    if not overwrite:
        raise DereasonError(f"{out} exists", "choose another --out, or give --overwrite")


def _ours(out: Path) -> bool:
    """Whether the first row of a file has the fields that we add."""
    with out.open("rb") as handle:
        try:
            row = json.loads(handle.readline())
        except (ValueError, RecursionError):
            return False
    return isinstance(row, dict) and set(FIELDS) <= set(row)
