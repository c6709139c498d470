"""Where problems come from: reasoning-gym families, files, the Hugging Face hub.

To add a source, copy :class:`GymSource` and its branch in :func:`load_source`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, field_validator

from dereason.content import Repository, file_digest, files_digest
from dereason.errors import DereasonError
from dereason.problems.schema import Origin, frame
from dereason.settings import Settings


class Fields(Settings):
    """Which fields of the data hold what."""

    id: str | None = "id"
    """Unique id; null, or a field that no row has, numbers the rows."""
    question: str = "question"
    """The question's text."""
    answer: str = "answer"
    """The reference answer."""
    domain: str = "domain"
    """The domain; rows without it get the source's name."""
    options: str = "options"
    """List of answer options, where there are any."""
    solution: str = "solution"
    """A worked solution, where there is one."""
    answer_marker: str | None = None
    """Text in the answer field (GSM8K: `####`): behind its last occurrence is the answer, before it the solution."""
    solution_remove: str | None = None
    """Regular expression whose matches are taken out of solutions (GSM8K's calculator notes: `<<[^>]*>>`)."""

    @field_validator("solution_remove")
    @classmethod
    def _pattern(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                re.compile(text)
            except re.error as exc:
                raise ValueError(f"no regular expression: {exc}") from exc
        return text


class GymFamily(Settings):
    """Problems of one reasoning-gym family."""

    family: str
    """reasoning-gym data set name, for example `chain_sum`."""
    size: int = Field(gt=0)
    """How many problems."""
    args: dict[str, Any] = {}
    """The family's own arguments, for example `{min_terms: 2, max_terms: 4}`."""
    domain: str | None = None
    """Domain given to them; null takes the family's name."""


class GymSource(Settings):
    """Procedural problems with exact answers, made by reasoning-gym."""

    source: Literal["reasoning_gym"]
    """Names this kind of source."""
    families: list[GymFamily] = Field(min_length=1)
    """The families, in order."""
    seed: int = Field(default=0, ge=0)
    """Seed of the generators; sources with other seeds, and entries of one source, have other problems."""


class FileSource(Settings):
    """Problems in a local file: .jsonl, .json (a list), .csv or .parquet."""

    source: Literal["file"]
    """Names this kind of source."""
    path: str
    """The file; a relative path is relative to the recipe."""
    fields: Fields = Fields()
    """Which fields hold what."""
    limit: int | None = Field(default=None, gt=0)
    """Read only the first rows."""


class HubSource(Settings):
    """Problems in a data set on the Hugging Face hub."""

    source: Literal["hub"]
    """Names this kind of source."""
    name: str
    """Data set id, for example `TIGER-Lab/WebInstruct-verified`."""
    config: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "train"
    """Which split."""
    revision: str | None = None
    """Commit of the data set; pin it, a branch moves."""
    fields: Fields = Fields()
    """Which fields hold what."""
    limit: int | None = Field(default=None, gt=0)
    """Read only the first rows."""


_STREAM = 1000
"""Seeds that belong to each seed of a :class:`GymSource`: of each entry, the first problems are made with these."""

Source = Annotated[GymSource | FileSource | HubSource, Field(discriminator="source")]


def load_source(source: Source, base: Path = Path()) -> pl.DataFrame:
    """Read a source into a PROBLEM table; rows without an answer are kept, with a null answer.

    Args:
        source: which source.
        base: folder that relative paths start from.

    Raises:
        DereasonError: a missing or malformed file (row named), an unknown family or data set.
    """
    if isinstance(source, GymSource):
        return _load_gym(source)
    if isinstance(source, FileSource):
        path = base / source.path
        rows = read_rows(path)
        return _from_rows(rows[: source.limit], source.fields, str(path), path.stem)
    return _load_hub(source)


def fingerprint(source: Source, base: Path = Path()) -> str:
    """What identifies the source's content: settings, name and bytes of files, generator version.

    Raises:
        DereasonError: a file is missing or cannot be read.
    """
    parts: list[Any] = [source.model_dump(mode="json")]
    if isinstance(source, FileSource):
        path = base / source.path
        if not os.path.isfile(path):
            raise DereasonError(f"{path}: no such problem file", "check problems.*.path in the recipe")
        # the name, because its stem becomes the domain and its ending says how it is read; where it lies is left out
        parts = [source.model_dump(mode="json", exclude={"path"}), path.name, file_digest(path)]
    if isinstance(source, HubSource) and os.path.isdir(source.name):  # a data set that is not on the hub
        folder = Path(source.name)
        files = [p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts]
        named = source.name.split("/")[-1]  # which becomes the domain
        parts = [source.model_dump(mode="json", exclude={"name"}), named, files_digest(files, folder)]
    if isinstance(source, GymSource):
        from importlib.metadata import PackageNotFoundError, version

        parts.append(_STREAM)
        try:
            parts.append(version("reasoning-gym"))
        except PackageNotFoundError:
            parts.append("not installed")
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def repositories(source: Source) -> list[Repository]:
    """What a source reads from the hub."""
    if not isinstance(source, HubSource) or os.path.isdir(source.name):
        return []
    return [Repository("dataset", source.name, source.revision or "main")]


def _load_gym(source: GymSource) -> pl.DataFrame:
    try:
        import reasoning_gym
    except ImportError as exc:
        raise DereasonError(
            "reasoning-gym is not installed",
            "pip install 'dereason[quickstart]', or use a file or hub source",
        ) from exc
    rows: list[dict[str, object]] = []
    seen: list[dict[str, Any]] = []
    for at, part in enumerate(source.families):
        try:
            # the first `size` seeds from `seed` on, one a problem
            make = partial(reasoning_gym.create_dataset, part.family, **part.args)
            config = {"family": part.family, **vars(make(size=1, seed=0).config)}
            near = max(0, _STREAM - at) if config not in seen else 0
            entries: list[Any] = []
            if near:
                entries += make(size=min(part.size, near), seed=source.seed * _STREAM + at)
            if (more := part.size - len(entries)) > 0:
                entries += make(size=more, seed=_far_seed(source.seed, at, config, more))
            seen.append(config)
        except (ValueError, TypeError, AssertionError, KeyError) as exc:
            first = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
            raise DereasonError(
                f"problems.families[{at}]: reasoning-gym cannot make {part.family!r} with {part.args}: {first}",
                "see reasoning-gym's gallery for the names of families and their arguments",
            ) from exc
        for i, entry in enumerate(entries):
            metadata = entry["metadata"]
            solution = metadata.get("answer_cot")
            rows.append(
                {
                    "id": f"{part.family}-{source.seed}-{at}-{i}",
                    "question": entry["question"].strip(),
                    "answer": str(entry["answer"]),
                    "domain": part.domain or part.family,
                    "source": f"reasoning_gym/{part.family}",
                    "solution": solution,
                    "solution_origin": str(Origin.REFERENCE) if solution else None,
                    "metadata": json.dumps(metadata, default=str, sort_keys=True),
                }
            )
    return frame("problem", rows)


def _far_seed(seed: int, at: int, config: dict[str, Any], size: int) -> int:
    """Where a stream of ``size`` seeds begins that no other one overlaps, but by a rare chance.

    Above all streams that are counted on from a source's seed; below 2^32, as some families want it.
    """
    text = json.dumps([seed, at, config], sort_keys=True, default=str)
    return 2**31 + int(hashlib.sha256(text.encode()).hexdigest(), 16) % max(1, 2**31 - size)


def _load_hub(source: HubSource) -> pl.DataFrame:
    from datasets import load_dataset

    try:
        data = load_dataset(source.name, source.config, split=source.split, revision=source.revision)
    except Exception as exc:  # the hub client raises many kinds; the cause is passed on whole
        first = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise DereasonError(
            f"hub data set {source.name!r} (split {source.split}) cannot be loaded: {first}",
            "check the id, the split, the network and `hf auth login`, or use a local file",
        ) from exc
    if source.limit:
        data = data.select(range(min(source.limit, len(data))))
    return _from_rows(list(data), source.fields, f"{source.name}:{source.split}", source.name.split("/")[-1])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl, .json, .csv or .parquet file.

    Raises:
        DereasonError: no such file, an unknown ending, or a malformed row (named by number).
    """
    if not path.is_file():
        raise DereasonError(f"{path}: no such file", "check the path")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            return pl.read_parquet(path).to_dicts()
        if kind == ".csv":
            with path.open(newline="", encoding="utf-8") as handle:
                return [dict(row) for row in csv.DictReader(handle)]
        if kind == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(data, list):
                raise DereasonError(f"{path}: holds no list", "write a JSON list of objects, or JSON lines")
            return [_object(row, path, i + 1) for i, row in enumerate(data)]
    except (pl.exceptions.PolarsError, ValueError, OSError, csv.Error) as exc:
        raise DereasonError(f"{path}: cannot be read as {kind[1:]}: {exc}", "mend or re-export the file") from exc
    if kind != ".jsonl":
        raise DereasonError(f"{path}: unknown ending {kind!r}", "use .jsonl, .json, .csv or .parquet")
    rows = []
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                try:
                    rows.append(_object(json.loads(line.decode("utf-8")), path, number))
                except (json.JSONDecodeError, UnicodeDecodeError) as exc:
                    raise DereasonError(f"{path}: row {number} is not JSON ({exc})", "mend that line") from exc
    return rows


def _object(value: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DereasonError(f"{path}: row {number} is a {type(value).__name__}", "each row must be an object")
    return value


def _from_rows(rows: list[dict[str, Any]], fields: Fields, where: str, name: str) -> pl.DataFrame:
    if not rows:
        raise DereasonError(f"{where}: no problems in it", "check the file or the split")
    if fields.id and all(fields.id not in row for row in rows):
        fields = fields.model_copy(update={"id": None})
    used = {fields.id, fields.question, fields.answer, fields.domain, fields.options, fields.solution}
    out: list[dict[str, object]] = []
    for number, row in enumerate(rows, 1):
        question = row.get(fields.question)
        if not isinstance(question, str) or not question.strip():
            raise DereasonError(
                f"{where}: row {number} has no text in the field {fields.question!r} (it has {', '.join(row)})",
                "name the right field under problems.*.fields.question, or mend the row",
            )
        options = row.get(fields.options)
        if isinstance(options, str):
            try:
                options = json.loads(options) if options.strip() else None
            except json.JSONDecodeError:
                options = False
        if options is not None and not (isinstance(options, list) and all(isinstance(o, str) for o in options)):
            raise DereasonError(f"{where}: row {number}: options are no list of texts", "mend the row")
        identity = row.get(fields.id) if fields.id else number
        if identity is None or str(identity) == "":
            raise DereasonError(f"{where}: row {number} has no {fields.id}", "give every row an id, or none")
        answer = row.get(fields.answer)
        solution = row.get(fields.solution) or None
        if fields.answer_marker is not None and answer is not None:
            before, marker, answer = str(answer).rpartition(fields.answer_marker)
            if not marker:
                raise DereasonError(
                    f"{where}: row {number}: no {fields.answer_marker!r} in the field {fields.answer!r}",
                    "correct problems.*.fields.answer_marker, or mend the row",
                )
            solution = solution or before.strip()
        if fields.solution_remove is not None and solution:
            solution = re.sub(fields.solution_remove, "", str(solution))
        out.append(
            {
                "id": str(identity),
                "question": question.strip(),
                "answer": None if answer is None or not str(answer).strip() else str(answer).strip(),
                "domain": str(row.get(fields.domain) or name),
                "source": str(row.get("source") or name),
                "options": options or None,
                "solution": str(solution) if solution else None,
                "solution_origin": str(Origin.HUMAN) if solution else None,
                "metadata": json.dumps({k: v for k, v in row.items() if k not in used}, default=str, sort_keys=True),
            }
        )
    return frame("problem", out)
