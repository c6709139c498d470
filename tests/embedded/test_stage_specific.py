"""The recipe stage-specific-small itself: two whole rounds on the real embedded model, cut to a few problems."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from dereason.cli.main import main

pytestmark = pytest.mark.slow

SMALL = [
    *[f"problems.train.families.{i}.size={n}" for i, n in enumerate((14, 4, 4))],
    *[f"problems.test.families.{i}.size={n}" for i, n in enumerate((3, 2, 3))],
    "profile.pass_rate.k=2",
    "arms.0.phases.0.targets.0.n=2",
    "arms.0.phases.0.targets.1.n=2",
    "arms.0.phases.0.targets.2.n=1",
    "arms.0.phases.0.targets.2.max_problems=2",
    "arms.0.phases.0.epochs=1",
    "arms.0.phases.1.steps=1",
    "arms.0.phases.1.prompts_per_generation=4",
    "arms.0.phases.1.group_size=4",
    "arms.0.phases.1.max_new_tokens=24",
    "evaluation.sampling.max_new_tokens=24",
]


def test_two_rounds_on_the_real_model(tmp_path: Path) -> None:
    changes = [x for s in SMALL for x in ("--set", s)]
    assert main(["run", "stage-specific-small", "--run-dir", str(tmp_path / "run"), *changes]) == 0
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert [r["stage"] for r in summary["results"]] == ["base", "1-sft", "2-rl", "3-sft", "4-rl"]
    arm = summary["arms"][0]
    assert [(p["round"], p["kind"]) for p in arm["phases"]] == [(1, "sft"), (1, "rl"), (2, "sft"), (2, "rl")]
    first, second = arm["rounds"]
    assert set(first["sets"]) == {"rl", "medium", "hard"}, "all three tiers are filled at the first profile"
    assert first["pass_rate"] != second["pass_rate"], "the second profile is of the trained model"
    for phase in arm["phases"][::2]:
        teacher, bridge, critique = phase["targets"]["sources"]
        assert teacher["sets"] == ["medium"]
        assert bridge["bridge"]["raw"]["verified"] == bridge["problems"], "steps of an expression are right"
        assert phase["targets"]["n"] == sum(s["targets"] for s in (teacher, bridge, critique))
        assert (critique["problems"] > 0) == (phase["round"] == 2), "failures of RL come back in the second round"
    for built in summary["artifacts"]["targets"]:
        targets = pl.read_parquet(run / built["path"])
        assert targets["accepted"].all()
        assert targets["nll"].is_not_null().all()
    assert "Bridge" in (run / "report.html").read_text()
