"""The command line's ways to joint training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dereason.cli.main import main


def test_a_joint_phase_on_files(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"id": f"p{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(4)]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["supervise", str(pool), "--style", "answer", "--out", str(tmp_path / "t")]) == 0
    sizes = ["steps=2", "prompts_per_generation=2", "group_size=2", "max_new_tokens=8"]
    sets = [x for s in sizes for x in ("--set", f"phase.{s}")]
    targets = ["--targets", str(tmp_path / "t" / "targets.parquet"), "--method", "hpt", "--model", str(tiny_model)]
    assert main(["train", "joint", str(pool), *targets, "--out", str(tmp_path / "j"), *sets]) == 0
    logged = [json.loads(line) for line in (tmp_path / "j" / "metrics.jsonl").read_text().splitlines()]
    # A random model solves nothing, so HPT trains on the demonstrations of both problems in each step.
    assert [row["demonstrations"] for row in logged] == [2, 2]
    assert all(row["demonstration_nll"] > 0 for row in logged)
    assert (tmp_path / "j" / "model" / "model.safetensors").is_file()


def test_the_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["luffy"]["paper"] == "2504.14945"
    assert "reference model" in rows["dypo"]["needs"]
    assert "shadow copy" in rows["bridge"]["needs"]
    assert all(row["rule"] and row["recipe"] for row in rows.values())
