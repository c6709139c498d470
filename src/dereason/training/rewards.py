"""Rewards: from judged responses to numbers.

A reward is a pure function of the judgements of a batch of responses and of the rows they answer;
:mod:`dereason.training.rl` judges each response once and hands the result to TRL. To add one, write it here
and name it in :data:`REWARDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dereason.problems.schema import Verdict
from dereason.verify.verdict import Judgement

Reward = Callable[[Sequence[Judgement], Sequence[dict[str, Any]]], list[float | None]]
"""(judgements, dataset rows) -> rewards; None takes the completion out of the group."""


def correctness(judgements: Sequence[Judgement], rows: Sequence[dict[str, Any]]) -> list[float | None]:
    """1 for a correct answer, 0 for any other response, None where the verifier failed."""
    return [None if j.verdict is Verdict.ERROR else float(j.verdict is Verdict.CORRECT) for j in judgements]


REWARDS: dict[str, Reward] = {"correctness": correctness}
