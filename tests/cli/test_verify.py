"""``dereason verify``: rows in, rows with verdicts out; bad rows are refused before anything is judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dereason.cli.main import main
from dereason.pipeline import verdicts
from dereason.verify.verdict import Judgement, judge_response
from dereason.verify.verifier import Item, Verifier

GOOD: list[dict[str, Any]] = [
    {"id": 1, "response": r"So \boxed{7}.", "answer": 7, "extra": {"deep": [1, None, "é"]}},
    {"response": "It is 8", "answer": "7", "hit_limit": None, "options": None},
    {"response": "I choose (B).", "answer": "two", "options": ["one", "two"]},
    {"response": "3 + 4 is", "answer": "7", "hit_limit": True},
    {"response": "", "answer": True},
    {"response": "I choose (B).", "answer": "Q", "options": ["one", "two"]},
    {"response": r"\boxed{x+x} half a pair: \ud800", "answer": "2x", "options": []},
]


def rows_file(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    code = main(["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1), captured.err
    return captured.err


def test_rows_keep_what_they_had_and_get_their_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = rows_file(tmp_path, GOOD), tmp_path / "new" / "out.jsonl"
    assert main(["verify", str(path), "--out", str(out)]) == 0
    found = read(out)
    assert [{k: v for k, v in row.items() if k not in verdicts.FIELDS} for row in found] == GOOD
    assert [row["verdict"] for row in found] == [
        "correct", "wrong", "correct", "truncated", "unparsable", "error", "correct",
    ]  # fmt: skip
    for row in found:
        answer = row["answer"] if isinstance(row["answer"], str) else json.dumps(row["answer"])
        judged = judge_response(row["response"], bool(row.get("hit_limit")), answer, row.get("options"))
        place = None if judged.start is None else [judged.start, judged.end]
        assert {k: row[k] for k in verdicts.FIELDS} == {**judged.columns(), "extracted_at": place}
        if place is not None:
            assert row["extracted"] in row["response"][slice(*place)]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["kind", "correct", "wrong", "unparsable", "truncated", "error", "strict", "n"]
    assert any("1 × error: verifier failed: the reference 'Q' names none of the 2 options" in line for line in shown)
    assert shown[-1] == f"{out}: 7 rows"
    assert {p.name for p in out.parent.iterdir()} == {"out.jsonl", ".out.jsonl.lock.d"}


def test_both_verdicts_stand_in_the_rows_and_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A box and then babble, an answer in a thought, all options, two answers in a tag, a cut, a letter."""
    letters = ["one", "two", "three"]
    rows = [
        ({"response": r"\boxed{42}. Let me check 6 * 7 again, or 43", "answer": "42"}, "correct", True, "boxed"),
        ({"response": "Then 6 * 7 makes 42", "answer": "42"}, "correct", False, "number"),
        ({"response": "<think>the answer is 42</think> It is 41", "answer": "42"}, "wrong", False, "number"),
        ({"response": "<think>the answer is 42", "answer": "42"}, "unparsable", False, None),
        ({"response": "A. one\nB. two\nC. three", "answer": "C", "options": letters}, "unparsable", False, None),
        ({"response": "(A), (B) or (C)", "answer": "C", "options": letters}, "unparsable", False, None),
        ({"response": "So I choose C.", "answer": "C", "options": letters}, "correct", True, "letter"),
        ({"response": "<answer>42, or 43</answer>", "answer": "42"}, "wrong", False, "tag"),
        ({"response": "The answer is 42", "answer": "42", "hit_limit": True}, "truncated", False, None),
        ({"response": "#### 42\nso 4", "answer": "42", "hit_limit": True}, "correct", True, "hash"),
    ]
    path, out = rows_file(tmp_path, [row for row, *_ in rows]), tmp_path / "out.jsonl"
    assert main(["verify", str(path), "--out", str(out)]) == 0
    assert [(r["verdict"], r["strict"], r["how"]) for r in read(out)] == [tuple(said) for _, *said in rows]
    head, number, choice, rules, _ = capsys.readouterr().out.splitlines()
    counts = dict(zip(head.split(), number.split(), strict=True))
    assert (counts["correct"], counts["strict"], counts["n"]) == ("3", "2", "7")
    assert choice.split()[-2:] == ["1", "3"]
    assert rules.startswith("answers found by: number ")


