"""Rows of a file, whatever tool wrote it: the one reader of problems, responses and verdicts.

Read are JSON Lines (``.jsonl``, ``.ndjson``, and ``.json``, where a list of objects is read too), ``.csv``, ``.tsv``
and ``.parquet``, each also compressed by gzip. Every row comes with its place: of a text the line on which it begins,
as an editor counts (blank lines and line ends inside cells included), of a list or a Parquet file its row from 1.

Whatever is not such a file ends as a :class:`DereasonError` that names file and place.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import polars as pl

from dereason.errors import DereasonError

Row = dict[str, Any]
ENDINGS = ".jsonl, .ndjson, .json, .csv, .tsv or .parquet, each maybe with .gz behind it"

_GZIP = b"\x1f\x8b"
_LFS = b"version https://git-lfs.github.com/spec/"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = "\ufeff"
_DEEPEST = 100  # no data is nested so deeply, and Python's own limit comes soon after
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0+)?", re.ASCII)
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


class Place(NamedTuple):
    """Where a row stands in its file."""

    unit: str
    """``line`` of a text, ``row`` of a list or table."""
    number: int
    """From 1."""

    def __str__(self) -> str:
        return f"{self.unit} {self.number}"


def listed(places: Sequence[Place], limit: int = 10) -> str:
    """Places of one file in words: ``line 3``, ``rows 1, 2 and 5 more``."""
    more = f" and {len(places) - limit} more" if len(places) > limit else ""
    numbers = ", ".join(str(place.number) for place in places[:limit])
    return f"{places[0].unit}{'s' * (len(places) > 1)} {numbers}{more}"


def read_rows(path: Path) -> Iterator[tuple[Place, Row]]:
    """Each row with its place. Values are those of JSON; what a Parquet file has besides is made text.

    Cells of CSV are texts. Floats may be NaN or infinite, and texts may hold half a surrogate pair.

    Raises:
        DereasonError: no such file, an unknown ending, or something in it that is no such file (place named).
    """
    check_file(path)
    ending = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    readers = {".jsonl": _json, ".ndjson": _json, ".json": _json, ".csv": _cells, ".tsv": _cells}
    if ending == ".parquet":
        yield from _parquet(path)
        return
    if ending not in readers:
        raise DereasonError(f"{path}: unknown ending {path.suffix!r}", f"use {ENDINGS}")
    try:
        with _opened(path) as handle:
            yield from readers[ending](path, handle, ending)
    except (OSError, EOFError, zlib.error) as exc:
        raise DereasonError(f"{path}: cannot be read: {exc}", "write or copy the file again") from exc


def check_file(path: Path, mend: str = "check the path") -> None:
    """Refuse what is no file that can be opened.

    Raises:
        DereasonError: missing, a folder, or a name that the system refuses.
    """
    try:
        there, folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as exc:  # a name that is too long, or holds a NUL
        raise DereasonError(f"{path}: no such file ({exc})", mend) from exc
    if not there:
        raise DereasonError(f"{path}: {'a folder, not a file' if folder else 'no such file'}", mend)


def read_parquet(path: Path) -> pl.DataFrame:
    """A Parquet file, maybe compressed by gzip as a whole.

    Raises:
        DereasonError: there is none, or it cannot be read.
    """
    check_file(path)
    try:
        with _opened(path) as handle:
            packed = io.BytesIO(handle.read()) if isinstance(handle, gzip.GzipFile) else None
        # A name with [1] or * in it is a name, no pattern.
        return pl.read_parquet(packed or path, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError, zlib.error, ValueError) as exc:
        raise DereasonError(f"{path}: not a readable Parquet file ({exc})", "write it again") from exc


def field(row: Row, name: str) -> Any:
    """The value of a field; None where the row has none.

    A name with dots that is no field itself leads inside: ``reward_model.ground_truth``, ``prompt.0.content``.
    """
    if name in row:
        return row[name]
    here: Any = row
    for part in name.split("."):
        if isinstance(here, dict):
            here = here.get(part)
        elif isinstance(here, list) and part.isascii() and part.isdecimal() and len(part) < 10:
            here = here[int(part)] if int(part) < len(here) else None
        else:
            return None
    return here


def flag(value: Any) -> bool | None:
    """A truth value as tools write them: true, 1, 1.0, ``"True"``; None where it is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    return _FLAGS.get(value.strip().casefold()) if isinstance(value, str) else None


def whole(value: Any) -> int | None:
    """A whole number as tools write them: 3, 3.0, ``"3"``; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value.strip().partition(".")[0]) if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else None


def name_of(value: Any) -> str | None:
    """An id as text: a number without its zeros (pandas makes 7 into 7.0); None where it is missing or no id."""
    if isinstance(value, str):
        return value or None
    number = whole(value)
    return None if number is None else str(number)


def finite(value: Any) -> Any:
    """A value of JSON as every reader of JSON takes it: NaN and the infinities, which it does not have, become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list) else value


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """A value of a table as JSON has it; bytes as their text or in base64, dates and decimals as text.

    Raises:
        DereasonError: it is nested more than 100 deep.
    """
    if depth > _DEEPEST:
        raise DereasonError(f"{where} is nested more than {_DEEPEST} deep", "flatten the row")
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): plain(inner, where, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, where, depth + 1) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(value).decode("ascii")
    return str(value)


def _opened(path: Path) -> BinaryIO:
    """The content, decompressed where it is compressed whatever the name says."""
    with path.open("rb") as handle:
        head = handle.read(len(_LFS))
    if head == _LFS:
        raise DereasonError(f"{path}: a git-lfs pointer, not the data", "fetch the data: git lfs pull")
    return gzip.open(path, "rb") if head.startswith(_GZIP) else path.open("rb")  # type: ignore[return-value]


