"""An RL phase's options end to end on a two-layer model: dynamic sampling, difficulty bands, named algorithms, KL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import Verdict, frame
from dereason.training.rl import PRESETS, RL, RLOptimiser, draw_warnings, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.selection import Bands, DynamicSampling
from dereason.verify.verdict import Judgement

PROMPT = Prompt(system="Add.", suffix="Use \\boxed{}.")
POOL = frame(
    "problem",
    [
        {"id": f"p{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i), "domain": "sum", "source": "test"}
        for i in range(8)
    ],
)


def run(folder: Path, model: Path, **kw: Any) -> list[dict[str, float]]:
    phase = RL.model_validate(
        {
            "steps": 2,
            "prompts_per_generation": 4,
            "group_size": 2,
            "max_new_tokens": 6,
            "optimiser": RLOptimiser(learning_rate=1e-2, schedule="constant", micro_batch=4, checkpoint_every=1),
            **kw,
        }
    )
    run_rl(ModelSettings(name=str(model)), PROMPT, POOL, phase, identity="t", out=folder / "model", work=folder, seed=3)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def solvable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Answers of the problems whose first rollout of each pair is judged correct; the others are all wrong."""
    answers: set[str] = set()

    def judge_many(items: Any) -> list[Judgement]:
        right = [item.reference in answers and i % 2 == 0 for i, item in enumerate(items)]
        return [Judgement(Verdict.CORRECT if r else Verdict.WRONG, None, "planted") for r in right]

    planted = SimpleNamespace(judge_many=judge_many, rewarded=lambda items, judged, marks: judged)
    monkeypatch.setattr("dereason.training.rl.default_verifier", lambda: planted)
    return answers


def test_dynamic_sampling_fills_the_generation_with_mixed_groups(
    solvable: set[str], tiny_model: Path, tmp_path: Path
) -> None:
    solvable |= {"0", "4", "8", "12"}  # half of the pool: p0, p2, p4, p6
    logged = run(tmp_path, tiny_model, dynamic_sampling=DynamicSampling(max_draws=4))
    for line in logged:
        assert line["signal_groups"] == 1
        assert line["unfilled_groups"] == 0
        assert 1 < line["draws"] <= 4
        assert line["mixed_groups"] < 1, "the groups that were replaced are in the log"
    table = rollout_table(tmp_path)
    drawn = table.group_by("step").agg(pl.col("problem_id").n_unique())
    assert drawn["problem_id"].min() > 4, "and kept as samples"
    assert table.group_by("step", "problem_id").len()["len"].unique().to_list() == [2]


def test_dynamic_sampling_goes_on_with_what_it_has(solvable: set[str], tiny_model: Path, tmp_path: Path) -> None:
    """Only one problem can be solved: the bound is kept, the phase does not end."""
    solvable |= {"4"}
    logged = run(tmp_path, tiny_model, dynamic_sampling=DynamicSampling(max_draws=2))
    assert [line["draws"] for line in logged] == [2, 2]
    assert all(line["unfilled_groups"] >= 0.75 for line in logged)
    assert [line["step"] for line in logged] == [1, 2]
    told = draw_warnings(tmp_path, RL())[-1]
    assert re.search(r"left \d+ % of the groups .* \(2 of 2 generations\)", told)


def test_bands_rest_what_is_never_solved_and_survive_a_kill(
    solvable: set[str], tiny_model: Path, tmp_path: Path
) -> None:
    solvable |= {"0", "4", "8", "12"}
    options = {"bands": Bands(low=0.1, high=0.9, min_samples=2, rest=4), "steps": 4}
    whole = run(tmp_path / "whole", tiny_model, **options)
    assert [line["resting_problems"] for line in whole][:2] == [0.25, 0.5]
    table = rollout_table(tmp_path / "whole")
    assert set(table.filter(pl.col("step") == 3)["problem_id"]) == {"p0", "p2", "p4", "p6"}
    run(tmp_path / "cut", tiny_model, **{**options, "steps": 2})
    resumed = run(tmp_path / "cut", tiny_model, **options)
    assert [x["resting_problems"] for x in resumed] == [x["resting_problems"] for x in whole]
    assert rollout_table(tmp_path / "cut").equals(table)
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", PRESETS)
def test_an_algorithm_is_its_preset_and_trains(name: str, solvable: set[str], tiny_model: Path, tmp_path: Path) -> None:
    solvable |= {str(2 * i) for i in range(8)}
    phase = RL.model_validate({"algorithm": name})
    resolved = phase.model_dump()
    for key, value in PRESETS[name].items():
        assert resolved[key] == ({"max_draws": 3} if value == {} else value)
    clip = RL.model_validate({"algorithm": name, "clip_high": 0.5})
    assert clip.clip_high == 0.5, "what the phase says itself wins"
    logged = run(tmp_path, tiny_model, algorithm=name, kl=0.1, entropy_bonus=0.01, iterations=2)
    assert all(line["grad_norm"] > 0 for line in logged)
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert logged[1]["kl"] > 0, "the second pass is by another policy than the reference"
    assert logged[0]["clip_share"] == 0
    assert logged[0]["sampler_gap"] < 1e-4, "the engine's log-probabilities are the trainer's"
    assert "generated_tokens" not in logged[1]


def test_truncated_rollouts_can_leave_the_loss(solvable: set[str], tiny_model: Path, tmp_path: Path) -> None:
    """All rollouts of six tokens are cut by the limit: nothing is left to train on, and the step is taken."""
    solvable |= {str(2 * i) for i in range(8)}
    kept, masked = (
        run(tmp_path / str(mask), tiny_model, mask_truncated=mask, steps=1, max_new_tokens=2)[0]
        for mask in (False, True)
    )
    assert kept["trained_tokens"] > masked["trained_tokens"]
    assert kept["reward"] == masked["reward"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"updates_per_generation": 3}, "not a multiple of updates_per_generation 3"),
        ({"algorithm": "ppo"}, "algorithm"),
        ({"ratio": "sequence", "rewards": {"of": [{"name": "verifree"}]}}, "set ratio to token"),
        ({"dynamic_sampling": {"max_draws": 1}}, "max_draws"),
        ({"dynamic_sampling": {}, "rewards": {"of": [{"name": "rlpr"}]}}, "both deal with flat groups"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        RL.model_validate({"prompts_per_generation": 4, **options})