def test_json_and_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = {"response": r"\boxed{9^{9^{9^9}}}", "answer": "2^{10}"}
    path, out = rows_file(tmp_path, [*GOOD, bomb]), tmp_path / "out.jsonl"
    assert main(["verify", str(path), "--out", str(out), "--set", "time_limit=0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 8
    assert found["settings"]["time_limit"] == 0.5
    assert found["confusion"]["errors"]["symbolic comparison took longer than 0.5 s"] == 1
    assert sum(kind["n"] + kind["error"] for kind in found["confusion"]["kinds"].values()) == 8
    assert "unknown key" in fails(capsys, path, "--out", tmp_path / "b", "--set", "timelimit=1")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"response": "a", ', "line 3 is not JSON"),
        ("[1]", "line 3 is a list"),
        ({"answer": "1"}, "line 3 has no field 'response' (it has answer)"),
        ({"response": 5, "answer": "1"}, "line 3: response is 5"),
        ({"response": "a"}, "line 3 has no field 'answer'"),
        ({"response": "a", "answer": " "}, 'line 3: answer is " "'),
        ({"response": "a", "answer": ["1"]}, "line 3: the answer is a list"),
        ({"response": "a", "answer": "1", "options": "AB"}, "line 3: options are a text that is not JSON"),
        ({"response": "a", "answer": "1", "options": [1]}, "line 3: a single option"),
        ({"response": "a", "answer": "1", "hit_limit": "no"}, 'line 3: hit_limit is "no"'),
        ({"response": "a", "answer": "1", "verdict": "mine"}, "line 3 has a field 'verdict' already"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, row: Any, message: str
) -> None:
    monkeypatch.setattr(verdicts, "Verifier", None)  # would fail loudly
    path = rows_file(tmp_path, [GOOD[0], row])
    error = fails(capsys, path, "--out", tmp_path / "out.jsonl")
    assert f"{path}: {message}" in error
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_an_output_is_replaced_only_when_asked_and_only_if_it_is_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = rows_file(tmp_path, GOOD[:2]), tmp_path / "out.jsonl"
    out.write_text("my notes\n")
    assert "holds no verdicts of dereason" in fails(capsys, path, "--out", out, "--overwrite")
    assert out.read_text() == "my notes\n"
    assert "holds no verdicts" in fails(capsys, path, "--out", path, "--overwrite")
    assert "holds no verdicts" in fails(capsys, path, "--out", tmp_path, "--overwrite")
    out.unlink()
    assert main(["verify", str(path), "--out", str(out)]) == 0
    rows_file(tmp_path, GOOD[:1])
    assert "give --overwrite" in fails(capsys, path, "--out", out)
    assert len(read(out)) == 2
    assert main(["verify", str(path), "--out", str(out), "--overwrite"]) == 0
    assert len(read(out)) == 1
    assert "no rows in it" in fails(capsys, rows_file(tmp_path, [""]), "--out", tmp_path / "c")
    assert "no such file" in fails(capsys, tmp_path / "nowhere.jsonl", "--out", tmp_path / "c")


def test_an_interrupted_call_goes_on_and_ends_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out, whole = rows_file(tmp_path, GOOD * 3), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    monkeypatch.setattr(verdicts, "BATCH", 5)
    assert main(["verify", str(path), "--out", str(whole)]) == 0
    judged: list[int] = []
    original = Verifier.judge_many

    def count(self: Verifier, items: Sequence[Item], stop_after: int = 10**9) -> list[Judgement]:
        judged.append(len(items))
        if len(judged) > stop_after:
            raise KeyboardInterrupt
        return original(self, items)

    with monkeypatch.context() as planted:
        planted.setattr(Verifier, "judge_many", lambda self, items: count(self, items, 2))
        assert main(["verify", str(path), "--out", str(out)]) == 130
    assert "goes on" in capsys.readouterr().err
    assert not out.exists()
    part = next(tmp_path.glob("out.jsonl.*.part"))
    with part.open("ab") as handle:
        handle.write(b'{"response": "cut sh')  # the line that a kill cut short
    judged.clear()
    monkeypatch.setattr(Verifier, "judge_many", count)
    assert main(["verify", str(path), "--out", str(out)]) == 0
    assert sum(judged) == len(GOOD) * 3 - 10
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_rows_that_changed_since_the_interruption_are_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = rows_file(tmp_path, GOOD), tmp_path / "out.jsonl"
    with monkeypatch.context() as planted:
        planted.setattr(Path, "replace", lambda self, target: exec("raise KeyboardInterrupt"))
        assert main(["verify", str(path), "--out", str(out)]) == 130
    assert len(list(tmp_path.glob("out.jsonl.*.part"))) == 1
    changed = [GOOD[0], {**GOOD[1], "answer": "something else"}, *GOOD[2:]]
    rows_file(tmp_path, changed)
    assert main(["verify", str(path), "--out", str(out)]) == 0
    assert [row["answer"] for row in read(out)] == [row["answer"] for row in changed]
    assert read(out)[1]["verdict"] == "wrong"
    assert not list(tmp_path.glob("*.part")), "it went on from there"