# a date beyond the year 9999, a time zone that is not installed
_NO_VALUE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OverflowError, KeyError)


def _parquet(path: Path) -> Iterator[tuple[Place, Row]]:
    table = read_parquet(path)
    for start in range(0, table.height, 1000):
        part = table.slice(start, 1000)
        try:
            rows: Iterable[Row] = part.rows(named=True)
        except _NO_VALUE:
            rows = _one_by_one(path, part, start)
        for number, row in enumerate(rows, start + 1):
            place = Place("row", number)
            yield place, {name: plain(value, f"{path}: {place}") for name, value in row.items()}


def _one_by_one(path: Path, part: pl.DataFrame, start: int) -> Iterator[Row]:
    """Rows up to the one that cannot be read."""
    for at in range(part.height):
        try:
            yield part.row(at, named=True)
        except _NO_VALUE as exc:
            place = Place("row", start + at + 1)
            raise DereasonError(f"{path}: {place} cannot be read: {exc}", "write the column as text") from exc


def _decoded(line: bytes, where: str) -> str:
    if line.startswith(_UTF16) or b"\0" in line:
        raise DereasonError(f"{where} is no UTF-8 text (it holds NUL bytes, as UTF-16 does)", "save the file as UTF-8")
    try:
        return line.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as exc:
        raise DereasonError(f"{where} is no UTF-8 text ({exc})", "save the file as UTF-8") from exc


class _TwiceError(ValueError):
    """A key of an object stands twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def _parsed(text: str, where: str, mend: str) -> Any:
    try:
        value = _DECODER.decode(text)
    except _TwiceError as exc:
        raise DereasonError(f"{where}: {exc}", "leave one of them out") from exc
    except RecursionError as exc:
        raise DereasonError(f"{where} is nested too deeply", "flatten the row") from exc
    except ValueError as exc:
        raise DereasonError(f"{where} is not JSON ({exc})", mend) from exc
    # text that opens few brackets cannot be nested deeply, and looking at every value takes longer than parsing
    return plain(value, where) if text.count("[") + text.count("{") > _DEEPEST else value


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DereasonError(f"{where} is a {type(value).__name__}", "each row must be an object")
    return value


def _json(path: Path, handle: BinaryIO, ending: str) -> Iterator[tuple[Place, Row]]:
    """JSON Lines, or one list of objects."""
    number, first = 0, b""
    while not first:  # the first line that is not blank says which
        number, line = number + 1, handle.readline()
        first = line.strip().removeprefix(_BOM.encode()).lstrip()
        if not line:
            return
    rest = any(line.strip() for line in handle)
    handle.seek(0)
    one_value = first.startswith(b"[") or (first.startswith(b"{") and ending == ".json" and rest)
    if one_value and not (rest and _is_json(first)):
        yield from _json_list(path, handle.read(), number)
    else:
        yield from _json_lines(path, handle)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _json_lines(path: Path, handle: BinaryIO) -> Iterator[tuple[Place, Row]]:
    file = str(path)
    for number, line in enumerate(handle, 1):
        place = Place("line", number)
        where = f"{file}: line {number}"
        text = _decoded(line, where)
        if text.strip():
            yield place, _object(_parsed(text, where, "mend that line"), where)


def _json_list(path: Path, data: bytes, begins: int) -> Iterator[tuple[Place, Row]]:
    lines = data.splitlines(keepends=True)
    text = "".join(_decoded(line, f"{path}: line {number}") for number, line in enumerate(lines, 1))
    try:
        value = _parsed(text, str(path), "write a list of objects, or one object a line")
    except DereasonError as exc:
        at = getattr(exc.__cause__, "lineno", None)
        if at is None:
            raise
        raise DereasonError(f"{path}: line {at} is not JSON ({exc.__cause__})", "mend that line") from exc
    if not isinstance(value, list):
        raise DereasonError(
            f"{path}: line {begins} begins one object, not a list of them",
            "write a JSON list of objects, or one object a line",
        )
    for number, row in enumerate(value, 1):
        place = Place("row", number)
        yield place, _object(row, f"{path}: {place}")


def _cells(path: Path, handle: BinaryIO, ending: str) -> Iterator[tuple[Place, Row]]:
    """CSV or TSV with a header; cells of any length."""
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    lines = _text_lines(path, handle)
    first = next(lines, "")
    delimiter = "\t" if ending == ".tsv" else ","
    if ending == ".csv" and "," not in first:  # as spreadsheets write it where the comma is the decimal sign
        delimiter = ";" if ";" in first else "\t" if "\t" in first else ","
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    begins = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            raise DereasonError(
                f"{path}: {Place('line', begins)} is no row of cells ({exc})",
                'close each quote that opens a cell, and double the quotes inside it ("")',
            ) from exc
        if cells is None:
            return
        place, begins = Place("line", begins), reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue  # a blank line, or the empty rows that a spreadsheet leaves below the data
        if header is None:
            header = _header(cells, f"{path}: {place}")
            continue
        if len(cells) != len(header):
            raise DereasonError(
                f"{path}: {place} has {len(cells)} cells and the header has {len(header)}",
                f'put cells that hold a {_NAMES[delimiter]} between quotes, as in "1{delimiter}000"',
            )
        yield place, dict(zip(header, cells, strict=True))


_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DereasonError(f"{where}: the header names {twice[0]!r} twice", "give every column a name of its own")
    return names


def _text_lines(path: Path, handle: BinaryIO) -> Iterator[str]:
    """Lines with their ends, whichever of the three kinds these are."""
    number = 0
    for data in handle:
        for line in re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", _decoded(data, f"{path}: line {number + 1}")):
            number += 1
            yield line
