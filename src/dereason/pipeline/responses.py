"""Responses from anywhere as sample tables, one a model: SAMPLE tables of ours, or any other file of rows.

Read of each row: ``problem_id``, ``model``, ``response``, and ``verdict`` or ``correct``; ``index``, ``hit_limit`` and
``tokens`` where a row has them; :class:`SampleFields` gives them other names. What a row lacks stays null, a missing
index is the place among the model's responses to that problem, and a missing verdict is the verifier's, where the
problems are given. Of a phase's early warning, the model at each step is a model of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dereason.characters import whole_text
from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.problems.files import Row, check_file, field, flag, name_of, read_rows, whole
from dereason.problems.schema import SAMPLE, Verdict, frame
from dereason.settings import Settings
from dereason.verify.verifier import JUDGED, Verifier, item_of

POOLED = "pooled"
"""Name of the one model that all samples are taken for with ``--pool``."""
PURPOSE = "given"
"""What the samples of others were drawn for, in our tables."""
_READING = "early_warning"
_BATCH = 1000


class SampleFields(Settings):
    """Which fields of the samples hold what. A name with dots leads inside: `output.0.text`."""

    problem_id: str = "problem_id"
    """The id of its problem, a text or a whole number."""
    model: str = "model"
    """The model that responded."""
    response: str = "response"
    """The response."""
    verdict: str = "verdict"
    """One of the five verdicts, where it is known."""
    correct: str = "correct"
    """Whether it is correct, where that is known: true and false, or 1 and 0."""
    index: str = "index"
    """Its number among the model's responses to that problem, from 0."""
    hit_limit: str = "hit_limit"
    """Whether it stopped at its length limit."""
    tokens: str = "tokens"
    """Its length in tokens."""


@dataclass(frozen=True)
class Given:
    """A file of samples.

    Attributes:
        path: the file.
        name: the model that all its samples are of; None leaves it to the field ``model``.
    """

    path: Path
    name: str | None = None


def given(text: str) -> Given:
    """``PATH`` or ``NAME=PATH``; a path may hold ``=`` itself. A folder stands for its ``samples.parquet``.

    Raises:
        DereasonError: there is no such file.
    """
    name, equals, rest = text.partition("=")
    named = bool(equals and name and not Path(text).exists())
    path = Path(rest if named else text)
    if path.is_dir():
        if not (path / "samples.parquet").is_file():
            raise DereasonError(f"{path}: a folder without samples.parquet", "name a file of samples")
        path = path / "samples.parquet"
    check_file(path, "check the path (a file's model is named so: NAME=PATH)")
    return Given(path, name if named else None)


def read_samples(
    files: Sequence[Given],
    *,
    pool: bool = False,
    problems: Collection[str] | None = None,
    fields: SampleFields | None = None,
) -> dict[str, pl.DataFrame]:
    """The samples of every model, models in the order in which they first appear.

    Args:
        files: what to read.
        pool: take all for samples of one model, :data:`POOLED`, and number them anew.
        problems: ids of the problems whose answers are known; None where there are none: then every row needs a
            verdict.
        fields: which fields hold what; None takes the usual names.

    Returns:
        model -> SAMPLE table; a verdict that is still to be found is null.

    Raises:
        DereasonError: a row cannot be used (file, row and field are named), a response stands twice, or two models
            share no problem.
    """
    fields = fields or SampleFields()
    rows: dict[str, list[Row]] = {}
    places: dict[tuple[str, str, int], str] = {}
    counted: Counter[tuple[str, str]] = Counter()
    for file in files:
        if pool and file.name is not None:
            raise DereasonError(
                f"{file.name}={file.path} names a model, and --pool makes one of all", "drop one of them"
            )
        inside: set[str] = set()
        empty = True
        for at_place, raw in read_rows(file.path):
            empty = False
            where = f"{file.path}: {at_place}"
            row = _sample(raw, fields, where, named=pool or file.name is not None, problems=problems)
            if file.name is not None and row["model"] is not None:
                inside.add(row["model"])
                if len(inside) > 1:
                    raise DereasonError(
                        f"{where} is of another model than the rows before ({', '.join(sorted(inside))}), and "
                        f"{file.name}= names one for all",
                        f"leave out {file.name}=, or take all for one model with --pool",
                    )
            reading = row["purpose"] == _READING  # drawn between two steps, so each step is a model of its own
            step = raw.get("step")
            if step not in (None, "") and not reading and not pool:
                raise DereasonError(
                    f"{where} is a rollout of optimiser step {step}: its model changed while they were drawn",
                    "give samples of one model (`dereason eval` draws them), or take all for one with --pool",
                )
            model = POOLED if pool else (file.name or row["model"]) + (f" at step {step}" if reading else "")
            at = counted[model, row["problem_id"]]
            counted[model, row["problem_id"]] += 1
            if pool or row["index"] is None:
                row["index"] = at
            place = (model, row["problem_id"], row["index"])
            if place in places:
                raise DereasonError(
                    f"{where}: response {row['index']} of {model!r} to problem {row['problem_id']!r} stands already in "
                    f"{places[place]}",
                    "give each file once, files of different models their names (NAME=PATH), and each row an index of "
                    "its own or none",
                )
            places[place] = where
            rows.setdefault(model, []).append(row | {"model": model})
        if empty:
            raise DereasonError(
                f"{file.path}: no rows in it", "give samples: problem_id, model, response and verdict or correct"
            )
    tables = {model: frame("sample", found) for model, found in rows.items()}
    _check_shared(tables)
    return tables


