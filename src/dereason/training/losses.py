"""Losses, as pure functions of tensors, their normaliser passed in.

Shape legend: N response tokens of a micro-batch, row after row; R its rows; M rows of a generation (groups of G side
by side).

Every loss here is a sum over tokens of ``weight * per-token loss``. The weights (:func:`token_weights`) hold the
normaliser of the whole optimiser step, over micro-batches and processes, so that the split into micro-batches
cannot change the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["grpo", "dapo", "dr_grpo", "rloo"]
Scale = Literal["group", "batch", "none"]
RatioLevel = Literal["token", "sequence"]

STD_OFFSET = 1e-4
"""Added to a standard deviation before dividing by it, as TRL does."""


@dataclass(frozen=True)
class BatchCounts:
    """What a loss is divided by: counts over the whole optimiser step, all micro-batches and processes."""

    tokens: float
    """Tokens that carry loss."""
    sequences: float
    """Rows that carry loss."""


def group_advantages(rewards_M: Tensor, group_size: int, *, scale: Scale, leave_one_out: bool = False) -> Tensor:
    r"""Advantages (M,) of rewards (M,), rows of one group side by side; NaN marks a row that was not scored.

    ``A_i = (r_i - mean) / (std + 1e-4)``, mean and (unbiased) standard deviation over the scored rows of the
    group, or std over those of the batch, or no division. A row that was not scored gets 0, and so does the only
    scored row of a group.

    Args:
        rewards_M: rewards; NaN where the verifier failed.
        group_size: G; divides M.
        scale: what the difference is divided by.
        leave_one_out: multiply by n/(n-1), n the scored rows of the group: the baseline is then the mean of the
            *other* rows (RLOO, arXiv 2402.14740).
    """
    import torch

    groups = rewards_M.view(-1, group_size)
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
        every = rewards_M[~torch.isnan(rewards_M)]
        std = every.std() if every.numel() > 1 else rewards_M.new_zeros(())
        advantages = advantages / (std + STD_OFFSET)
    # Equal rewards have no advantage: what rounding leaves of 0.1 - mean would be scaled up, and Adam takes any sign.
    highest = torch.where(scored, groups, -torch.inf).amax(1, keepdim=True)
    lowest = torch.where(scored, groups, torch.inf).amin(1, keepdim=True)
    return torch.where(highest > lowest, advantages, 0.0).view(-1)


def log_ratios(logp_N: Tensor, old_logp_N: Tensor, row_N: Tensor, lengths_R: Tensor, *, level: RatioLevel) -> Tensor:
    r"""Log of the probability ratio (N,) between the policy and the one that sampled.

    ``token``: ``logp - old_logp`` of the token (PPO, GRPO). ``sequence``: its mean over the row, the same for all of
    the row's tokens: the ratio is the geometric mean of the tokens' ratios (GSPO, arXiv 2507.18071).

    Args:
        logp_N: log-probabilities under the policy.
        old_logp_N: those of the policy that sampled, constants.
        row_N: each token's row, 0..R-1.
        lengths_R: tokens of each row.
        level: where the ratio is taken.
    """
    difference = logp_N - old_logp_N
    if level == "token":
        return difference
    mean = difference.new_zeros(len(lengths_R)).index_add(0, row_N, difference) / lengths_R
    return mean[row_N]


def clipped_policy_loss(
    log_ratio_N: Tensor, advantages_N: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    r"""The clipped surrogate of GRPO (arXiv 2402.03300) per token, and where the clip took the gradient away.

    ``-min(ρ A, clip(ρ, 1 - clip_low, 1 + clip_high) A)``; a higher ``clip_high`` is DAPO's (arXiv 2503.14476).

    Returns:
        per-token loss (N,); clipped (N,), bool.
    """
    import torch

    ratio = torch.exp(log_ratio_N)
    loss = -torch.min(ratio * advantages_N, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages_N)
    clipped = ((ratio < 1 - clip_low) & (advantages_N < 0)) | ((ratio > 1 + clip_high) & (advantages_N > 0))
    return loss, clipped


def sampler_weights(old_logp_N: Tensor, sampler_logp_N: Tensor, *, cap: float) -> Tensor:
    """Truncated importance weights (N,) for tokens that were drawn otherwise: ``min(π_old / π_sampler, cap)``.

    A sampler's probabilities differ a little from the training model's by its arithmetic; under filters (top_p, ...)
    they are the policy's by the share that was left, and the weight is that share. The weight makes the gradient that
    of the training model's policy again, over the tokens that the sampler may draw; the cap bounds its variance. A
    token whose probability the sampler did not report (NaN) has weight 1.
    """
    import torch

    weights = torch.exp(old_logp_N - sampler_logp_N).clamp(max=cap).detach()
    return torch.where(sampler_logp_N.isnan(), 1.0, weights)


def kl_estimate(logp_N: Tensor, ref_logp_N: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) per token: ``exp(d) - d - 1``, d = ref_logp - logp.

    It estimates anything only on tokens that the policy drew.
    """
    import torch

    difference = ref_logp_N - logp_N
    return torch.exp(difference) - difference - 1


def token_weights(length_N: Tensor, loss: LossName, counts: BatchCounts, *, max_new_tokens: int) -> Tensor:
    """Weight (N,) of each token's loss; summed over the optimiser step, weight times loss is the loss.

    ============  ==================================================================================
    ``dapo``      1 / loss tokens of the optimiser step (arXiv 2503.14476)
    ``grpo``      1 / (tokens of the row · rows): mean over rows of the mean over their tokens (2402.03300)
    ``dr_grpo``   1 / (length limit · rows): no row length in it (2503.20783)
    ``rloo``      1 / rows: mean over rows of the sum over their tokens (2402.14740)
    ============  ==================================================================================

    Args:
        length_N: loss tokens of each token's row.
        loss: the normalisation.
        counts: of the optimiser step this micro-batch belongs to.
        max_new_tokens: the length limit of a rollout.
    """
    import torch

    rows = max(counts.sequences, 1.0)
    divisor = {
        "dapo": torch.full_like(length_N, max(counts.tokens, 1.0)),
        "grpo": length_N * rows,
        "dr_grpo": torch.full_like(length_N, max_new_tokens * rows),
        "rloo": torch.full_like(length_N, rows),
    }
    return 1.0 / divisor[loss]
