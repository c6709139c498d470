"""The command line: cheap to ask, one line when it fails, JSON when asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from dereason.cli.main import main

HEAVY = ("torch", "transformers", "trl", "datasets", "polars", "plotly", "numpy", "scipy", "pydantic")


def test_help_imports_nothing_heavy() -> None:
    """What keeps `dereason --help` under half a second (0.17 s seen); a timed test would be flaky."""
    code = (
        "import sys; from dereason.cli.main import main; main(['--help']); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "profile" in done.stdout
    assert done.stderr.strip() == "[]"


def pool_file(folder: Path, rows: list[dict[str, object]] | None = None) -> Path:
    path = folder / "pool.jsonl"
    rows = rows or [
        {
            "id": f"p{i}",
            "question": f"What is {i} + 1?",
            "answer": str(i + 1),
            "solution": f"{i} + 1 = {i + 1}",
        }
        for i in range(8)
    ]
    path.write_text("\n".join(json.dumps(r) for r in rows))
    return path


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    code = main(arguments)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    return captured.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a", "question": "q", "answer": "1"}\n{"id": "b", ', "line 2 is not JSON"),
        ('{"id": "a", "question": "q", "answer": "1"}\n[1]', "line 2 is a list"),
        (
            '{"id": "a", "question": "q", "answer": "1"}\n{"id": "a", "question": "r", "answer": "1"}',
            "lines 1, 2",
        ),
        ('{"id": "a", "question": "q", "answer": "1"}\n{"id": "b", "question": "r", "answer": " "}', "line 2"),
        ('{"id": "a", "answer": "1"}', "line 1 has no text in the field 'question'"),
        ("", "no problems in it"),
    ],
)
def test_a_bad_pool_is_refused_with_the_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text(text)
    error = fails(capsys, ["route", str(path), "--policy", "all", "--set", "set=rl", "--out", str(tmp_path / "r")])
    assert str(path) in error
    assert pytest.importorskip("re").search(message, error), error
    assert not (tmp_path / "r").exists()


def test_missing_things_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert "no such file" in fails(capsys, ["route", str(tmp_path / "x.jsonl"), "--policy", "all", *out])
    assert "no recipe 'nosuch'" in fails(capsys, ["run", "nosuch"])
    assert "No such command" in fails(capsys, ["frobnicate"])
    assert "summary.json" in fails(capsys, ["report", str(tmp_path)])
    assert "no field begins with 'zzz'" in fails(capsys, ["recipe", "explain", "zzz"])
    pool = pool_file(tmp_path)
    bad = fails(capsys, ["eval", str(pool), "--model", str(tmp_path), *out])
    assert "model.name" in bad
    assert "unknown key" in fails(capsys, ["eval", str(pool), "--set", "evaluation.smples=1", *out])


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dereason", "--debug", "run", "nosuch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_full_disk_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("dereason.pipeline.actions.write_table", full)
    arguments = [
        "route",
        str(pool_file(tmp_path)),
        "--policy",
        "all",
        "--set",
        "set=rl",
        "--out",
        str(tmp_path / "r"),
    ]
    error = fails(capsys, arguments)
    assert "the disk is full" in error
    assert "kept" in error
    monkeypatch.undo()
    assert main(arguments) == 0, "the same command continues once there is space"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_running_out_of_memory_is_named(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("dereason.pipeline.actions.do_route", fail)
    pool = pool_file(tmp_path)
    message = fails(capsys, ["route", str(pool), "--policy", "all", "--out", str(tmp_path / "r")])
    assert "out of memory" in message
    assert "batch_size" in message


@pytest.mark.skipif(
    __import__("torch").cuda.is_available(), reason="this machine has the GPU that is asked for in vain"
)
def test_a_recipe_that_asks_for_a_missing_gpu_stops_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    error = fails(capsys, ["run", "quickstart", "--json", "--run-dir", str(folder), "--set", "model.device=cuda"])
    assert "model.device=auto" in error
    judge = "profile.judge.model={name: embedded, device: cuda}"
    fails(capsys, ["run", "quickstart", "--json", "--run-dir", str(folder), "--set", judge])
    assert not folder.exists()


def test_route_and_supervise_over_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pool_file(tmp_path)
    profiles = tmp_path / "profiles.parquet"
    pl.DataFrame(
        {
            "problem_id": [f"p{i}" for i in range(8)],
            "model": ["m"] * 8,
            "n": [4] * 8,
            "correct": [0, 0, 1, 1, 2, 3, 4, 4],
            "pass_rate": [0.0, 0.0, 0.25, 0.25, 0.5, 0.75, 1.0, 1.0],
        }
    ).write_parquet(profiles)
    routed = tmp_path / "routed"
    command = [
        "route",
        str(pool),
        "--profiles",
        str(profiles),
        "--policy",
        "quantile",
        "--set",
        "score=pass_rate",
    ]
    assert main([*command, "--set", "rl_fraction=0.25", "--out", str(routed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["info"]["sets"] == {"rl": 2, "sft": 6}
    routes = pl.read_parquet(routed / "routes.parquet")
    assert set(routes.filter(pl.col("set") == "rl")["problem_id"]) == {"p0", "p1"}
    assert routes["reason"].str.len_chars().min() > 10  # type: ignore[operator]

    again = [*command, "--set", "rl_fraction=0.5", "--out", str(routed)]
    assert "holds the output of other settings" in fails(capsys, again)
    assert main([*again, "--overwrite"]) == 0
    made = tmp_path / "targets"
    given = ["--routes", str(routed / "routes.parquet"), "--style", "solution", "--out", str(made)]
    assert main(["supervise", str(pool), *given]) == 0
    targets = pl.read_parquet(made / "targets.parquet")
    assert targets["problem_id"].to_list() == ["p4", "p5", "p6", "p7"]
    assert targets["accepted"].all()
    assert targets["response"][0].startswith("4 + 1 = 5")


def test_overwrite_never_deletes_what_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("years of work")
    command = ["route", str(pool_file(tmp_path)), "--policy", "all", "--out", str(mine), "--overwrite"]
    assert "is no output of a dereason command" in fails(capsys, command)
    assert (mine / "chapter.tex").read_text() == "years of work"


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["torch"]["found"].startswith("2.")
    assert found["device"]["state"] in ("ok", "slow")
    assert found["embedded model"]["state"] == "ok"
    assert all(row["mend"] for row in found.values() if row["state"] != "ok")


def test_doctor_fails_on_what_is_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dereason.pipeline.doctor._version", lambda name: None)
    assert main(["doctor", "--json"]) == 1
    broken = [row for row in json.loads(capsys.readouterr().out) if row["state"] == "broken"]
    assert "torch" in {row["check"] for row in broken}


def test_recipes_and_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    assert {"quickstart", "dereason-qwen3-4b"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert main(["recipe", "explain", "profile.pass_rate"]) == 0
    assert "profile.pass_rate.k" in capsys.readouterr().out


def test_the_papers_recipe_plans_without_its_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "dereason-qwen3-4b", "--dry-run", "--json", "--run-dir", str(tmp_path / "run")]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "not downloaded" in plan["pool"]["note"]
    dereason = plan["sets"]["dereason"]
    assert dereason["rl"]["known_after"] == "profile"
    assert {row["kind"] for row in plan["steps"]} >= {
        "judge",
        "route",
        "targets",
        "train-sft",
        "train-rl",
        "eval",
    }
    assert not (tmp_path / "run").exists(), "a plan writes nothing"
    assert main(["run", "dereason-qwen3-4b", "--dry-run", "--run-dir", str(tmp_path / "run")]) == 0
    assert "known after profile" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
