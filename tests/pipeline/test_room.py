"""Before anything starts: what a model has no context for, and what a device has no memory for, is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dereason.cli.main import main
from dereason.pipeline.plan import make_plan
from dereason.pipeline.recipe import find_recipe, load_recipe, shipped
from dereason.problems.schema import frame, write_table

SIZES = {
    **{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "vocab_size": 500, "max_position_embeddings": 64},
}
ELSEWHERE = {"name": "somebody/nothing-here", "device": "cpu", "config": SIZES}
"""A model that is not on this machine, with a context of 64 tokens."""
SHORT = {"max_new_tokens": 8}


def recipe_file(folder: Path, model: dict[str, Any], phases: list[dict[str, Any]], **more: Any) -> Path:
    (folder / "pool.jsonl").write_text(json.dumps({"id": "a", "question": "What is 1 + 2?", "answer": "3"}) + "\n")
    here = {"source": "file", "path": "pool.jsonl"}
    recipe: dict[str, Any] = {
        "name": "room",
        "model": model,
        "problems": {"train": here, "test": here},
        "arms": [{"name": "a", "route": {"policy": "all", "set": "train"}, "phases": phases}],
        "profile": {"pass_rate": {"sampling": SHORT}},
        "evaluation": {"sampling": SHORT},
    }
    path = folder / "room.yaml"
    path.write_text(yaml.safe_dump(recipe | more))
    return path


def errors(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error line of a command that ends with 2."""
    code = main([str(a) for a in arguments])
    error = capsys.readouterr().err
    assert code == 2, error
    return error.splitlines()[-1]


RL: dict[str, Any] = {"kind": "rl", "set": "train", "prompts_per_generation": 1, "steps": 1, **SHORT}
SFT: dict[str, Any] = {"kind": "sft", "set": "train"}
JOINT: dict[str, Any] = {**RL, "kind": "joint", "method": {"name": "weighted"}}
TEACHER = {"style": "teacher", "teacher": ELSEWHERE}
SERVED = {"name": "x", "backend": "api", "api": {"base_url": "http://localhost:1/v1", "key_env": None}}
BEYOND = {"max_new_tokens": 64}


@pytest.mark.parametrize(
    ("phase", "more", "setting"),
    [
        (RL, {"evaluation": {"sampling": BEYOND}}, "evaluation.sampling.max_new_tokens"),
        (
            RL,
            {"profile": {"pass_rate": {"enabled": True, "sampling": BEYOND}}},
            "profile.pass_rate.sampling.max_new_tokens",
        ),
        (RL, {"analysis": {"sampling": BEYOND}}, "analysis.sampling.max_new_tokens"),
        (RL | BEYOND, {}, "arms.0.phases.0.max_new_tokens"),
        (JOINT | BEYOND, {}, "arms.0.phases.0.max_new_tokens"),
        (JOINT | {"max_length": 65}, {}, "arms.0.phases.0.max_length"),
        (SFT | {"max_length": 65}, {}, "arms.0.phases.0.max_length"),
        (SFT | {"targets": TEACHER | {"sampling": BEYOND}}, {}, "arms.0.phases.0.targets.0.sampling.max_new_tokens"),
        (
            SFT | {"targets": {"style": "self", "sampling": BEYOND}},
            {},
            "arms.0.phases.0.targets.0.sampling.max_new_tokens",
        ),
        (
            RL | {"rollouts": "vllm-colocate", "vllm": {"max_length": 65}},
            {},
            "arms.0.phases.0.vllm.max_length",
        ),
        (
            RL | {"rollouts": "vllm-colocate", "max_new_tokens": 40, "vllm": {"max_length": 40}},
            {},
            "arms.0.phases.0.max_new_tokens",
        ),
        (
            RL | {"rewards": {"of": [{"name": "judge", "model": ELSEWHERE, "prompt": BEYOND}]}},
            {},
            "arms.0.phases.0.rewards.of.0.prompt.max_new_tokens",
        ),
        (
            SFT | {"targets": {"style": "teacher", "teacher": SERVED | {"max_positions": 60}, "sampling": BEYOND}},
            {},
            "arms.0.phases.0.targets.0.sampling.max_new_tokens",
        ),
    ],
)
def test_a_plan_and_a_run_refuse_what_no_context_holds(
    phase: dict[str, Any], more: dict[str, Any], setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path, ELSEWHERE, [phase], **more)
    error = errors(capsys, "run", path, "--dry-run", "--run-dir", tmp_path / "run")
    assert f"({setting}) do not fit — set {setting}=" in error
    if not str(phase.get("rollouts", "")).startswith("vllm"):  # which a run looks for before
        assert errors(capsys, "run", path, "--run-dir", tmp_path / "run") == error
        assert not (tmp_path / "run").exists()


