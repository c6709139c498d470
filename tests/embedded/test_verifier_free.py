"""GRPO rewarded by CER on the real embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dereason.cli.main import main
from dereason.pipeline.recipe import find_recipe, load_recipe

pytestmark = pytest.mark.slow


def test_grpo_with_cer_runs_on_the_real_model(tmp_path: Path) -> None:
    """The shipped recipe, cut to its CER arm, without SFT, two steps."""
    sizes = [f"problems.{part}.families.{i}.size={n}" for part in ("train", "test") for i, n in enumerate((8, 2, 2))]
    arm = load_recipe(find_recipe("verifier-free-small")).arms[1].model_dump(mode="json")
    assert [reward["name"] for reward in arm["phases"][1]["rewards"]] == ["cer"]
    phase = arm["phases"][1] | {
        "set": "rl",
        "steps": 2,
        "prompts_per_generation": 2,
        "group_size": 4,
        "max_new_tokens": 32,
    }
    route = {"policy": "all", "set": "rl"}
    arms = json.dumps([{"name": "cer", "route": route, "phases": [phase]}])
    sets = [*sizes, f"arms={arms}", "profile.judge.enabled=false", "evaluation.sampling.max_new_tokens=32"]
    folder = tmp_path / "run"
    code = main(["run", "verifier-free-small", "--run-dir", str(folder), *[x for s in sets for x in ("--set", s)]])
    assert code == 0
    summary = json.loads((folder / "summary.json").read_text())
    curve = [json.loads(x) for x in (folder / summary["artifacts"]["curves"][0]["path"]).read_text().splitlines()]
    assert [row["step"] for row in curve] == [1, 2]
    assert all(0 < row["reward"] < 1 for row in curve), "a real model gives some probability to the reference"
    assert all(row["mixed_groups"] > 0 and row["grad_norm"] > 0 for row in curve)
