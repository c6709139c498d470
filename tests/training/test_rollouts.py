"""What is kept and counted of rollouts that are judged under marks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from dereason.problems.schema import SAMPLE
from dereason.training.rewards.rules import Combined
from dereason.training.rewards.settings import Rewards, build
from dereason.training.rollouts import Rollouts, rollout_table
from dereason.verify.verifier import Verifier
from scripted_rewards import Words

TEXTS = [r"so \boxed{7}", "I get 7", "The answer is 7", "no"]


def rollouts(folder: Path, verifier: Verifier, rewards: Rewards) -> Rollouts:
    functions = build(rewards, tokenizer=Words(), max_new_tokens=8)
    weights = [reward.weight for reward in rewards.of]
    return Rollouts(
        folder, "t", (0,), Combined(functions, weights), verifier, marks=rewards.counted, group_size=4, by_spread=False
    )


@pytest.mark.parametrize(
    ("marks", "right"),
    [("any", [True, True, True, False]), ("all", [True, False, True, False]), (["boxed"], [True, False, False, False])],
)
def test_what_counts_as_solved_is_the_rewarded_answer(marks: Any, right: list[bool], tmp_path: Path) -> None:
    with Verifier() as verifier:
        taken = rollouts(tmp_path / "rollouts", verifier, Rewards(marks=marks))
        paid = taken(
            [[{"role": "user", "content": "q"}]] * 4,
            TEXTS,
            [[5, 0]] * 4,
            prompt_ids=[[1]] * 4,
            problem_id=["p"] * 4,
            answer=["7"] * 4,
            trainer_state=SimpleNamespace(global_step=0),
        )
    assert [value == 1 for value in paid] == right
    assert taken.correct == right
    assert taken.mixed == [True]
    assert taken.finish(0, lambda name, value: None) == {"p": (sum(right), 4)}
    kept = pl.read_parquet(tmp_path / "rollouts" / "step-000000.parquet")
    assert kept["right"].to_list() == right
    assert kept["verdict"].to_list() == ["correct"] * 3 + ["unparsable"]
    assert kept["strict"].to_list() == [True, False, True, False]
    assert rollout_table(tmp_path).columns == list(SAMPLE)
