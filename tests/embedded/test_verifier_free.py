"""GRPO rewarded by CER on the real embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dereason.cli.main import main
from dereason.pipeline.recipe import find_recipe, load_recipe

pytestmark = pytest.mark.slow


def test_grpo_with_cer_runs_on_the_real_model(tmp_path: Path) -> None:
    """The CER arm of the shipped recipe on a few problems: some SFT, so that answers stand in boxes, then two steps."""
    sizes = [("train", (20, 2, 2)), ("test", (4, 1, 1))]
    sets = [f"problems.{part}.families.{i}.size={n}" for part, ns in sizes for i, n in enumerate(ns)]
    arm = load_recipe(find_recipe("verifier-free-small")).arms[1].model_dump(mode="json")
    assert [reward["name"] for reward in arm["phases"][1]["rewards"]["of"]] == ["cer"]
    arm["phases"][0] |= {"epochs": 4}
    arm["phases"][1] |= {"steps": 2, "prompts_per_generation": 2, "group_size": 4, "max_new_tokens": 40}
    sets += [f"arms={json.dumps([arm])}", "evaluation.sampling.max_new_tokens=40"]
    folder = tmp_path / "run"
    code = main(["run", "verifier-free-small", "--run-dir", str(folder), *[x for s in sets for x in ("--set", s)]])
    assert code == 0
    summary = json.loads((folder / "summary.json").read_text())
    path = next(c["path"] for c in summary["artifacts"]["curves"] if c["kind"] == "rl")
    curve = [json.loads(x) for x in (folder / path).read_text().splitlines()]
    assert [row["step"] for row in curve] == [1, 2]
    assert all(0 <= row["reward"] <= 1 for row in curve)
    assert max(row["reward"] for row in curve) > 0, "no reasoning gave the reference any probability"
    assert max(row["grad_norm"] for row in curve) > 0
