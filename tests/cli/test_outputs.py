"""Outputs of single commands: nothing that was computed goes unasked, and nobody else's folder is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dereason.cli.main import main
from dereason.errors import DereasonError
from dereason.pipeline import actions, store
from dereason.pipeline.output import make_way


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    rows = [{"id": f"p{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(4)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    known = {"problem_id": [row["id"] for row in rows], "model": "m@1", "n": 4, "pass_rate": [0.0, 0.25, 0.5, 1.0]}
    pl.DataFrame(known).write_parquet(tmp_path / "profiles.parquet")
    return path


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


def routing(pool: Path, out: Path, *more: str, fraction: float = 0.5) -> list[str]:
    given = ["--profiles", str(pool.with_name("profiles.parquet")), "--policy", "quantile", "--set", "score=pass_rate"]
    return ["route", str(pool), *given, "--set", f"rl_fraction={fraction}", "--out", str(out), *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def interrupt(monkeypatch: pytest.MonkeyPatch, after: Callable[..., Any]) -> pytest.MonkeyPatch:
    """Have the next routing be interrupted after its work, before its record."""

    def stopped(*args: Any) -> None:
        after(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(actions, "do_route", stopped)
    return monkeypatch


def test_what_a_call_with_other_settings_has_begun_is_refused_and_goes_only_on_request(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "routed"
    with monkeypatch.context() as patch:
        interrupt(patch, actions.do_route)
        assert main(routing(pool, out)) == 130
    begun = contents(tmp_path / "routed.partial")
    assert "routes.parquet" in begun
    for more in ([], ["--overwrite"]):
        error = fails(capsys, routing(pool, out, *more, fraction=0.25))
        assert "routed.partial holds what a call with other settings" in error
        assert "--restart" in error
    assert contents(tmp_path / "routed.partial") == begun
    monkeypatch.setattr(store, "code_version", lambda rooms: "an upgrade")
    assert "another version of dereason" in fails(capsys, routing(pool, out))
    assert contents(tmp_path / "routed.partial") == begun
    monkeypatch.undo()
    assert main(routing(pool, out, "--restart", fraction=0.25)) == 0
    assert not (tmp_path / "routed.partial").exists()
    assert json.loads((out / "step.json").read_text())["info"]["sets"] == {"rl": 1, "sft": 3}


def test_the_same_call_goes_on_with_what_it_has_begun(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "routed"
    with monkeypatch.context() as patch:
        interrupt(patch, actions.do_route)
        assert main(routing(pool, out)) == 130
    assert main(routing(pool, out)) == 0
    assert json.loads((out / "step.json").read_text())["resumed"]


@pytest.mark.parametrize("moment", ["while it is made", "before the swap", "in the swap", "after the swap"])
def test_an_output_is_replaced_when_the_new_one_is_finished(
    moment: str, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "routed"
    assert main(routing(pool, out)) == 0
    old = contents(out)
    with monkeypatch.context() as patch:
        if moment == "while it is made":
            interrupt(patch, actions.do_route)
        elif moment == "after the swap":
            patch.setattr(store.shutil, "rmtree", lambda *args, **kwargs: exec("raise KeyboardInterrupt"))
        else:
            rename, left = Path.rename, iter(range(0 if moment == "before the swap" else 1))

            def stopped(self: Path, target: Any) -> Path:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return rename(self, target)

            patch.setattr(Path, "rename", stopped)
        assert main(routing(pool, out, "--overwrite", fraction=0.25)) == 130
    if moment in ("while it is made", "before the swap"):
        assert contents(out) == old
        assert main(routing(pool, out)) == 0, "the old one still counts as finished"
        assert contents(out) == old
    assert main(routing(pool, out, "--overwrite", fraction=0.25)) == 0
    assert json.loads((out / "step.json").read_text())["info"]["sets"] == {"rl": 1, "sft": 3}
    left_over = {p.name for p in tmp_path.iterdir()} - {"routed", "routed.log.jsonl", ".routed.lock.d"}
    assert left_over == {"pool.jsonl", "profiles.parquet"}


def test_a_call_after_a_kill_in_the_swap_finds_the_new_output_whatever_it_asks(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "routed"
    assert main(routing(pool, out)) == 0
    made = tmp_path / "made"
    assert main(routing(pool, made, fraction=0.25)) == 0
    out.rename(store._replaced(out))
    made.rename(store.partial_of(out))
    assert "holds the output of other settings" in fails(capsys, routing(pool, out, fraction=0.75))
    assert json.loads((out / "step.json").read_text())["info"]["sets"] == {"rl": 1, "sft": 3}
    assert not store._replaced(out).exists()


@pytest.mark.parametrize("record", ['{"name": "a step of another tool"}', "[1]", '"text"', "not JSON"])
def test_a_folder_of_another_tool_with_a_step_json_is_refused(
    record: str, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "step.json").write_text(record)
    (theirs / "weights.bin").write_bytes(b"months of work")
    before = contents(theirs)
    for more in ([], ["--overwrite"], ["--overwrite", "--restart"]):
        assert str(theirs) in fails(capsys, routing(pool, theirs, *more))
    assert contents(theirs) == before
    theirs.rename(tmp_path / "mine.partial")
    assert "is not of dereason" in fails(capsys, routing(pool, tmp_path / "mine", "--restart"))
    assert contents(tmp_path / "mine.partial") == before


def test_a_step_of_a_run_is_no_place_for_an_output(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dereason.pipeline.store import Log, Step, execute

    run = tmp_path / "run"
    (run / "steps").mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    step = Step("route", {}, {}, ("errors.py",), "route", lambda work, at: {"words": ""})
    folder = run / "steps" / step.folder
    execute(folder, step, {}, Log(run / "log.jsonl"))
    for more in ([], ["--overwrite"]):
        assert "among the steps of a run" in fails(capsys, routing(pool, folder, *more))
        assert "among the steps of a run" in fails(capsys, routing(pool, run / "steps" / "new", *more))
    (tmp_path / "rows.jsonl").write_text('{"response": "2", "answer": "2"}')
    verdicts = ["verify", str(tmp_path / "rows.jsonl"), "--out", str(run / "steps" / "new.jsonl")]
    assert "among the steps of a run" in fails(capsys, verdicts)
    assert [path.name for path in (run / "steps").iterdir()] == [folder.name], "not even a lock"
    copied = tmp_path / "copied"
    folder.rename(copied)
    assert "is no output of a dereason command" in fails(capsys, routing(pool, copied, "--overwrite"))


def test_an_output_of_another_command_is_never_overwritten(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "targets"
    given = ["supervise", str(pool), "--style", "answer", "--out", str(out)]
    assert main(given) == 0
    before = contents(out)
    assert "output of another command" in fails(capsys, routing(pool, out, "--overwrite"))
    assert contents(out) == before


@pytest.mark.parametrize("record", ['{"a": 1}', "[1", "[]"])
def test_a_folder_of_others_with_a_step_json_is_never_touched(
    record: str, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "theirs"
    out.mkdir()
    (out / "step.json").write_text(record)
    for more in ([], ["--overwrite", "--restart"]):
        error = fails(capsys, routing(pool, out, *more))
        assert "is no record of a dereason step — move that folder away" in error
    assert contents(out) == {"step.json": record.encode()}


def test_one_way_of_training_never_overwrites_another(tmp_path: Path) -> None:
    out, log = tmp_path / "trained", store.Log(tmp_path / "log.jsonl")

    def step(kind: str, seed: int) -> store.Step:
        return store.Step(kind, {"seed": seed}, {}, (), kind, lambda work, _: {})

    def make(kind: str, seed: int) -> store.Info:
        made = step(kind, seed)
        make_way(out, made, overwrite=True, restart=False)
        return store.execute(out, made, {}, log, replace=True)[0]

    make("train-sft", 0)
    with pytest.raises(DereasonError, match=r"output of another command \(train-sft\)"):
        make("train-rl", 0)
    assert make("train-sft", 1)["config"] == {"seed": 1}
    make_way(tmp_path / "set", step("targets-a", 0), overwrite=True, restart=False)
    store.execute(tmp_path / "set", step("targets-a", 0), {}, log)
    make_way(tmp_path / "set", step("targets-b", 0), overwrite=True, restart=False)  # one command, another set


def test_two_calls_of_verify_at_once_write_one_output(tmp_path: Path) -> None:
    """Two calls on 40,000 rows wrote 61,000 and exited with 0."""
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps({"response": f"The answer is \\boxed{{{i}}}.", "answer": str(i)}) for i in range(20_000)]
    rows.write_text("\n".join(lines))
    line = [sys.executable, "-m", "dereason", "verify", str(rows), "--out", str(out)]
    calls = [subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [call.communicate()[1] for call in calls]
    codes = sorted(call.returncode for call in calls)
    assert codes == [0, 2], said
    assert any("is in use by process" in words or "give --overwrite" in words for words in said)
    assert len(out.read_text().splitlines()) == 20_000