def judge(
    samples: dict[str, pl.DataFrame], problems: pl.DataFrame, verifier: Verifier, progress: Progress
) -> dict[str, pl.DataFrame]:
    """The samples with the verdicts that were missing, by the verifier.

    Args:
        samples: of :func:`read_samples`.
        problems: PROBLEM table with every problem of the samples.
        verifier: judges.
        progress: told of judged responses.
    """
    judged_by = problems.select("id", *JUDGED)
    references = {row["id"]: row for row in judged_by.iter_rows(named=True)}
    missing = sum(table["verdict"].null_count() for table in samples.values())
    out: dict[str, pl.DataFrame] = {}
    done = 0
    for model, table in samples.items():
        rows = table.to_dicts()
        open_ = [row for row in rows if row["verdict"] is None]
        for start in range(0, len(open_), _BATCH):
            batch = open_[start : start + _BATCH]
            asked = [(row, references[row["problem_id"]]) for row in batch]
            items = [item_of(row["response"], bool(row["hit_limit"]), r) for row, r in asked]
            for row, judged in zip(batch, verifier.judge_many(items), strict=True):
                row.update({name: value for name, value in judged.columns().items() if name in SAMPLE})
            done += len(batch)
            progress(done, missing, "judged")
        out[model] = frame("sample", rows)
    return out


def _sample(raw: Row, fields: SampleFields, where: str, *, named: bool, problems: Collection[str] | None) -> Row:
    """A row of a SAMPLE table, its index and verdict maybe still missing."""
    row = _Row(raw, fields, where)
    problem = row.need("problem_id", name_of(row["problem_id"]), "the id of its problem")
    if problems is not None and whole_text(problem) not in problems:
        raise DereasonError(
            f"{where}: problem_id {problem!r} is none of the given problems",
            "give the problems that the samples answer",
        )
    model = name_of(row["model"])
    if model is None and not (named and row["model"] is None):
        row.need("model", None, "a name, or name the file: NAME=PATH")
    response = row.need("response", row.text("response"), "a text (an empty one is allowed)")
    verdict = _verdict(row)
    if verdict is None and problems is None:
        raise DereasonError(
            f"{where} has neither {fields.verdict} nor {fields.correct} (it has {', '.join(raw)})",
            "give one of them, or the problems with their answers (--problems)",
        )
    purpose = raw.get("purpose")
    return {
        "problem_id": whole_text(problem),
        "model": None if model is None else whole_text(model),
        "purpose": whole_text(purpose) if isinstance(purpose, str) and purpose else PURPOSE,
        "index": row.count("index"),
        "response": whole_text(response),
        "tokens": row.count("tokens"),
        "hit_limit": row.flag("hit_limit"),
        "verdict": verdict,
    }


class _Row:
    """A row by the roles of its fields; a cell that is empty is missing."""

    def __init__(self, raw: Row, fields: SampleFields, where: str) -> None:
        self.raw, self.fields, self.where = raw, fields, where

    def __getitem__(self, role: str) -> Any:
        value = field(self.raw, getattr(self.fields, role))
        return None if value == "" else value

    def text(self, role: str) -> str | None:
        """A text, which may be empty."""
        value = field(self.raw, getattr(self.fields, role))
        return value if isinstance(value, str) else None

    def count(self, role: str) -> int | None:
        """A whole number that a column of the table can hold."""
        if self[role] is None:
            return None
        number = whole(self[role])
        right = number is not None and 0 <= number < 2**31
        return self.need(role, number if right else None, "a whole number from 0, or null")

    def flag(self, role: str) -> bool | None:
        """A truth value."""
        return None if self[role] is None else self.need(role, flag(self[role]), "true, false or null")

    def need(self, role: str, value: Any, wanted: str) -> Any:
        """The value, unless it is None.

        Raises:
            DereasonError: it is None: the field is missing or holds something else.
        """
        if value is not None:
            return value
        name = getattr(self.fields, role)
        found = field(self.raw, name)
        if found is None and name not in self.raw:
            has = ", ".join(self.raw) or "none"
            raise DereasonError(f"{self.where} has no field {name!r} (it has {has})", f"give {wanted}")
        shown = json.dumps(found)
        shown = shown if len(shown) <= 60 else shown[:59] + "…"
        raise DereasonError(f"{self.where}: {name} is {shown}", f"give {wanted}")


def _verdict(row: _Row) -> str | None:
    """The verdict of a row, from ``verdict`` or ``correct``; None where it has neither."""
    known = [str(v) for v in Verdict]
    verdict = row["verdict"]
    if verdict is not None:
        row.need("verdict", verdict if verdict in known else None, f"one of {', '.join(known)}, or null")
    correct = row.flag("correct")
    if verdict is not None and correct is not None and (verdict == Verdict.CORRECT) != correct:
        raise DereasonError(
            f"{row.where}: {row.fields.verdict} is {verdict!r} and {row.fields.correct} is {json.dumps(correct)}",
            "give one of them",
        )
    if verdict is None and correct is not None:
        return str(Verdict.CORRECT if correct else Verdict.WRONG)
    return verdict


def _check_shared(tables: dict[str, pl.DataFrame]) -> None:
    shared: set[str] | None = None
    before: list[str] = []
    for name, table in tables.items():
        mine = set(table["problem_id"])
        shared = mine if shared is None else shared & mine
        if not shared:
            raise DereasonError(
                f"no problem is answered by {name!r} and by {', '.join(map(repr, before))}",
                "give samples of the same problems (problem_id has to agree), or leave one of the models out",
            )
        before.append(name)
