"""The RL losses against calculations by loops in float64, and what may not change them."""

from __future__ import annotations

import math

import pytest
import torch

from dereason.training.losses import (
    BatchCounts,
    LossName,
    RatioLevel,
    Scale,
    clipped_policy_loss,
    group_advantages,
    kl_estimate,
    log_ratios,
    sampler_weights,
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


ROW = torch.tensor([0, 0, 0, 1, 2, 2])
LENGTHS = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_clipped_loss_by_hand(level: RatioLevel) -> None:
    """Rows of 3, 1 and 2 tokens; at the level of the sequence the ratio is the geometric mean of its tokens' ratios."""
    seen = set()
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        logp = torch.randn(6, generator=generator, dtype=torch.float64) * 0.5 - 1
        old = torch.randn(6, generator=generator, dtype=torch.float64) * 0.5 - 1
        advantages = torch.randn(3, generator=generator, dtype=torch.float64)
        ratios = log_ratios(logp, old, ROW, LENGTHS, level=level)
        loss, clipped = clipped_policy_loss(ratios, advantages[ROW], clip_low=0.2, clip_high=0.28)
        for t, row in enumerate(ROW.tolist()):
            of_row = [i for i, r in enumerate(ROW.tolist()) if r == row] if level == "sequence" else [t]
            ratio = math.prod(math.exp(logp[i] - old[i]) for i in of_row) ** (1 / len(of_row))
            a = float(advantages[row])
            assert float(loss[t]) == pytest.approx(-min(ratio * a, min(max(ratio, 0.8), 1.28) * a), abs=1e-12)
            flat = (ratio > 1.28 and a > 0) or (ratio < 0.8 and a < 0)
            assert bool(clipped[t]) == flat
            seen.add(flat)
    assert seen == {True, False}


@pytest.mark.parametrize("value", [0.9, 0.1, 0.3, 1 / 3, -0.7])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_have_no_advantage_at_all(value: float, scale: Scale) -> None:
    """In float32 eight times 0.9 have a mean that is not 0.9; divided by a deviation of 1e-4 that would be a signal."""
    rewards = torch.tensor([value] * 7 + [NAN] + [0.0, 1.0] * 4, dtype=torch.float32)
    advantages = group_advantages(rewards, 8, scale=scale)
    assert advantages[:8].tolist() == [0.0] * 8
    assert advantages[8:].abs().min() > 0


def test_the_gradient_of_a_sequence_ratio_reaches_every_token() -> None:
    """GSPO on policy: each token of a row has the row's advantage, divided by its length."""
    logp = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    ratios = log_ratios(logp, logp.detach(), ROW, LENGTHS, level="sequence")
    advantages = torch.tensor([1.0, -2.0, 0.5]).double()
    loss, _ = clipped_policy_loss(ratios, advantages[ROW], clip_low=3e-4, clip_high=4e-4)
    counts = BatchCounts(6, 3)
    (loss * token_weights(LENGTHS[ROW], "grpo", counts, max_new_tokens=9)).sum().backward()
    assert logp.grad is not None
    torch.testing.assert_close(logp.grad, -(advantages / LENGTHS / 3)[ROW])


def test_clipped_tokens_are_those_without_gradient() -> None:
    logp = torch.tensor([0.5, 0.1, -0.5, 0.5, 0.1, -0.5], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([1.0] * 3 + [-1.0] * 3).double()
    loss, clipped = clipped_policy_loss(logp, advantages, clip_low=0.2, clip_high=0.2)
    loss.sum().backward()
    assert logp.grad is not None
    assert ((logp.grad == 0) == clipped).all()
    assert clipped.tolist() == [True, False, False, False, False, True]


def test_sampler_weights_are_capped_ratios_and_one_where_nothing_is_known() -> None:
    old, drawn = torch.tensor([-1.0, -1.0, -1.0, -1.0]).double(), torch.tensor([-1.0, -4.0, -0.5, NAN]).double()
    assert sampler_weights(old, drawn, cap=2.0).tolist() == pytest.approx([1, 2, math.exp(-0.5), 1])


def test_kl_estimate_is_unbiased_over_the_vocabulary() -> None:
    generator = torch.Generator().manual_seed(1)
    policy, reference = (torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    exact = (policy.exp() * (policy - reference)).sum()
    assert float((policy.exp() * kl_estimate(policy, reference)).sum()) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "rloo"])
def test_the_normaliser_belongs_to_the_optimiser_step(loss: LossName) -> None:
    """Micro-batches of 1, 2, 4 and 8 rows, one row left out: the same sum, and the one of a loop."""
    generator = torch.Generator().manual_seed(2)
    lengths = [3, 1, 6, 6, 5, 4, 1]
    values = [torch.randn(n, generator=generator, dtype=torch.float64) for n in lengths]
    counts = BatchCounts(float(sum(lengths)), 7.0)
    sums = [float(v.sum()) for v in values]
    want = {
        "dapo": sum(sums) / sum(lengths),
        "grpo": sum(s / n for s, n in zip(sums, lengths, strict=True)) / 7,
        "dr_grpo": sum(sums) / (7 * 16),
        "rloo": sum(sums) / 7,
    }[loss]
    for size in (1, 2, 4, 7):
        total = 0.0
        for start in range(0, 7, size):
            some = range(start, min(7, start + size))
            length_N = torch.tensor([float(lengths[i]) for i in some for _ in range(lengths[i])]).double()
            weights = token_weights(length_N, loss, counts, max_new_tokens=16)
            total += float((torch.cat([values[i] for i in some]) * weights).sum())
        assert total == pytest.approx(want, abs=1e-12)
