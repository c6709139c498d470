"""A start says what differs from when finished steps were made: a line for each thing, however many steps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dereason.cli.main import main
from dereason.pipeline import environment
from dereason.pipeline.actions import Context
from dereason.pipeline.build import build
from dereason.pipeline.differences import differences
from dereason.pipeline.environment import DECIDING, SHOWING, made_with
from dereason.pipeline.progress import Screen
from dereason.pipeline.recipe import load_recipe
from dereason.pipeline.store import BEGUN, SCRATCH, Log, Step, execute

NOWHERE = "nobody/nothing"
COMMITS = ["0" * 40, "1" * 40]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What versions are installed, to be changed by the test."""
    found = {"transformers": "5.22.0", "torch": "2.13.0", "math-verify": "0.9.0"}
    monkeypatch.setattr(environment, "_version", found.get)
    return found


def recipe_at(folder: Path) -> Path:
    for name, question in (("pool", "1 + 1?"), ("test", "1 + 2?")):
        rows = [{"question": f"{question} {i}", "answer": "2"} for i in range(8)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    problems = {f: {"source": "file", "path": f"{n}.jsonl"} for f, n in (("train", "pool"), ("test", "test"))}
    recipe = {
        "name": "r",
        "model": {"name": NOWHERE},
        "problems": problems | {"audit": 0},
        "arms": [
            {
                "name": "a",
                "route": {"policy": "all", "set": "rl"},
                "phases": [{"kind": "rl", "prompts_per_generation": 4}],
            }
        ],
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder / "recipe.yaml"


def start(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Start the run, which ends at the model that is not there; the lines about what differs."""
    assert main(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 2
    captured = capsys.readouterr()
    assert NOWHERE in captured.err
    return re.findall(r"note: (.*)", captured.out + captured.err)


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == "differs"]


def test_a_start_says_what_differs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], now: dict[str, str]
) -> None:
    recipe_at(tmp_path)
    assert start(tmp_path, capsys) == []
    assert start(tmp_path, capsys) == []
    now |= {"transformers": "5.23.0", "math-verify": "0.10.0"}
    lines = start(tmp_path, capsys)
    assert lines == [
        f"{name} was {then} when 2 steps ('problems', ...) were made and the step 'evaluate base' was begun; "
        f"now it is {now[name]}"
        for name, then in (("math-verify", "0.9.0"), ("transformers", "5.22.0"))
    ]
    found = events(tmp_path)
    assert [(e["what"], e["then"], e["now"]) for e in found] == [
        ("math-verify", "0.9.0", "0.10.0"),
        ("transformers", "5.22.0", "5.23.0"),
    ]
    assert found[0]["made"] == ["problems", "route, a"]
    assert main(["run", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run"), "--dry-run"]) == 0
    noted = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert sum(" was 0.9.0 " in line or " was 5.22.0 " in line for line in noted) == 2
    now["transformers"] = "5.22.0"
    assert [line.split()[0] for line in start(tmp_path, capsys)] == ["math-verify"]


def test_the_manifest_and_each_step_say_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], now: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_at(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    ref = tmp_path / "hub" / "models--nobody--nothing" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMITS[0])
    start(tmp_path, capsys)
    (started,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["runs"]
    assert now.items() <= started["environment"]["versions"].items()
    assert started["commits"] == {f"model {NOWHERE}@main": COMMITS[0]}
    for file in (tmp_path / "run" / "steps").glob("*/step.json"):
        record = json.loads(file.read_text())
        assert now.items() <= record["made_with"].items()
        assert {"python", "processor"} <= set(record["made_with"])
        assert record["begun_with"] == {}
    ref.write_text(COMMITS[1])
    assert start(tmp_path, capsys) == [
        f"model {NOWHERE}@main was {'0' * 12} when the step 'evaluate base' was begun; now it is {'1' * 12}"
    ]


def test_a_step_that_was_begun_with_other_versions_says_so(tmp_path: Path, now: dict[str, str]) -> None:
    def action(work: Path, at: dict[str, Path]) -> dict[str, Any]:
        if not (work / "half").exists():
            (work / "half").touch()
            raise KeyboardInterrupt
        return {}

    step, log = Step("demo", {}, {}, (), "demo", action), Log(tmp_path / "log.jsonl")
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path / "demo", step, {}, log)
    now["torch"] = "2.14.0"
    record, _ = execute(tmp_path / "demo", step, {}, log)
    assert record["begun_with"] == {"torch": "2.13.0"}
    assert record["made_with"]["torch"] == "2.14.0"
    assert not (tmp_path / "demo" / BEGUN).exists()


@pytest.mark.parametrize("torn", ["", "[]", '{"torch": "2.1', "\0\0"])
def test_a_torn_note_of_the_beginning_stops_nothing(tmp_path: Path, now: dict[str, str], torn: str) -> None:
    (tmp_path / "demo.partial").mkdir()
    (tmp_path / "demo.partial" / BEGUN).write_text(torn)
    step = Step("demo", {}, {}, (), "demo", lambda work, at: {})
    record, _ = execute(tmp_path / "demo", step, {}, Log(tmp_path / "log.jsonl"))
    assert record["begun_with"] == {}
    assert record["resumed"] is False


def test_a_single_command_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], now: dict[str, str]) -> None:
    recipe_at(tmp_path)
    out = tmp_path / "routes"
    command = ["route", str(tmp_path / "pool.jsonl"), "--policy", "all", "--set", "set=rl", "--out", str(out)]
    assert main(command) == 0
    now["torch"] = "2.14.0"
    capsys.readouterr()
    assert main(command) == 0
    captured = capsys.readouterr()
    found = re.findall(r"note: (.*)", captured.out + captured.err)
    assert found == ["torch was 2.13.0 when the step 'route' was made; now it is 2.14.0"]


def test_every_dependency_is_recorded() -> None:
    """A package that the project needs is one that decides results, or one that is known not to."""
    import tomllib

    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as handle:
        table = tomllib.load(handle)["project"]
    named = [*table["dependencies"]]
    named += [
        r
        for extra, rows in table["optional-dependencies"].items()
        if extra not in ("dev", "docs", "test")
        for r in rows
    ]
    listed = {re.split(r"[\[<>=!~ ;]", r)[0] for r in named}
    known = {name.replace("_", "-").lower() for name in (*DECIDING, *SHOWING)}
    assert {name.replace("_", "-").lower() for name in listed} <= known
    assert len(set(known)) == len((*DECIDING, *SHOWING))
    assert {"torch", "transformers", "trl", "math-verify", "reasoning_gym"} <= set(made_with())


def test_settings_that_only_round_are_noted(tmp_path: Path, now: dict[str, str]) -> None:
    """They are in no key, and a phase that was made with others says so."""

    def training(*sets: str) -> Step:
        recipe = load_recipe(recipe_at(tmp_path), list(sets))
        (step,) = (s.training for s in build(recipe, tmp_path, Context(recipe.prompt, Screen(quiet=True))).stages[1:])
        assert step is not None
        return step

    first = training()
    (tmp_path / "made").mkdir()
    record = {"kind": "demo", "key": first.key, "config": {}, "info": {}, SCRATCH: [], "made_with": first.made_with()}
    (tmp_path / "made" / "step.json").write_text(json.dumps(record))
    other = training(
        "arms.0.phases.0.rollout_batch=32", "arms.0.phases.0.optimiser.micro_batch=1", "launch.processes=2"
    )
    assert other.key == first.key
    found = [(d.what, d.then, d.now) for d in differences([(other, tmp_path / "made")])]
    assert found == [
        ("launch", "1 process", "2 processes (ddp)"),
        ("optimiser.micro_batch", "8", "1"),
        ("rollout_batch", "256", "32"),
    ]
    own = tmp_path / "own.yaml"
    for text in ("distributed_type: FSDP\n", "distributed_type: NO\n"):
        own.write_text(text)
        found.append(training("launch.processes=2", f"launch.config={own}").made_with()["launch"])
    assert len(set(found)) == len(found), "a file by its content"
    for text in ("arms.0.phases.0.optimiser.checkpoint_every=1", "arms.0.phases.0.run_name=x"):
        assert differences([(training(text), tmp_path / "made")]) == []
