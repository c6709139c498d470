"""Two rounds with a teacher behind an endpoint, killed and started again: the teacher is asked nothing twice."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dereason.cli.main import main
from endpoint import Act, Endpoint, reply, user
from pipeline_kill import killed_when

pytestmark = pytest.mark.slow

CONCURRENCY = 2


def teach(body: dict[str, Any], times: int) -> Act:
    """A scripted teacher: right for most problems, wrong for some, and a critic whose diagnoses hold."""
    time.sleep(0.01)  # so that calls are in flight when the run is killed
    asked = user(body)
    if "Conclusion:" in asked:
        texts = ["The first line is no sum.\nFirst wrong line: 1\nConclusion: wrong", "Conclusion: right"]
    else:
        found = re.search(r"problem: ([-\d +]+) =", asked)
        assert found is not None, asked
        total = eval(found[1])  # digits, signs and spaces alone
        wrong = total + (total % 5 == 0)
        texts = [
            f"{found[1]} = {wrong}\nSo that is all.\n\\boxed{{{wrong}}}",
            f"{found[1]} = {total}\n\\boxed{{{total}}}",
        ]
        texts = texts if wrong == total else [texts[0], "I cannot say."]
    return reply(*(texts * body["n"])[: body["n"]])


def write_recipe(folder: Path, model: Path, url: str) -> Path:
    gym = {"source": "reasoning_gym", "families": [{"family": "chain_sum", "size": 16, "args": {"max_terms": 3}}]}
    teacher = {
        "name": "scripted",
        "backend": "api",
        "api": {"base_url": url, "concurrency": CONCURRENCY, "price_in": 1.0, "price_out": 2.0},
    }
    sampling = {"max_new_tokens": 64}
    optimiser = {"learning_rate": 1e-3, "micro_batch": 4}
    targets = [
        {"style": "teacher", "teacher": teacher, "n": 2, "choose": "likelihood", "sampling": sampling},
        {"style": "bridge", "traces": "steps", "teacher": teacher, "n": 2, "sampling": sampling},
        {"style": "critique", "critic": teacher, "n": 2, "max_problems": 3, "sampling": sampling},
    ]
    recipe = {
        "name": "two-rounds",
        "model": {"name": str(model)},
        "problems": {"train": gym | {"seed": 1}, "test": gym | {"seed": 2}},
        "profile": {"judge": {"enabled": False}, "pass_rate": {"k": 2, "sampling": {"max_new_tokens": 8}}},
        "arms": [
            {
                "name": "a",
                "rounds": 2,
                "route": {"policy": "quantile", "score": "pass_rate"},
                "phases": [
                    {"kind": "sft", "batch": 8, "max_length": 1024, "targets": targets, "optimiser": optimiser},
                    {
                        "kind": "rl",
                        "steps": 1,
                        "prompts_per_generation": 4,
                        "group_size": 2,
                        "max_new_tokens": 8,
                        "optimiser": optimiser,
                    },
                ],
            }
        ],
        "evaluation": {"sampling": {"temperature": 0.0, "max_new_tokens": 8}},
    }
    path = folder / "two-rounds.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def tables(run: Path, name: str) -> list[pl.DataFrame]:
    """A table of the targets steps, round by round."""
    artifacts = json.loads((run / "summary.json").read_text())["artifacts"]["targets"]
    return [pl.read_parquet(run / a[name]) for a in sorted(artifacts, key=lambda a: a["phase"])]


def test_a_killed_run_asks_the_teacher_nothing_twice(tmp_path: Path, tiny_model: Path) -> None:
    run = tmp_path / "run"
    with Endpoint(teach) as endpoint:
        recipe = write_recipe(tmp_path, tiny_model, endpoint.url)
        for pattern in ("targets-*.partial/asked/0-teacher/*/batch-000002.parquet", "targets-*.partial/asked/2-*/*"):
            killed_when(recipe, run, pattern)
        before = len(endpoint.bodies)
        assert main(["run", str(recipe), "--run-dir", str(run), "--json"]) == 0
        assert len(endpoint.bodies) > before, "the second kill came before everything was asked"
        repeated = [n for n in Counter(json.dumps(b, sort_keys=True) for b in endpoint.bodies).values() if n > 1]
        # What was in flight when the run was killed never came back to it, and has to be asked again: that alone.
        assert sum(n - 1 for n in repeated) <= 2 * CONCURRENCY

        paid = json.loads((run / "summary.json").read_text())["arms"][0]["phases"][0]["targets"]["sources"][0]["asked"]

        asked = len(endpoint.bodies)
        shutil.rmtree(next((run / "steps").glob("targets-*")))  # a whole step lost: the calls are kept apart from it
        assert main(["run", str(recipe), "--run-dir", str(run), "--json"]) == 0
        assert len(endpoint.bodies) == asked

        whole = tmp_path / "whole"
        assert main(["run", str(recipe), "--run-dir", str(whole), "--json"]) == 0
    for name in ("path", "candidates", "coverage"):
        for mine, theirs in zip(tables(run, name), tables(whole, name), strict=True):
            assert mine.equals(theirs)

    first, second = tables(whole, "path")
    assert set(first["origin"]) == {"teacher", "bridge"}
    assert set(second["origin"]) == {"teacher", "bridge", "diagnosis", "new_trace"}
    assert first["accepted"].all()
    summary = json.loads((whole / "summary.json").read_text())
    assert [p["round"] for p in summary["arms"][0]["phases"]] == [1, 1, 2, 2]
    assert [r["round"] for r in summary["arms"][0]["rounds"]] == [1, 2]
    most = 8 * (10 + 2 * 10) / 1e6  # what was in flight or not yet written down at a kill may lack
    assert most * (1 - 2 * CONCURRENCY / 8) <= paid[0]["price"] <= most
    source = summary["arms"][0]["phases"][0]["targets"]["sources"][0]
    assert source["candidates"] == 2 * source["problems"] == 16
    assert source["asked"][0]["price"] == pytest.approx(8 * (10 + 2 * 10) / 1e6)
    bridge = summary["arms"][0]["phases"][0]["targets"]["sources"][1]["bridge"]
    assert bridge["raw"]["verified"] == bridge["raw"]["of"] == 8
    lost = tables(whole, "coverage")[0].filter(pl.col("targets") == 0)
    assert set(lost["reason"]) <= {"no response is correct", "no rewrite is correct"}
    assert "scripted" in (whole / "report.html").read_text()
