"""The RL losses against calculations by loops in float64, and what may not change them."""

from __future__ import annotations

import math

import pytest
import torch

from dereason.training.losses import (
    BatchCounts,
    LossName,
    Scale,
    clipped_policy_loss,
    group_advantages,
    kl_estimate,
    token_weights,
)

NAN = math.nan


def by_hand(rewards: list[float], size: int, scale: Scale, leave_one_out: bool) -> list[float]:
    every = [r for r in rewards if not math.isnan(r)]
    middle = sum(every) / len(every) if every else 0.0
    batch_std = math.sqrt(sum((r - middle) ** 2 for r in every) / (len(every) - 1)) if len(every) > 1 else 0.0
    out: list[float] = []
    for start in range(0, len(rewards), size):
        group = [r for r in rewards[start : start + size] if not math.isnan(r)]
        n = len(group)
        mean = sum(group) / n if n else 0.0
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (n - 1)) if n > 1 else 0.0
        for r in rewards[start : start + size]:
            if math.isnan(r) or n == 1:
                out.append(0.0)
                continue
            value = r - mean
            if leave_one_out:
                value = r - (sum(group) - r) / (n - 1)
            out.append(value / {"group": std + 1e-4, "batch": batch_std + 1e-4, "none": 1.0}[scale])
    return out


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize(
    "rewards",
    [
        [1, 0, 0, 1, 0.2, 0.4, -0.5, 1],
        [1, NAN, 0, 1, NAN, NAN, NAN, NAN],
        [1, NAN, NAN, NAN, 0, 0, 0, NAN],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [NAN] * 8,
    ],
)
def test_advantages_by_hand(scale: Scale, leave_one_out: bool, rewards: list[float]) -> None:
    got = group_advantages(torch.tensor(rewards, dtype=torch.float64), 4, scale=scale, leave_one_out=leave_one_out)
    assert got.tolist() == pytest.approx(by_hand(rewards, 4, scale, leave_one_out), abs=1e-12)


def test_an_error_among_equal_rewards_leaves_no_advantage() -> None:
    """As a zero it would have made the others look good."""
    assert group_advantages(torch.tensor([1.0, 1.0, NAN, 1.0]), 4, scale="group").tolist() == [0, 0, 0, 0]


def test_clipped_loss_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    logp = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 0.5 - 1
    old = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 0.5 - 1
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    loss, clipped = clipped_policy_loss(logp, old, advantages, clip_low=0.2, clip_high=0.28)
    seen = set()
    for b in range(6):
        for t in range(5):
            ratio = math.exp(logp[b, t] - old[b, t])
            a = float(advantages[b])
            want = -min(ratio * a, min(max(ratio, 0.8), 1.28) * a)
            assert float(loss[b, t]) == pytest.approx(want, abs=1e-12)
            flat = (ratio > 1.28 and a > 0) or (ratio < 0.8 and a < 0)
            assert bool(clipped[b, t]) == flat
            seen.add(flat)
    assert seen == {True, False}


def test_clipped_tokens_are_those_without_gradient() -> None:
    old = torch.zeros(2, 3, dtype=torch.float64)
    logp = torch.tensor([[0.5, 0.1, -0.5], [0.5, 0.1, -0.5]], dtype=torch.float64, requires_grad=True)
    loss, clipped = clipped_policy_loss(logp, old, torch.tensor([1.0, -1.0]).double(), clip_low=0.2, clip_high=0.2)
    loss.sum().backward()
    assert logp.grad is not None
    assert ((logp.grad == 0) == clipped).all()
    assert clipped.tolist() == [[True, False, False], [False, False, True]]


def test_kl_estimate_is_unbiased_over_the_vocabulary() -> None:
    generator = torch.Generator().manual_seed(1)
    policy, reference = (torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    exact = (policy.exp() * (policy - reference)).sum()
    assert float((policy.exp() * kl_estimate(policy, reference)).sum()) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_the_normaliser_belongs_to_the_optimiser_batch(loss: LossName) -> None:
    """Micro-batches of 1, 2, 4 and 8 rows, one row masked out: the same sum, and the one of a loop."""
    generator = torch.Generator().manual_seed(2)
    lengths = [3, 1, 6, 6, 2, 5, 4, 1]
    left_out = 4
    values = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[float(t < n and b != left_out) for t in range(6)] for b, n in enumerate(lengths)]).double()
    counts = BatchCounts(float(mask.sum()), 7.0)
    rows = [sum(float(values[b, t]) for t in range(n)) for b, n in enumerate(lengths)]
    kept = [b for b in range(8) if b != left_out]
    want = {
        "dapo": sum(rows[b] for b in kept) / sum(lengths[b] for b in kept),
        "grpo": sum(rows[b] / lengths[b] for b in kept) / len(kept),
        "dr_grpo": sum(rows[b] for b in kept) / (len(kept) * 16),
    }[loss]
    for size in (1, 2, 4, 8):
        total = sum(
            float((values[i : i + size] * token_weights(mask[i : i + size], loss, counts, max_new_tokens=16)).sum())
            for i in range(0, 8, size)
        )
        assert total == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_an_empty_batch_has_no_loss(loss: LossName) -> None:
    weights = token_weights(torch.zeros(2, 3), loss, BatchCounts(0, 0), max_new_tokens=4)
    assert weights.tolist() == [[0, 0, 0], [0, 0, 0]]
