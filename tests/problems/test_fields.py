"""Rows with fields of any name as problem tables, and what is said and refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dereason.errors import DereasonError
from dereason.problems.fields import Fields, Loaded
from dereason.problems.schema import frame, validate, write_table
from dereason.problems.sources import FileSource, fingerprint, read_source

QA = {"question": "q", "answer": "1"}
GSM8K = {"question": "How many?", "answer": "She has 2 and 3.\n2 + 3 = <<2+3=5>>5\n#### 5"}


def load(folder: Path, rows: list[Any], limit: int | None = None, **fields: Any) -> Loaded:
    path = folder / "pool.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    source = FileSource(source="file", path=path.name, fields=Fields(**fields), limit=limit)
    loaded = read_source(source, folder)
    validate("problem", loaded.table.filter(loaded.table["answer"].is_not_null()), "test")
    return loaded


def refusal(folder: Path, rows: list[Any], **fields: Any) -> str:
    with pytest.raises(DereasonError) as caught:
        load(folder, rows, **fields)
    assert str(folder / "pool.jsonl") in caught.value.cause
    assert caught.value.mend
    return caught.value.line()


def test_verl_rows_are_read_by_dots(tmp_path: Path) -> None:
    row = {
        "data_source": "gsm8k",
        "prompt": [{"role": "user", "content": "What is 1 + 1?"}],
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 7, "split": "train"},
    }
    names = {
        "id": "extra_info.index",
        "question": "prompt.0.content",
        "answer": "reward_model.ground_truth",
        "domain": "data_source",
    }
    for given in ([row], [row | {"extra_info": {"index": 7.0}}]):
        table = load(tmp_path, given, **names).table
        assert table.select("id", "question", "answer", "domain").rows() == [("7", "What is 1 + 1?", "2", "gsm8k")]
    error = refusal(tmp_path, [row], **names | {"question": "prompt"})
    assert "line 1 has no text in the field 'prompt'" in error
    assert "prompt.0.content" in error
    assert "the answer is an object (it has style, ground_truth)" in refusal(
        tmp_path, [row], **names | {"answer": "reward_model"}
    )


def test_the_mark_of_an_answer_is_read_and_said(tmp_path: Path) -> None:
    loaded = load(tmp_path, [GSM8K, {"question": "And?", "answer": r"So \boxed{6}.", "solution": "mine"}, QA])
    assert loaded.table["answer"].to_list() == ["5", "6", "1"]
    assert loaded.table["solution"].to_list() == ["She has 2 and 3.\n2 + 3 = <<2+3=5>>5", "mine", None]
    assert loaded.notes == [
        "1 reference answer is what stands behind #### in the answer field; what is around it is the solution where "
        "the row gives none",
        "1 reference answer is the content of the last \\boxed{} in the answer field; what is around it is the "
        "solution where the row gives none",
        "solutions hold calculator notes as in <<1+1=2>> (1); fields.solution_remove: '<<[^>]*>>' takes them out",
    ]
    loaded = load(tmp_path, [GSM8K], answer_marker="####", solution_remove="<<[^>]*>>")
    assert loaded.table["solution"].to_list() == ["She has 2 and 3.\n2 + 3 = 5"]
    assert loaded.notes == []
    assert "line 3: no '####' in the answer" in refusal(tmp_path, [GSM8K, QA], answer_marker="####")


def test_what_answers_are_is_found_over_the_whole_file_and_said(tmp_path: Path) -> None:
    rows = [QA | {"answer": at, "options": ["a", "b", "c"]} for at in (1, 2, 0)]
    loaded = load(tmp_path, rows, limit=2)
    assert loaded.table["answer"].to_list() == ["B", "C"]
    assert loaded.notes == [
        "whole numbers that are answers beside options (3) are read as positions among the options, counted from 0 "
        "(fields.answer_is: index0)"
    ]
    assert "say which with fields.answer_is" in refusal(tmp_path, rows[:2])
    assert load(tmp_path, rows[:2], answer_is="index1").table["answer"].to_list() == ["A", "B"]
    chosen = FileSource(source="file", path="pool.jsonl", fields=Fields(answer_is="index1"))
    assert fingerprint(chosen, tmp_path) != fingerprint(FileSource(source="file", path="pool.jsonl"), tmp_path)


def test_half_a_surrogate_pair_is_replaced_and_said(tmp_path: Path) -> None:
    row = {"id": "\ud800", "question": "q\udfff", "answer": "\ud83d!", "note": "\ud800", "options": ["a\ud800", "b"]}
    loaded = load(tmp_path, [row | {"answer": "a\ud800"}])
    assert loaded.table["question"].to_list() == ["q\ufffd"]
    assert loaded.table["options"].to_list() == [["a\ufffd", "b"]]
    assert json.loads(loaded.table["metadata"][0]) == {"note": "\ud800"}
    assert loaded.notes == ["texts hold half of a surrogate pair (4), which is replaced by U+FFFD"]


def test_metadata_is_json_that_every_reader_takes(tmp_path: Path) -> None:
    found = load(tmp_path, [QA | {"score": float("nan"), "deep": {"x": [float("inf"), 1.5]}}]).table["metadata"][0]
    assert json.loads(found) == {"score": None, "deep": {"x": [None, 1.5]}}
    assert "NaN" not in found


@pytest.mark.parametrize(
    ("rows", "fields", "words"),
    [
        ([QA, {"question": " ", "answer": "1"}], {}, "line 3 has no text in the field 'question'"),
        ([QA, QA | {"answer": float("nan")}], {}, "line 3: the answer is nan"),
        ([QA, QA | {"answer": {"a": 1}}], {}, "line 3: the answer is an object"),
        ([QA | {"id": "a"}, QA], {}, "line 3 has no id in the field 'id'"),
        ([QA | {"id": ["a"]}], {}, "line 1 has no id in the field 'id'"),
        ([QA | {"domain": ["a"]}], {}, "line 1: domain is no text"),
        ([QA | {"options": ["a"]}], {}, "line 1: a single option"),
        ([QA, QA], {"id": "uid"}, "no row has the field 'uid' (the first has question, answer)"),
        ([QA], {"solution": "cot"}, "no row has the field 'cot'"),
        ([], {}, "no problems in it"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[Any], fields: Any, words: str) -> None:
    assert words in refusal(tmp_path, rows, **fields)


def test_a_problem_table_is_taken_as_it_is_unless_fields_say_otherwise(tmp_path: Path) -> None:
    row = {"id": "a", "question": "q", "answer": "1", "domain": "d", "source": "s", "solution": "x"}
    table = frame("problem", [row | {"solution_origin": "reference", "metadata": '{"level": 2}'}])
    write_table(table, tmp_path / "p.parquet")
    source = FileSource(source="file", path="p.parquet")
    assert read_source(source, tmp_path).table.equals(table)
    other = read_source(source.model_copy(update={"fields": Fields(question="solution")}), tmp_path).table
    assert other["question"].to_list() == ["x"]
    write_table(frame("problem", [row | {"options": [str(at) for at in range(30)]}]), tmp_path / "p.parquet")
    with pytest.raises(DereasonError, match=r"p\.parquet: row 1: 30 options"):
        read_source(source, tmp_path)
