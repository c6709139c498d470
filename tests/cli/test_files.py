"""Files of others through the command line: read, or refused with cause and mend; exit code 3 is for bugs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dereason.cli.main import main
from dereason.pipeline.pool import do_problems
from dereason.problems.fields import Fields
from dereason.problems.schema import frame, read_table, write_table
from dereason.problems.sources import FileSource

SHARED = Path(__file__).parents[3] / "shared" / "data"
VERL = [
    {
        "prompt": [{"role": "user", "content": f"What is {n} + 1?"}],
        "reward_model": {"ground_truth": str(n + 1)},
        "data_source": "sums",
        "extra_info": {"index": n},
    }
    for n in range(3)
]
LONG = "x" * 300  # no file system has such names
VERL_FIELDS = [
    "--set=problems.fields.id=extra_info.index",
    "--set=problems.fields.question=prompt.0.content",
    "--set=problems.fields.answer=reward_model.ground_truth",
    "--set=problems.fields.domain=data_source",
]


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """The result as JSON, and what stood on stderr."""
    capsys.readouterr()
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), captured.err


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1), captured.err
    return captured.err


def route(pool: Path, out: Path, *more: str) -> list[object]:
    return ["route", pool, "--policy", "all", "--set", "set=rl", "--out", out, *more]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"question,answer\nWhat is 1,000 + 1?,1001\n", "line 2 has 3 cells and the header has 2"),
        ("a.csv", "question,answer\nWhat?,1\n".encode("utf-16"), "line 1 is no UTF-8 text"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        ("a.jsonl", b'{"question": "q", "answer": NaN}', "line 1: the answer is nan"),
        ("a.jsonl", b'{"question": "q", "answer": 1e999}', "line 1: the answer is inf"),
        ("a.jsonl", b'\n{"question": "q", "answer": [1]}', "line 2: the answer is a list"),
        ("a.jsonl", b'{"question": ' + b"[" * 100_000, "line 1 is nested too deeply"),
        ("a.json", b"", "no problems in it"),
        ("a.jsonl", b'{"question": "q", "answer": "1", "accepted": true}', "line 1: 'accepted' is no list of texts"),
        ("a.jsonl", b'{"question": "q", "answer": "1", "accepted": {"a": 1}}', "line 1: 'accepted' is no list"),
        ("a.csv", b"question,answer,tolerance\nq,1,0.1\n", "line 2: 'tolerance' is not understood"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    error = fails(capsys, *route(path, tmp_path / "out"))
    assert f"{path}: {words}" in error or (str(path) in error and words in error)
    assert " — " in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["route", LONG, "--policy", "all", "--out", "o"],
        ["route", "pool.jsonl", "--policy", "all", "--out", LONG],
        ["route", "pool.jsonl", "--policy", "all", "--out", "pool.jsonl/inside"],
        ["route", "pool.jsonl", "--policy", "pass_rate", "--profiles", LONG, "--out", "o"],
        ["analyze", LONG, "--out", "o"],
        ["verify", LONG, "--out", "o"],
        ["verify", "pool.jsonl", "--out", "pool.jsonl/inside", "--set", "fields.response=question"],
        ["run", LONG],
        ["report", LONG],
        ["run", "quickstart", "--dry-run", "--run-dir", LONG],
        ["run", "quickstart", "--dry-run", "--set", f"problems.test={{source: file, path: {LONG}}}"],
        ["run", "quickstart", "--dry-run", "--set", 'problems.test={source: file, path: "a\\0b"}'],
    ],
)
def test_a_path_that_the_system_refuses_is_no_bug(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pool.jsonl").write_text('{"question": "q", "answer": "1"}')
    assert " — " in fails(capsys, *arguments)


@pytest.mark.parametrize("accepted", [True, 1.0, {"a": 1}, "2", [2]])
def test_references_that_verify_cannot_read_are_no_bug(
    accepted: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"response": "2", "answer": "1", "accepted": accepted}))
    error = fails(capsys, "verify", path, "--out", tmp_path / "out.jsonl")
    assert f"{path}: line 1: 'accepted' is no list of texts — " in error


@pytest.mark.parametrize("metadata", ['[{"accepted": 1}]', 'no "accepted" JSON'])
def test_metadata_of_a_table_that_is_no_object_is_refused(
    metadata: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "a", "question": "q", "answer": "1", "domain": "d", "source": "s", "metadata": metadata}
    path = tmp_path / "pool.parquet"
    write_table(frame("problem", [row]), path)
    assert f"{path}: row 1: metadata is no JSON object — " in fails(capsys, *route(path, tmp_path / "out"))


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_a_setting_that_is_no_finite_number_is_refused(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"response": "2", "answer": "1"}))
    setting = f"tolerance.absolute={value}"
    error = fails(capsys, "verify", path, "--out", tmp_path / "out.jsonl", "--set", setting)
    assert "tolerance.absolute: input should be " in error


def test_single_commands_take_a_recipes_field_options_and_keys_know_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "verl.parquet", tmp_path / "out"
    pl.DataFrame(VERL).write_parquet(path)
    assert "no text in the field 'question' (it has prompt, reward_model" in fails(capsys, *route(path, out))
    record, _ = ran(capsys, *route(path, out, *VERL_FIELDS))
    assert record["info"]["sets"] == {"rl": 3}
    assert read_table("route", out / "routes.parquet")["problem_id"].to_list() == ["0", "1", "2"]
    assert "other settings" in fails(capsys, *route(path, out, *VERL_FIELDS, "--set=problems.limit=2"))
    record, _ = ran(capsys, *route(path, tmp_path / "two", *VERL_FIELDS, "--set=problems.limit=2"))
    assert record["info"]["sets"] == {"rl": 2}
    for field in ("domain", "answer"):
        misspelt = [*VERL_FIELDS, f"--set=problems.fields.{field}=datasource"]
        assert "no row has the field 'datasource'" in fails(capsys, *route(path, tmp_path / "b", *misspelt))
    unknown = route(path, tmp_path / "b", "--set=problems.fields.questions=prompt")
    assert "did you mean 'question'" in fails(capsys, *unknown)


def test_how_answers_were_read_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pool.jsonl"
    rows = [{"question": f"q{n}", "answer": n, "options": ["a", "b", "c"]} for n in (0, 1, 2)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(list(map(str, route(path, tmp_path / "out")))) == 0
    said = capsys.readouterr().err
    assert "pool.jsonl: whole numbers that are answers beside options (3) are read as positions" in said
    record, _ = ran(capsys, *route(path, tmp_path / "out"))
    assert "counted from 0 (fields.answer_is: index0)" in record["info"]["reading"][0]
    path.write_text("\n".join(map(json.dumps, rows[1:2])))
    assert "say which with fields.answer_is (index0, index1)" in fails(capsys, *route(path, tmp_path / "two"))
    record, _ = ran(capsys, *route(path, tmp_path / "two", "--set", "problems.fields.answer_is=index1"))
    assert record["info"]["reading"] == []
    path.write_text('{"question": "q", "answer": "1"}\n{"question": "r"}')
    assert "no answer in line 2" in fails(capsys, *route(path, tmp_path / "three"))
    record, _ = ran(capsys, *route(path, tmp_path / "three", "--set", "problems.drop_unanswered=true"))
    assert record["info"]["reading"] == ["pool.jsonl: problems left out because they have no answer: 1"]


def test_a_dry_run_says_how_answers_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.jsonl").write_text('{"question": "How many?", "answer": "2 and 3 are 5.\\n#### 5"}')
    (tmp_path / "test.csv").write_text('question,answer,options\nWhich?,2,"[""a"", ""b""]"\n')
    recipe = {
        "name": "dry",
        "problems": {
            "train": {"source": "file", "path": "train.jsonl"},
            "test": {"source": "file", "path": "test.csv"},
        },
        "arms": [{"name": "a", "route": {"policy": "all", "set": "rl"}, "phases": [{"kind": "rl"}]}],
    }
    path = tmp_path / "dry.yaml"
    path.write_text(yaml.safe_dump(recipe))
    plan, _ = ran(capsys, "run", path, "--dry-run", "--run-dir", tmp_path / "run")
    assert "1 reference answer is what stands behind ####" in plan["pool"]["note"]
    assert "positions among the options, counted from 1" in plan["test"]["note"]
    assert "duplicates are dropped" not in plan["test"]["note"]
    wrong = {
        "question,answer\nWhat is 1,000 + 1?,1001\n": "test.csv: line 2 has 3 cells",
        "question,answer\nq,1\nr,\n": "test.csv: no answer in line 3",
        "id,question,answer\na,q,1\na,r,2\n": "'a'",
        "question,answer,accepted\nq,1,2\n": "test.csv: line 2: 'accepted' is no list of texts",
    }
    for text, words in wrong.items():
        (tmp_path / "test.csv").write_text(text)
        assert words in fails(capsys, "run", path, "--dry-run", "--run-dir", tmp_path / "run")


RESPONSES = [
    {"response": r"\boxed{7}", "answer": "3 + 4 = 7\n#### 7", "options": None, "hit_limit": False, "note": "a"},
    {"response": "I take (B).", "answer": "1", "options": ["x", "y"], "hit_limit": True, "note": None},
    {"response": "(A)", "answer": "0", "options": ["x", "y"], "hit_limit": False, "note": "b"},
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_verify_reads_every_kind_of_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / name, tmp_path / "out.jsonl"
    if name.endswith(".csv"):
        cells = [
            row | {"options": json.dumps(row["options"]), "hit_limit": int(bool(row["hit_limit"]))} for row in RESPONSES
        ]
        pl.DataFrame(cells).write_csv(path)
    elif name.endswith(".parquet"):
        pl.DataFrame(RESPONSES).with_columns(pl.col("hit_limit").cast(pl.Float64)).write_parquet(path)
    elif name.endswith(".json"):
        path.write_text(json.dumps(RESPONSES, indent=1))
    else:
        text = "\ufeff" + "\n".join(map(json.dumps, RESPONSES))
        path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode())
    found, _ = ran(capsys, "verify", path, "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["verdict"] for row in rows] == ["correct"] * 3
    assert [row["answer"] for row in rows] == [row["answer"] for row in RESPONSES], "rows are written as they were"
    assert any("behind ####" in note for note in found["reading"])
    assert any("counted from 0" in note for note in found["reading"])


def test_verify_takes_other_field_names_and_writes_json_that_others_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    row = {"outputs": [{"text": "It is 5."}], "reward_model": {"ground_truth": 5}, "score": float("nan")}
    path.write_text(json.dumps(row))
    names = ["--set=fields.response=outputs.0.text", "--set=fields.answer=reward_model.ground_truth"]
    ran(capsys, "verify", path, "--out", out, *names)
    found = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert (found["verdict"], found["score"], found["outputs"]) == ("correct", None, row["outputs"])
    assert "line 1 has no field 'outputs.1.text'" in fails(
        capsys, "verify", path, "--out", tmp_path / "b", *names, "--set=fields.response=outputs.1.text"
    )


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.parquet", "a.tsv.gz"])
def test_analyze_reads_every_kind_of_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dereason.pipeline.responses import SampleFields, given, read_samples

    rows = [{"task": 7.0, "model": "m", "text": f"r{n}", "correct": float(n % 2), "hit_limit": ""} for n in range(3)]
    path = tmp_path / name
    if name.endswith(".json"):
        path.write_text("\n".join(map(json.dumps, rows)))
    elif name.endswith(".parquet"):
        pl.DataFrame(rows).write_parquet(path)
    else:
        text = pl.DataFrame([row | {"task": 7} for row in rows]).write_csv(separator="\t" if "tsv" in name else ",")
        path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode())
    table = read_samples([given(str(path))], fields=SampleFields(problem_id="task", response="text"))["m"]
    assert table.select("problem_id", "index", "response", "hit_limit", "verdict").rows() == [
        ("7", 0, "r0", None, "wrong"),
        ("7", 1, "r1", None, "correct"),
        ("7", 2, "r2", None, "wrong"),
    ]


def source(path: Path, **fields: Any) -> FileSource:
    return FileSource(source="file", path=str(path), fields=Fields(**fields))


def test_a_test_set_keeps_its_repeated_questions_and_what_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    rows = [("a", "q", "1"), ("b", "q", "2"), ("c", "What is 5!", "120"), ("d", "What is 5.", "5"), ("e", "q", "1")]
    path.write_text("\n".join(json.dumps(dict(zip(("id", "question", "answer"), row, strict=True))) for row in rows))
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "r", "answer": "1"}\n{"question": "r", "answer": "1"}')
    info = do_problems(tmp_path, source(path), source(other), Path(), False)
    assert read_table("problem", tmp_path / "train.parquet")["id"].to_list() == ["a", "c", "d"]
    assert info["train"]["dropped"]["duplicate question"] == 2
    assert info["warnings"] == [
        "problems.train: 1 repeated question has different answers: a, b, e ('1' against '2'); the first is kept"
    ]
    assert info["train"]["differing"] == [{"ids": ["a", "b", "e"], "answers": ["1", "2"]}]
    assert (info["test"]["n"], info["test"]["differing"]) == (2, [])
    assert info["reading"] == ["problems.test: questions that another problem asks already, all of them kept: 1"]
    info = do_problems(tmp_path, source(other), source(path), Path(), False)
    assert read_table("problem", tmp_path / "test.parquet").height == 5
    assert info["warnings"] == [
        "problems.test: 1 repeated question has different answers: a, b, e ('1' against '2'); all are kept"
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets lie beside the project and are not here")
def test_a_published_benchmark_is_scored_on_all_its_rows(tmp_path: Path) -> None:
    info = do_problems(
        tmp_path,
        source(SHARED / "gsm8k" / "train.jsonl"),
        source(SHARED / "mmlu_pro" / "questions.jsonl"),
        Path(),
        False,
    )
    assert info["test"]["n"] == 5918
    assert "asks already, all of them kept: 38" in info["reading"][0]
