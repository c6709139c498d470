"""Whatever a file holds, reading it ends well or with a cause and a mend: never with another exception.

The suite tries a few inputs, the same each time; `make fuzz` many, other ones each time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.pipeline import verdicts
from dereason.pipeline.pool import read_pool
from dereason.pipeline.responses import Given, SampleFields, read_samples
from dereason.problems.fields import Fields
from dereason.problems.hygiene import deduplicate, disagreeing, remove_overlap
from dereason.problems.schema import read_table, validate, write_table
from dereason.problems.sources import ProblemFile
from dereason.verify.verifier import Verifier
from fuzz_inputs import check_helpful, files, problem_rows, response_rows, sample_rows, texts

names = st.one_of(
    st.sampled_from(["id", "question", "answer", "options", "answer.0", "question.a", "options.A", ".", ""]), texts
)
problem_fields = st.one_of(
    st.just(Fields()),
    st.builds(
        Fields,
        id=st.one_of(st.none(), st.just("id"), names),
        question=st.one_of(st.just("question"), names),
        answer=st.one_of(st.just("answer"), names),
        domain=st.just("domain"),
        options=st.just("options"),
        solution=st.one_of(st.just("solution"), st.just("question")),
        answer_is=st.sampled_from(["auto", "letter", "index0", "index1", "text"]),
        answer_marker=st.sampled_from([None, "####", "a"]),
        solution_remove=st.sampled_from([None, "<<[^>]*>>", "."]),
    ),
)
readings = st.builds(
    ProblemFile, fields=problem_fields, limit=st.sampled_from([None, None, 1, 3]), drop_unanswered=st.booleans()
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module", autouse=True)
def one_verifier() -> Iterator[None]:
    """One set of workers for all examples."""
    with Verifier(verdicts.VerifyJob(time_limit=1, workers=1)) as verifier, pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, "Verifier", lambda _: _Kept(verifier))
        yield


class _Kept:
    """A verifier that outlives the call."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    def __enter__(self) -> Verifier:
        return self.verifier

    def __exit__(self, *_: object) -> None: ...


def put(folder: Path, file: tuple[str, bytes]) -> Path:
    path = folder / f"given{file[0]}"
    path.write_bytes(file[1])
    return path


@given(file=files(problem_rows), how=readings)
def test_problems(folder: Path, file: tuple[str, bytes], how: ProblemFile) -> None:
    path = put(folder, file)
    try:
        table, notes = read_pool(path, how)
    except DereasonError as exc:
        check_helpful(exc, path)
        return
    assert all(isinstance(note, str) for note in notes)
    write_table(validate("problem", table, "pool"), folder / "pool.parquet")
    assert read_table("problem", folder / "pool.parquet").equals(table)
    assert table["answer"].str.strip_chars().str.len_chars().min() > 0
    assert table["id"].is_unique().all()
    kept, found = deduplicate(table)
    assert kept.height + sum(len(group.others) for group in found) == table.height
    disagreeing(found)
    assert remove_overlap(kept, table)[0].is_empty()


@given(table=dataframes(min_cols=1, max_cols=4, max_size=5), data=st.data())
def test_problems_in_tables_of_any_type(folder: Path, table: pl.DataFrame, data: st.DataObject) -> None:
    roles = data.draw(st.permutations(["question", "answer", "options", "id", "solution"]))
    table.columns = roles[: table.width]
    path = folder / "typed.parquet"
    try:
        table.write_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return  # polars itself has no such file
    for read in (lambda: read_pool(path, ProblemFile()), lambda: read_samples([Given(path, "m")])):
        try:
            read()
        except DereasonError as exc:
            check_helpful(exc, path)


@given(file=files(sample_rows), pool=st.booleans(), known=st.booleans(), named=st.booleans(), response=names)
def test_responses(folder: Path, file: tuple[str, bytes], pool: bool, known: bool, named: bool, response: str) -> None:
    path = put(folder, file)
    fields = SampleFields(response=response) if len(response) % 3 == 2 else SampleFields()
    try:
        found = read_samples(
            [Given(path, "x" if named else None)], pool=pool, problems={"p", "7"} if known else None, fields=fields
        )
    except DereasonError as exc:
        check_helpful(exc)
        return
    for table in found.values():
        write_table(table, folder / "samples.parquet")


@given(file=files(response_rows))
def test_verdicts(folder: Path, file: tuple[str, bytes]) -> None:
    path, out = put(folder, file), folder / "out.jsonl"
    try:
        found = verdicts.verify_file(path, out, verdicts.VerifyJob(), overwrite=True)
    except DereasonError as exc:
        check_helpful(exc)
        return
    rows = [json.loads(line, parse_constant=pytest.fail) for line in out.read_bytes().splitlines()]
    assert len(rows) == found["rows"]


@given(file=files(problem_rows))
def test_the_command_line(folder: Path, file: tuple[str, bytes]) -> None:
    path = put(folder, file)
    arguments: list[Any] = ["route", path, "--policy", "all", "--out", folder / "routed", "--overwrite", "--json"]
    assert main(list(map(str, arguments))) in (0, 2)
