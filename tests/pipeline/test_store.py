"""Steps: content addresses, whole outputs, one writer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dereason
from dereason.errors import DereasonError
from dereason.pipeline.store import Log, Step, execute, finished, locked


def step(config: dict[str, object], inputs: dict[str, Step] | None = None, action: object = None) -> Step:
    def write(work: Path, at: dict[str, Path]) -> dict[str, object]:
        (work / "out.txt").write_text(str(config))
        return {"words": "done"}

    return Step("demo", config, inputs or {}, ("errors.py",), "demo", action or write)  # type: ignore[arg-type]


def test_key_follows_configuration_inputs_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    first = step({"a": 1})
    assert first.key == step({"a": 1}).key
    assert first.key != step({"a": 2}).key
    assert step({}, {"x": first}).key != step({}, {"x": step({"a": 2})}).key
    monkeypatch.setattr("dereason.pipeline.store.code_version", lambda rooms: "another source text")
    assert first.key != step({"a": 1}).key


def test_every_key_covers_the_modules_beside_the_rooms_that_these_compute_with(monkeypatch: pytest.MonkeyPatch) -> None:
    covered: list[str] = []
    monkeypatch.setattr("dereason.pipeline.store.code_version", lambda rooms: str(covered.extend(rooms)))
    step({})
    package = Path(dereason.__file__).parent
    beside = {file.stem for file in package.glob("*.py")} - {
        "content",
        "errors",
        "memory",
    }  # what those say is no output
    used = {
        name
        for file in package.glob("*/**/*.py")
        for name in re.findall(r"^ *from dereason\.(\w+) import", file.read_text(), re.MULTILINE)
    }
    assert {"settings", "statistics"} <= beside & used
    assert {f"{name}.py" for name in beside & used} <= set(covered)


def test_a_finished_step_is_not_run_again(tmp_path: Path) -> None:
    calls = []

    def count(work: Path, at: dict[str, Path]) -> dict[str, object]:
        calls.append(work)
        return {}

    log = Log(tmp_path / "log.jsonl")
    for _ in range(2):
        execute(tmp_path / "demo", step({}, action=count), {}, log)
    assert len(calls) == 1
    assert [x.split('"event": "')[1].split('"')[0] for x in log.path.read_text().splitlines()] == [
        "step-start",
        "step-end",
        "step-cached",
    ]


def test_a_failed_step_leaves_no_output_and_keeps_its_work(tmp_path: Path) -> None:
    def fail(work: Path, at: dict[str, Path]) -> dict[str, object]:
        if (work / "half").exists():
            return {"continued": True}
        (work / "half").write_text("x")
        raise RuntimeError("boom")

    folder = tmp_path / "demo"
    with pytest.raises(RuntimeError, match="boom"):
        execute(folder, step({}, action=fail), {}, Log(tmp_path / "log.jsonl"))
    assert not folder.exists()
    assert finished(folder) is None
    record, cached = execute(folder, step({}, action=fail), {}, Log(tmp_path / "log.jsonl"))
    assert (record["info"], record["resumed"], cached) == ({"continued": True}, True, False)


HOLD = """
import sys, time
from pathlib import Path
from dereason.pipeline.store import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_cannot_write_one_run_directory(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DereasonError, match=f"in use by process {holder.pid}"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path):
        pass  # the kernel released a killed holder's lock
