"""Which rows travel together: every active one once, within the memory that was allowed, without padding columns."""

from __future__ import annotations

import math
import random

import pytest
import torch

from dereason.training.packing import plan_micro_batches, take_rows


@pytest.mark.parametrize("seed", range(50))
def test_random_plans_keep_their_promises(seed: int) -> None:
    draw = random.Random(seed)
    n, rows = draw.randint(1, 40), draw.randint(1, 9)
    prompts = [draw.randint(1, 60) for _ in range(n)]
    completions = [draw.randint(1, 90) for _ in range(n)]
    active = [draw.random() < 0.6 for _ in range(n)]
    plan = plan_micro_batches(prompts, completions, active, rows=rows)
    assert sorted(i for batch in plan for i in batch) == [i for i in range(n) if active[i]]
    assert len(plan) <= math.ceil(sum(active) / rows)
    for batch in plan:
        prompt, completion = max(prompts[i] for i in batch), max(completions[i] for i in batch)
        assert len(batch) * (prompt + completion) <= rows * (max(prompts) + max(completions))
        assert len(batch) * completion <= rows * max(completions)


def test_short_rows_travel_in_larger_company() -> None:
    assert plan_micro_batches([10] * 6, [90, 40, 40, 10, 10, 10], [True] * 6, rows=2) == [[0, 2], [1, 5, 4, 3]]


def test_nothing_active_is_no_micro_batch() -> None:
    assert plan_micro_batches([3, 4], [5, 6], [False, False], rows=2) == []


def test_taken_rows_lose_the_columns_that_are_padding_in_all() -> None:
    batch = {
        "prompt_ids": torch.tensor([[0, 0, 1], [0, 2, 3], [4, 5, 6]]),
        "prompt_mask": torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]]),
        "completion_ids": torch.tensor([[7, 0, 0, 0], [8, 9, 0, 0], [1, 2, 3, 4]]),
        "completion_mask": torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]),
        "advantages": torch.tensor([0.1, 0.2, 0.3]),
    }
    got = {name: value.tolist() for name, value in take_rows(batch, [1, 0]).items()}
    assert got == {
        "prompt_ids": [[2, 3], [0, 1]],
        "prompt_mask": [[1, 1], [0, 1]],
        "completion_ids": [[8, 9], [7, 0]],
        "completion_mask": [[1, 1], [1, 0]],
        "advantages": pytest.approx([0.2, 0.1]),
    }
