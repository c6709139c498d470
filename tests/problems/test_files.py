"""The one reader of rows, on files as other tools write them and on files that are none."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from dereason.errors import DereasonError
from dereason.problems.files import field, flag, listed, name_of, read_rows, whole

ROWS = [
    {"question": "What is 1,000 + 1?", "answer": "1001"},
    {"question": 'Say "x;\ty"\r\non two lines', "answer": "é \u2028 \U0001f600"},
]


def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(str(place), row) for place, row in read_rows(path)]


def refusal(path: Path) -> str:
    with pytest.raises(DereasonError) as caught:
        read(path)
    assert str(path) in caught.value.cause
    assert caught.value.mend
    return caught.value.line()


def by_csv(path: Path, **how: Any) -> None:
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as handle:
        writer = csv.DictWriter(handle, list(ROWS[0]), **how)
        writer.writeheader()
        writer.writerows(ROWS)


WRITERS = {
    "json.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, ROWS))),
    "json-lines.json": lambda path: path.write_text("\n\n".join(map(json.dumps, ROWS)) + "\n"),
    "pretty.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "list.jsonl": lambda path: path.write_text("\n" + json.dumps(ROWS)),
    "marked.ndjson": lambda path: path.write_text(
        "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8-sig", newline=""
    ),
    "polars.ndjson": lambda path: pl.DataFrame(ROWS).write_ndjson(path),
    "polars.json": lambda path: pl.DataFrame(ROWS).write_json(path),
    "polars.csv": lambda path: pl.DataFrame(ROWS).write_csv(path),
    "polars-marked.csv": lambda path: pl.DataFrame(ROWS).write_csv(path, include_bom=True, quote_style="always"),
    "polars.tsv": lambda path: pl.DataFrame(ROWS).write_csv(path, separator="\t"),
    "polars.parquet": lambda path: pl.DataFrame(ROWS).write_parquet(path),
    "UPPER.CSV": by_csv,
    "excel.csv": lambda path: by_csv(path, dialect="excel", encoding="utf-8-sig"),
    "excel-tab.tsv": lambda path: by_csv(path, dialect="excel-tab"),
    "semicolons.csv": lambda path: by_csv(path, delimiter=";", quoting=csv.QUOTE_ALL),
    "tabs.csv": lambda path: by_csv(path, delimiter="\t"),
    "unix.csv": lambda path: by_csv(path, dialect="unix"),
    "arrow[1].parquet": lambda path: pa.parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "datasets.parquet": lambda path: datasets.Dataset.from_list(ROWS).to_parquet(path),
    "datasets.csv": lambda path: datasets.Dataset.from_list(ROWS).to_csv(path),
    "datasets.jsonl": lambda path: datasets.Dataset.from_list(ROWS).to_json(path),
    "datasets.json": lambda path: datasets.Dataset.from_list(ROWS).to_json(path, lines=False),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_tool_writes_the_same_rows(name: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    if packed:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path = tmp_path / f"{name}.gz"
    assert [row for _, row in read(path)] == ROWS


def test_places_are_what_an_editor_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'question,answer\r\n\r\n"two\r\n\r\nlines",1\r\n,\r\nlast,2\r\n')
    assert read(path) == [
        ("line 3", {"question": "two\r\n\r\nlines", "answer": "1"}),
        ("line 7", {"question": "last", "answer": "2"}),
    ]
    path.write_bytes(b"question,answer\rold,1\rmac,2")  # line ends of old Macs
    assert [place for place, _ in read(path)] == ["line 2", "line 3"]
    path = tmp_path / "a.jsonl"
    path.write_text('\n\n{"a": 1}\n  \n{"a": 2}')
    assert [place for place, _ in read(path)] == ["line 3", "line 5"]
    path.write_text('[{"a": 1},\n\n{"a": 2}]')
    assert [place for place, _ in read(path)] == ["row 1", "row 2"], "a list has no lines"
    assert listed([place for place, _ in read_rows(path)]) == "rows 1, 2"


def test_a_cell_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"question,answer\n{'x' * 300_000},1\n")
    assert len(read(path)[0][1]["question"]) == 300_000


def test_an_index_column_without_a_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pandas.csv"
    path.write_text(",question,answer\n0,a,1\n")
    assert read(path) == [("line 2", {"": "0", "question": "a", "answer": "1"})]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"question,answer\n\nWhat is 1,000 + 1?,1001\n", "line 3 has 3 cells and the header has 2"),
        ("a.csv", b"question,answer\nWhat is it?\n", "line 2 has 1 cells"),
        ("a.csv", b'question,answer\na,1\n"b,2\nc,3\n', "line 3 is no row of cells"),
        ("a.csv", b'question,answer\n"a"b,1\n', "line 2 is no row of cells"),
        ("a.csv", b"question,question\na,1\n", "line 1: the header names 'question' twice"),
        ("a.csv", "question,answer\né,1\n".encode("utf-16"), "line 1 is no UTF-8 text"),
        ("a.csv", "question,answer\ne,1\n".encode("utf-16-le"), "line 1 is no UTF-8 text"),
        ("a.csv", b"question,answer\na,1\ncaf\xe9,2\n", "line 3 is no UTF-8 text"),
        ("a.csv", b"question,answer\na\0,1\n", "line 2 is no UTF-8 text"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "line 1 is no UTF-8 text"),
        ("a.jsonl", b'{"a": "\xff"}', "line 1 is no UTF-8 text"),
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}', "line 2: the key 'a' stands twice"),
        ("a.jsonl", b'{"a": 1}\n' + b'{"a":' * 5000, "line 2 is nested too deeply"),
        ("a.jsonl", b'{"a": 1}\n' + b'{"a":' * 200 + b"1" + b"}" * 200, "line 2 is nested more than 100 deep"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": ', "line 3 is not JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]', "line 2 is a list"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "line 1 is not JSON"),
        ("a.json", b'\n{\n"a": 1\n}\n', "line 2 begins one object"),
        ("a.json", b'[\n{"a": 1},\n{"a" 2}\n]', "line 3 is not JSON"),
        ("a.json", b'[{"a": 1}, 5]', "row 2 is a int"),
        ("a.json", b'[{"a": 1},\n{"a": "caf\xe9"}]', "line 2 is no UTF-8 text"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.parquet", b"", "not a readable Parquet file"),
        ("a.parquet", b"PAR1 and no more PAR1", "not a readable Parquet file"),
        ("a.parquet.gz", gzip.compress(b"no", mtime=0), "not a readable Parquet file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:-9], "cannot be read"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-8] + b"12345678", "cannot be read"),
        ("a.xlsx", b"PK", "unknown ending '.xlsx'"),
        ("a", b"{}", "unknown ending ''"),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a git-lfs pointer, not the data — fetch the data: git lfs pull",
        ),
    ],
)
def test_what_is_no_such_file_is_refused_by_its_place(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert words in refusal(path)


@pytest.mark.parametrize("name", ["folder.jsonl", "gone.csv", "x" * 300 + ".jsonl", "nul\0.jsonl"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    assert "a folder" in refusal(tmp_path / name) or "no such file" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert read(path) == []


def test_values_of_a_table_become_those_of_json(tmp_path: Path) -> None:
    row = {
        "day": datetime.date(2024, 2, 29),
        "money": Decimal("4.20"),
        "text": "é".encode(),
        "picture": b"\xff\xd8",
        "chat": [{"role": "user", "content": "q"}],
        "reward_model": {"ground_truth": "7", "style": None},
        "kind": "a",
    }
    path = tmp_path / "a.parquet"
    pl.DataFrame([row]).with_columns(pl.col("kind").cast(pl.Categorical)).write_parquet(path)
    found = read(path)[0][1]
    assert json.loads(json.dumps(found)) == {
        "day": "2024-02-29",
        "money": "4.20",
        "text": "é",
        "picture": "/9g=",
        "chat": [{"role": "user", "content": "q"}],
        "reward_model": {"ground_truth": "7", "style": None},
        "kind": "a",
    }


def test_a_day_that_python_does_not_know_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"day": [0, 10**7]}, schema={"day": pl.Int32}).cast(pl.Date).write_parquet(path)
    assert "row 2 cannot be read" in refusal(path)


def test_dots_lead_inside() -> None:
    row = {"a": {"b": [{"c": 1}, 5]}, "a.b": "flat", "x": {"y": None}}
    assert [field(row, name) for name in ("a.b", "a.b.0.c", "a.b.1", "x.y", "x.y.z", "a.b.2", "a.b.-1", "gone")] == [
        "flat", 1, 5, None, None, None, None, None,
    ]  # fmt: skip


def test_numbers_and_truth_as_tools_write_them() -> None:
    assert [flag(v) for v in (True, 1, 1.0, "True", "1.0")] == [True] * 5
    assert [flag(v) for v in (False, 0, 0.0, "false", " FALSE ")] == [False] * 5
    assert [flag(v) for v in (2, 0.5, "maybe", "", None, [], float("nan"))] == [None] * 7
    assert [whole(v) for v in (3, 3.0, "3", " 3.0 ", "-3")] == [3, 3, 3, 3, -3]
    assert [whole(v) for v in (True, 3.5, "3.5", "", "٣", None, float("inf"), "1e3", "9" * 5000)] == [None] * 9
    assert [name_of(v) for v in (7, 7.0, "7.0", "x")] == ["7", "7", "7.0", "x"]
    assert [name_of(v) for v in (7.5, "", None, True, {}, float("nan"))] == [None] * 6
