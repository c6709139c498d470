"""Losses of reinforcement learning, as pure functions of tensors, their normaliser passed in.

Shape legend: N rows of a generation (groups of G side by side), B rows of a micro-batch, T completion tokens.

Every loss here is a sum over tokens of ``weight * per-token loss``. The weights (:func:`token_weights`) hold the
normaliser of the whole optimiser batch, over micro-batches and processes, so that the split into micro-batches
cannot change the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["grpo", "dapo", "dr_grpo"]
Scale = Literal["group", "batch", "none"]

STD_OFFSET = 1e-4
"""Added to a standard deviation before dividing by it, as TRL does."""


@dataclass(frozen=True)
class BatchCounts:
    """What a loss is divided by: counts over the whole optimiser batch, all micro-batches and processes."""

    tokens: float
    """Tokens that carry loss."""
    sequences: float
    """Rows that carry loss."""


def group_advantages(rewards_N: Tensor, group_size: int, *, scale: Scale, leave_one_out: bool = False) -> Tensor:
    r"""Advantages (N,) of rewards (N,), rows of one group side by side; NaN marks a row that was not scored.

    ``A_i = (r_i - mean) / (std + 1e-4)``, mean and (unbiased) standard deviation over the scored rows of the
    group, or std over those of the batch, or no division. A row that was not scored gets 0, and so does the only
    scored row of a group.

    Args:
        rewards_N: rewards; NaN where the verifier failed.
        group_size: G; divides N.
        scale: what the difference is divided by.
        leave_one_out: multiply by n/(n-1), n the scored rows of the group: the baseline is then the mean of the
            *other* rows (RLOO, arXiv 2402.14740).
    """
    import torch

    groups = rewards_N.view(-1, group_size)
    scored = ~torch.isnan(groups)
    count = scored.sum(1, keepdim=True)
    filled = torch.where(scored, groups, 0.0)
    centred = torch.where(scored, groups - filled.sum(1, keepdim=True) / count.clamp(min=1), 0.0)
    advantages = centred
    if leave_one_out:
        advantages = advantages * count / (count - 1).clamp(min=1)
    if scale == "group":
        std = ((centred**2).sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        advantages = advantages / (std + STD_OFFSET)
    elif scale == "batch":
        every = rewards_N[~torch.isnan(rewards_N)]
        std = every.std() if every.numel() > 1 else rewards_N.new_zeros(())
        advantages = advantages / (std + STD_OFFSET)
    return torch.where(count > 1, advantages, 0.0).view(-1)


def clipped_policy_loss(
    logp_BT: Tensor, old_logp_BT: Tensor, advantages_B: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    r"""The clipped surrogate of GRPO (arXiv 2402.03300) per token, and where the clip took the gradient away.

    ``-min(ρ A, clip(ρ, 1 - clip_low, 1 + clip_high) A)`` with ``ρ = exp(logp - old_logp)``.

    Returns:
        per-token loss (B, T); clipped (B, T), bool.
    """
    import torch

    advantages = advantages_B.unsqueeze(1)
    ratio = torch.exp(logp_BT - old_logp_BT)
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    clipped = ((ratio < 1 - clip_low) & (advantages < 0)) | ((ratio > 1 + clip_high) & (advantages > 0))
    return loss, clipped


def kl_estimate(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) per token: ``exp(d) - d - 1``, d = ref_logp - logp.

    It estimates anything only on tokens that the policy drew.
    """
    import torch

    difference = ref_logp_BT - logp_BT
    return torch.exp(difference) - difference - 1


def token_weights(mask_BT: Tensor, loss: LossName, counts: BatchCounts, *, max_new_tokens: int) -> Tensor:
    """Weight (B, T) of each token's loss; summed over the optimiser batch, weight times loss is the loss.

    ============  ==================================================================================
    ``dapo``      1 / loss tokens of the optimiser batch (arXiv 2503.14476)
    ``grpo``      1 / (tokens of the row · rows): mean over rows of the mean over their tokens (2402.03300)
    ``dr_grpo``   1 / (length limit · rows): no row length in it (2503.20783)
    ============  ==================================================================================

    Args:
        mask_BT: 1 where a token carries loss; a row left out of the batch is all 0.
        loss: the normalisation.
        counts: of the optimiser batch this micro-batch belongs to; an empty batch gives weights 0.
        max_new_tokens: the length limit of a rollout.
    """
    mask = mask_BT if mask_BT.is_floating_point() else mask_BT.float()
    if loss == "dapo":
        return mask / max(counts.tokens, 1.0)
    rows = max(counts.sequences, 1.0)
    if loss == "grpo":
        return mask / (mask.sum(1, keepdim=True).clamp(min=1.0) * rows)
    return mask / (max_new_tokens * rows)