def test_an_override_is_taken_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_file(tmp_path, ELSEWHERE, [RL | BEYOND])
    assert "model.max_positions" in errors(capsys, "run", path, "--dry-run")
    assert main(["run", str(path), "--dry-run", "--json", "--set", "model.max_positions=100"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["context"]["tokens"] == 100
    assert plan["recipe"]["model"]["max_positions"] == 100


def test_a_plan_knows_the_end_of_a_table_which_no_setting_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"model_type": "gpt2", "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 500}
    path = recipe_file(tmp_path, ELSEWHERE | {"config": table, "max_positions": 500}, [RL | BEYOND])
    error = errors(capsys, "run", path, "--dry-run")
    assert "has a table of 64 positions, and a prompt and 64 new tokens" in error
    assert "model.max_positions" not in error


def test_a_long_prompt_is_found_where_the_problems_are(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = short(tiny_model, tmp_path / "model")
    path = recipe_file(tmp_path, {"name": str(model)}, [RL], evaluation={"sampling": SHORT})
    asked = {"id": "a", "question": "What is 1 + 2? " * 12, "answer": "3"}
    (tmp_path / "pool.jsonl").write_text(json.dumps(asked) + "\n")
    error = errors(capsys, "run", path, "--dry-run")
    assert "a prompt of " in error
    assert "and 8 new ones (evaluation.sampling.max_new_tokens) do not fit" in error


def short(tiny_model: Path, to: Path) -> Path:
    """The tiny model with a context of 96 tokens, by rotary positions."""
    shutil.copytree(tiny_model, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 96}))
    return to


COMMANDS: dict[str, tuple[list[str], str]] = {
    "eval": (["eval", "POOL"], "evaluation.sampling.max_new_tokens"),
    "profile": (["profile", "POOL"], "profile.pass_rate.sampling.max_new_tokens"),
    "supervise": (["supervise", "POOL", "--style", "self"], "targets.sampling.max_new_tokens"),
    "sft": (["train", "sft", "POOL", "--targets", "TARGETS", "--set", "phase.max_length=200"], "phase.max_length"),
    "rl": (["train", "rl", "POOL"], "phase.max_new_tokens"),
    "joint": (["train", "joint", "POOL", "--targets", "TARGETS"], "phase.max_new_tokens"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_single_commands_refuse_it_too(
    name: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = short(tiny_model, tmp_path / "model")
    (model / "model.safetensors").unlink()  # nothing of it is needed to know
    recipe_file(tmp_path, ELSEWHERE, [])
    rows = [{"problem_id": "a", "response": "\\boxed{3}", "origin": "human", "accepted": True}]
    write_table(frame("target", rows), tmp_path / "targets.parquet")
    words, setting = COMMANDS[name]
    files = {"POOL": tmp_path / "pool.jsonl", "TARGETS": tmp_path / "targets.parquet"}
    arguments = [files.get(word, word) for word in words]
    error = errors(capsys, *arguments, "--model", model, "--out", tmp_path / "out")
    assert "positions for 96 tokens by its configuration" in error
    assert f" — set {setting}=" in error


def test_targets_beyond_the_context_are_left_out_and_counted(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = short(tiny_model, tmp_path / "model")
    problems = [{"id": i, "question": "What is 1 + 2?", "answer": "3"} for i in "ab"]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    said = {"a": "\\boxed{3}", "b": "one and two make three " * 40}
    rows = [{"problem_id": i, "response": r, "origin": "human", "accepted": True} for i, r in said.items()]
    write_table(frame("target", rows), tmp_path / "targets.parquet")
    arguments = ["train", "sft", tmp_path / "pool.jsonl", "--targets", tmp_path / "targets.parquet", "--json"]
    arguments += ["--model", model, "--out", tmp_path / "out", "--set", "phase.batch=1"]
    assert main([str(a) for a in arguments]) == 0
    warnings = json.loads(capsys.readouterr().out)["info"]["warnings"]
    assert warnings == ["1 of 2 targets are longer with their prompts than 96 tokens (its context): they were left out"]


# -- memory ------------------------------------------------------------------------------------------------------------


def planned(name: str, *sets: str) -> dict[str, Any]:
    """The plan of a shipped recipe."""
    return make_plan(load_recipe(find_recipe(name), list(sets)), Path("no-such-run"), Path())


@pytest.mark.parametrize("name", ["dereason-qwen3-4b", "joint-comparison"])
def test_the_large_recipes_fit_the_devices_that_they_name(name: str) -> None:
    plan = planned(name)
    found = {row["name"]: row["memory"] for row in plan["steps"] if row["memory"] is not None}
    assert {row["kind"] for row in plan["steps"] if row["name"] in found} >= {"eval", "train-sft", "train-rl"}
    assert all(memory["fits"] for memory in found.values())
    alone = planned(name, "launch.processes=1")
    assert not all(row["memory"]["fits"] for row in alone["steps"] if row["kind"] == "train-rl")


def test_every_shipped_recipe_says_what_it_was_run_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    tried = {name: load_recipe(path).tried for name, path in shipped().items()}
    assert all(tried.values())
    assert shown.count("never run as it stands") == list(tried.values()).count("never") > 0
    assert planned("stage-specific")["tried"] == "never"


def test_a_plan_refuses_what_the_device_does_not_hold_and_names_what_to_lower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = SIZES | {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "vocab_size": 50_000,
        "max_position_embeddings": 4096,
    }
    optimiser = {"micro_batch": 8}
    phase = RL | {"max_new_tokens": 1000, "group_size": 8, "optimiser": optimiser}
    model = ELSEWHERE | {"config": sizes, "device": "cuda", "device_memory": 2}
    path = recipe_file(tmp_path, model, [phase])
    error = errors(capsys, "run", path, "--dry-run")
    assert "train a, seed 0, 1-rl: about " in error
    assert "the cuda device has 2.0 GiB" in error
    assert " — lower optimiser.micro_batch (now 8), set optimiser.gradient_checkpointing=true" in error
    assert main(["run", str(path), "--dry-run", "--json", "--set", "model.device_memory=64"]) == 0
    rows = {row["kind"]: row["memory"] for row in json.loads(capsys.readouterr().out)["steps"]}
    memory = rows["train-rl"]
    assert memory["fits"]
    assert memory["bytes"] == pytest.approx(sum(memory["parts"].values()), abs=10)
    assert rows["eval"]["parts"].keys() >= {"weights", "cache"}
    assert rows["route"] is None


def test_a_model_that_is_not_here_is_named_with_how_to_have_it_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path, {"name": "somebody/nothing-here", "device": "cpu"}, [RL])
    assert main(["run", str(path), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "`hf download somebody/nothing-here config.json`" in plan["unknown"][0]
    assert all(row["memory"] is None for row in plan["steps"])
