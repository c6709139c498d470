"""Responses from anywhere as sample tables, one a model: SAMPLE tables of ours, or other Parquet and JSON Lines files.

Read of each row: ``problem_id``, ``model``, ``response``, and ``verdict`` or ``correct``; ``index``, ``hit_limit`` and
``tokens`` where a row has them. What a row lacks stays null, a missing index is the place among the model's responses
to that problem, and a missing verdict is the verifier's, where the problems are given. Of a phase's early warning, the
model at each step is a model of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dereason.errors import DereasonError
from dereason.lm.base import Progress
from dereason.problems.schema import SAMPLE, Verdict, frame
from dereason.verify.verifier import JUDGED, Verifier, item_of

POOLED = "pooled"
"""Name of the one model that all samples are taken for with ``--pool``."""
PURPOSE = "given"
"""What the samples of others were drawn for, in our tables."""
_READING = "early_warning"
_BATCH = 1000
Row = dict[str, Any]


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
    if not path.is_file():
        raise DereasonError(f"{path}: no such file", "check the path (a file's model is named so: NAME=PATH)")
    return Given(path, name if named else None)


def read_samples(
    files: Sequence[Given], *, pool: bool = False, problems: Collection[str] | None = None
) -> dict[str, pl.DataFrame]:
    """The samples of every model, models in the order in which they first appear.

    Args:
        files: what to read.
        pool: take all for samples of one model, :data:`POOLED`, and number them anew.
        problems: ids of the problems whose answers are known; None where there are none: then every row needs a
            verdict.

    Returns:
        model -> SAMPLE table; a verdict that is still to be found is null.

    Raises:
        DereasonError: a row cannot be used (file, row and field are named), a response stands twice, or two models
            share no problem.
    """
    rows: dict[str, list[Row]] = {}
    places: dict[tuple[str, str, int], str] = {}
    counted: Counter[tuple[str, str]] = Counter()
    for file in files:
        if pool and file.name is not None:
            raise DereasonError(
                f"{file.name}={file.path} names a model, and --pool makes one of all", "drop one of them"
            )
        inside: set[str] = set()
        for number, raw in _rows(file.path):
            where = f"{file.path}: row {number}"
            row = _sample(raw, where, named=pool or file.name is not None, problems=problems)
            if file.name is not None and raw.get("model") is not None:
                inside.add(str(raw["model"]))
                if len(inside) > 1:
                    raise DereasonError(
                        f"{where} is of another model than the rows before ({', '.join(sorted(inside))}), and "
                        f"{file.name}= names one for all",
                        f"leave out {file.name}=, or take all for one model with --pool",
                    )
            reading = raw.get("purpose") == _READING  # drawn between two steps, so each step is a model of its own
            if raw.get("step") is not None and not reading and not pool:
                raise DereasonError(
                    f"{where} is a rollout of optimiser step {raw['step']}: its model changed while they were drawn",
                    "give samples of one model (`dereason eval` draws them), or take all for one with --pool",
                )
            model = POOLED if pool else (file.name or row["model"]) + (f" at step {raw['step']}" if reading else "")
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


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Each row with its number, from 1."""
    if path.suffix == ".parquet":
        try:
            table = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as exc:
            raise DereasonError(f"{path}: not a readable Parquet file ({exc})", "write it again") from exc
        yield from enumerate(table.iter_rows(named=True), 1)
        found = table.height
    elif path.suffix in (".jsonl", ".ndjson"):
        found = 0
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                try:
                    # Some editors begin a file with a mark.
                    row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except (ValueError, RecursionError) as exc:
                    raise DereasonError(f"{path}: row {number} is not JSON ({exc})", "mend that line") from exc
                if not isinstance(row, dict):
                    raise DereasonError(f"{path}: row {number} is a {type(row).__name__}", "each row must be an object")
                found += 1
                yield number, row
    else:
        raise DereasonError(f"{path}: not a kind of file that samples are read from", "give .parquet or .jsonl")
    if not found:
        raise DereasonError(
            f"{path}: no rows in it", "give samples: problem_id, model, response and verdict or correct"
        )


def _sample(raw: Row, where: str, *, named: bool, problems: Collection[str] | None) -> Row:
    """A row of a SAMPLE table, its index and verdict maybe still missing."""
    problem = raw.get("problem_id")
    if isinstance(problem, int) and not isinstance(problem, bool):
        problem = str(problem)
    _need(raw, where, "problem_id", isinstance(problem, str) and bool(problem), "the id of its problem")
    if problems is not None and problem not in problems:
        raise DereasonError(
            f"{where}: problem_id {problem!r} is none of the given problems",
            "give the problems that the samples answer",
        )
    model = raw.get("model")
    _need(raw, where, "model", named or (isinstance(model, str) and bool(model)), "a name, or name the file: NAME=PATH")
    _need(raw, where, "response", isinstance(raw.get("response"), str), "a text (an empty one is allowed)")
    index = raw.get("index")
    for name in ("index", "tokens"):
        _need(raw, where, name, raw.get(name) is None or _whole(raw[name]), "a whole number from 0, or null")
    limit = raw.get("hit_limit")
    _need(raw, where, "hit_limit", limit is None or isinstance(limit, bool), "true, false or null")
    verdict = _verdict(raw, where)
    if verdict is None and problems is None:
        raise DereasonError(
            f"{where} has neither verdict nor correct (it has {', '.join(raw)})",
            "give one of them, or the problems with their answers (--problems)",
        )
    return {
        "problem_id": _encodable(str(problem)),
        "model": _encodable(model) if isinstance(model, str) else model,
        "purpose": _encodable(raw["purpose"]) if isinstance(raw.get("purpose"), str) else PURPOSE,
        "index": index,
        "response": _encodable(raw["response"]),
        "tokens": raw.get("tokens"),
        "hit_limit": raw.get("hit_limit"),
        "verdict": verdict,
    }


def _whole(value: Any) -> bool:
    """Whether it is a whole number that a column of the table can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _encodable(text: str) -> str:
    """The text with a replacement mark for each lone surrogate, which JSON can hold and no table or file can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _verdict(raw: Row, where: str) -> str | None:
    """The verdict of a row, from ``verdict`` or ``correct``; None where it has neither."""
    verdict, correct = raw.get("verdict"), raw.get("correct")
    known = [str(v) for v in Verdict]
    _need(raw, where, "verdict", verdict is None or verdict in known, f"one of {', '.join(known)}, or null")
    _need(raw, where, "correct", correct is None or isinstance(correct, bool), "true, false or null")
    if verdict is not None and correct is not None and (verdict == Verdict.CORRECT) != correct:
        raise DereasonError(f"{where}: verdict is {verdict!r} and correct is {json.dumps(correct)}", "give one of them")
    if verdict is None and correct is not None:
        return str(Verdict.CORRECT if correct else Verdict.WRONG)
    return verdict


def _need(raw: Row, where: str, name: str, right: bool, wanted: str) -> None:
    if right:
        return
    if name not in raw:
        raise DereasonError(f"{where} has no field {name!r} (it has {', '.join(raw) or 'none'})", f"give {wanted}")
    shown = json.dumps(raw[name], default=str)
    raise DereasonError(f"{where}: {name} is {shown if len(shown) <= 60 else shown[:59] + '…'}", f"give {wanted}")


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
