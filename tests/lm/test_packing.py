"""Which rows travel together: every one once, within the memory that was allowed, prompts run once where it pays."""

from __future__ import annotations

import random

import pytest
import torch

from dereason.lm.local.packing import Row, Segment, make_batch, plan_micro_batches


def rows_of(prompts: list[int], responses: list[int], groups: list[int] | None = None) -> list[Row]:
    groups = groups or [-1] * len(prompts)
    return [Row([1] * p, [2] * r, g) for p, r, g in zip(prompts, responses, groups, strict=True)]


@pytest.mark.parametrize("seed", range(60))
def test_random_plans_keep_their_promises(seed: int) -> None:
    draw = random.Random(seed)
    micro, size = draw.randint(1, 9), draw.randint(1, 8)
    lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 8))]
    rows = rows_of(
        [p for p in lengths for _ in range(size)],
        [draw.randint(1, 90) for _ in range(size * len(lengths))],
        [g for g in range(len(lengths)) for _ in range(size)],
    )
    members = [i for i in range(len(rows)) if draw.random() < 0.6]
    pair_cost = draw.choice([None, 0.0, 1e-3, 0.1])
    limit = draw.choice([None, 64, 300])
    plan = plan_micro_batches(rows, members, micro_batch=micro, pair_cost=pair_cost, tokens=limit)
    segments = [s for batch in plan for s in batch]
    assert sorted(i for s in segments for i in s.rows) == members
    for segment in segments:
        assert len({rows[i].group for i in segment.rows}) == 1
        assert len(segment.rows) == 1 or (pair_cost is not None and len(segment.rows) <= micro)
        assert segment.responses == sum(len(rows[i].response) for i in segment.rows)
        assert segment.length == len(rows[segment.rows[0]].prompt) + segment.responses
    if not members:
        assert plan == []
        return
    most = micro * max(len(rows[i].prompt) + len(rows[i].response) for i in members)
    for batch in plan:
        padded = len(batch) * max(s.length for s in batch)
        assert padded <= most
        assert sum(s.responses for s in batch) <= micro * max(len(rows[i].response) for i in members)
        assert len(batch) == 1 or limit is None or padded <= limit


def test_the_more_attention_costs_the_fewer_responses_share_a_prompt() -> None:
    rows = rows_of([50] * 8, [40] * 8, [0] * 8)
    sizes = [
        max(len(s.rows) for b in plan_micro_batches(rows, range(8), micro_batch=8, pair_cost=cost) for s in b)
        for cost in (0.0, 0.005, 0.1)
    ]
    assert sizes[0] == 8
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_short_rows_travel_in_larger_company() -> None:
    rows = rows_of([10] * 6, [90, 40, 40, 10, 10, 10])
    plan = plan_micro_batches(rows, range(6), micro_batch=2, pair_cost=None)
    assert [[s.rows[0] for s in batch] for batch in plan] == [[0, 1], [2, 3, 4, 5]]


def test_a_batch_by_hand() -> None:
    """Two responses behind one prompt, and a row of its own beside them."""
    rows = [Row([1, 2], [5, 6], 0), Row([1, 2], [7], 0), Row([3], [8, 9], 1)]
    batch = make_batch(rows, [Segment((0, 1), 5, 3), Segment((2,), 3, 2)], pad_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 5, 6, 7], [3, 8, 9, 0, 0]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 0, 0]]
    assert batch.predictors.tolist() == [1, 2, 1, 5, 6]
    assert batch.targets.tolist() == [5, 6, 7, 8, 9]
    assert batch.row.tolist() == [0, 0, 1, 2, 2]
    assert (batch.rows, batch.lengths, batch.tokens) == ((0, 1, 2), (2, 1, 2), 8)
    assert batch.visible is not None
    assert batch.visible[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],  # the second response sees the prompt and itself
    ]
    assert batch.visible[:, range(5), range(5)].all(), "a position that saw nothing would be NaN"
    alone = make_batch(rows, [Segment((2,), 3, 2)], pad_id=0)
    assert alone.visible is None
    assert torch.equal(alone.input_ids, torch.tensor([[3, 8, 9]]))
