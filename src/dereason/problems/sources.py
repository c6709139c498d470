"""Where problems come from: reasoning-gym families, files, the Hugging Face hub.

To add a source, copy :class:`GymSource` and its branch in :func:`read_source`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from dereason.content import Repository, file_digest, files_digest
from dereason.errors import DereasonError
from dereason.problems.fields import Fields, Loaded, problems_of
from dereason.problems.files import Place, plain, read_parquet, read_rows
from dereason.problems.gym import arguments, check_of, reference_of
from dereason.problems.hygiene import deduplicate
from dereason.problems.references import options_of
from dereason.problems.schema import PROBLEM, Origin, frame, validate
from dereason.settings import Settings


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
    """Problems in a local file: .jsonl, .ndjson, .json, .csv, .tsv or .parquet, each also with .gz behind it."""

    source: Literal["file"]
    """Names this kind of source."""
    path: str
    """The file; a relative path is relative to the recipe."""
    fields: Fields = Fields()
    """Which fields hold what."""
    limit: int | None = Field(default=None, gt=0)
    """Take only the first rows; what answers are is still found over all."""


class ProblemFile(Settings):
    """How a single command reads the problems it is given."""

    fields: Fields = Fields()
    """Which fields hold what."""
    limit: int | None = Field(default=None, gt=0)
    """Take only the first rows; what answers are is still found over all."""
    drop_unanswered: bool = False
    """Drop problems without a reference answer; false refuses them by their place."""


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
    return read_source(source, base).table


def read_source(source: Source, base: Path = Path()) -> Loaded:
    """As :func:`load_source`, with the place of each row, and how the data was read where there are several ways."""
    if isinstance(source, GymSource):
        return _distinct(_load_gym(source), "reasoning_gym")
    if isinstance(source, FileSource):
        return read_file(base / source.path, source.fields, source.limit)
    return _load_hub(source)


def read_file(path: Path, fields: Fields, limit: int | None = None) -> Loaded:
    """Problems of a file; one that holds a PROBLEM table is taken as it is, unless ``fields`` says otherwise.

    Raises:
        DereasonError: a missing or malformed file (place named).
    """
    if fields == Fields() and path.suffix.lower() == ".parquet":
        table = read_parquet(path)
        if set(PROBLEM) <= set(table.columns):
            return _own(validate("problem", table, str(path)).head(limit or table.height), str(path))
    name = path.with_suffix("").stem if path.suffix.lower() == ".gz" else path.stem
    return problems_of(list(read_rows(path)), fields, str(path), name, limit)


def _distinct(table: pl.DataFrame, where: str) -> Loaded:
    """Generated problems: one that was made twice is no second one, in a pool or a test set.

    A few families now and then ask for the empty text, which no response can be held against.
    """
    empty = table["answer"].str.strip_chars() == ""
    table, again = deduplicate(table.filter(~empty))
    loaded = _own(table, where)
    made = sum(len(found.others) for found in again)
    notes = [f"problems made twice and taken once: {made:,}"] if made else []
    notes += [f"problems whose answer is empty, left out: {empty.sum():,}"] if empty.any() else []
    return replace(loaded, notes=[*loaded.notes, *notes])


def _own(table: pl.DataFrame, where: str) -> Loaded:
    """A PROBLEM table, whose options have to be such as every source's are."""
    places = [Place("row", at) for at in range(1, table.height + 1)]
    for place, options in zip(places, table["options"].to_list(), strict=True):
        options_of(options, f"{where}: {place}")
    return Loaded(table, where, places)


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
            make = partial(reasoning_gym.create_dataset, part.family, **arguments(part.family, part.args))
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
            check = check_of(entry, part.family)
            if check is not None:
                metadata = metadata | {"answer_check": check}
            rows.append(
                {
                    "id": f"{part.family}-{source.seed}-{at}-{i}",
                    "question": entry["question"].strip(),
                    "answer": reference_of(entry, check),
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


def _load_hub(source: HubSource) -> Loaded:
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
    where = f"{source.name}:{source.split}"
    rows = [(Place("row", at), plain(row, f"{where}: row {at}")) for at, row in enumerate(data, 1)]
    return problems_of(rows, source.fields, where, source.name.split("/")[-1])
