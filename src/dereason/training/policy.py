"""Between rollouts and gradient: groups of rollouts, the rows of one optimiser step, and their loss.

Shape legend as in :mod:`dereason.training.losses`: N response tokens of a micro-batch, R its rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dereason.lm.local.forward import TokenScores
from dereason.lm.local.packing import Batch, Row
from dereason.training.losses import (
    BatchCounts,
    clipped_policy_loss,
    kl_estimate,
    log_ratios,
    sampler_weights,
    token_weights,
)

if TYPE_CHECKING:
    from dereason.training.rl import RL


@dataclass
class Group:
    """The rollouts of one problem.

    Attributes:
        problem: its id.
        prompt: token ids.
        responses: token ids of what is trained on.
        tails: reference tokens at the end of each response (VeriFree), else 0.
        cut: whether the rollout hit the length limit.
        logps: log-probabilities by the engine that drew the tokens, None where they are not of these tokens.
        rewards: NaN where undecided.
        correct: whether each response is right, by its verdict and not by what it is paid
            (:attr:`~dereason.training.rollouts.Rollouts.correct`); None where it has no verdict or no reward.
        mixed: whether the rollouts differ in verdict (or, without a verifier, in reward).
        given: how many leading tokens of each response were given to it, not drawn; empty: none of any.
    """

    problem: str
    prompt: list[int]
    responses: list[list[int]]
    tails: list[int]
    cut: list[bool]
    logps: list[list[float]] | None
    rewards: list[float]
    correct: list[bool | None]
    mixed: bool
    given: list[int] = field(default_factory=list)


@dataclass
class Update:
    """This process's rows of one optimiser step.

    Attributes:
        rows: all of them.
        kept: whether each carries loss, and so is counted.
        run: indices of those with a gradient.
        advantages: of each row.
        rewards: of each row, 0 where undecided.
        tails: reference tokens at the end of each row.
        sampler: log-probabilities of each row's tokens by the engine that drew them, as far as there are any.
        counts: loss tokens and rows of the step, over all processes.
        old: log-probabilities of the rows that are run by the policy that drew them; empty where it is the present one.
        reference: the same by the reference model, for a KL term.
    """

    rows: list[Row]
    kept: list[bool]
    run: list[int]
    advantages: list[float]
    rewards: list[float]
    tails: list[int]
    sampler: dict[int, list[float]]
    counts: BatchCounts = field(default_factory=lambda: BatchCounts(0, 0))
    old: dict[int, Any] = field(default_factory=dict)
    reference: dict[int, Any] = field(default_factory=dict)

    def totals(self) -> list[float]:
        """This process's share of ``counts``: loss tokens, rows."""
        tokens = sum(len(row.response) for row, keep in zip(self.rows, self.kept, strict=True) if keep)
        return [float(tokens), float(sum(self.kept))]


def make_update(
    groups: Sequence[Group], places: Sequence[int], advantages: Sequence[Sequence[float]], phase: RL, *, router: bool
) -> Update:
    """The rows of some groups.

    A row without a reward (its verdict is ``error``) carries no loss and is not counted; one whose advantage is zero is
    counted and, where nothing else has a gradient in it, not run.

    Args:
        groups: the groups of this process in this step.
        places: number of each in the generation.
        advantages: of each group's rows.
        phase: the settings.
        router: whether a mixture-of-experts model's balance is trained too.
    """
    update = Update([], [], [], [], [], [], {})
    everything = bool(phase.kl or phase.entropy_bonus or router)
    for group, place, of_group in zip(groups, places, advantages, strict=True):
        for i, advantage in enumerate(of_group):
            number = len(update.rows)
            reward = 0.0 if math.isnan(group.rewards[i]) else group.rewards[i]
            kept = not math.isnan(group.rewards[i]) and not (phase.mask_truncated and group.cut[i])
            update.rows.append(Row(group.prompt, group.responses[i], place))
            update.kept.append(kept)
            update.advantages.append(advantage)
            update.rewards.append(reward)
            update.tails.append(group.tails[i])
            if group.logps is not None:
                update.sampler[number] = group.logps[i]
            if kept and (everything or advantage != 0 or (phase.verifree and reward != 0)):
                update.run.append(number)
    return update


def of_tokens(values: Sequence[float], batch: Batch, like: Any) -> Any:
    """A number of each row of the update, for each token (N,) of a micro-batch."""
    import torch

    return torch.tensor([values[i] for i in batch.rows], device=like.device, dtype=like.dtype)[batch.row]


def token_losses(
    update: Update, batch: Batch, scores: TokenScores, phase: RL, *, drawn: Any = None
) -> tuple[Any, Any, dict[str, tuple[Any, Any]]]:
    r"""The loss of each token, before it is averaged: ``loss_t + kl · k3_t``.

    ``loss`` is the clipped surrogate (:func:`~dereason.training.losses.clipped_policy_loss`); on the tokens of
    VeriFree's reference it is ``-r log π``.

    Args:
        update: the step's rows.
        batch: the micro-batch.
        scores: its forward pass.
        phase: the settings.
        drawn: (N,) 0-1, the tokens that the policy drew; None: all, but for VeriFree's references.

    Returns:
        (N,) loss; (N,) 0-1, the tokens that the policy drew; values (N,) and the mask (N,) of each logged mean.
    """
    import torch

    device, dtype = batch.row.device, scores.logp.dtype

    def of_token(values: Sequence[float]) -> Any:
        return of_tokens(values, batch, scores.logp)

    lengths = torch.tensor(batch.lengths, device=device, dtype=dtype)
    # Without stored ones the rollouts are this policy's own, and the ratio is 1.
    old = torch.cat([update.old[i] for i in batch.rows]) if update.old else scores.logp.detach()
    ratio = log_ratios(scores.logp, old, batch.row, lengths, level=phase.ratio)
    loss, clipped = clipped_policy_loss(
        ratio, of_token(update.advantages), clip_low=phase.clip_low, clip_high=phase.clip_high
    )
    every = torch.ones_like(loss) if drawn is None else drawn
    sampled = every  # clip and KL estimate are about these
    seen: dict[str, tuple[Any, Any]] = {}
    if update.sampler:
        said = torch.tensor([v for i in batch.rows for v in update.sampler[i]], device=device, dtype=dtype)
        known = (~said.isnan()).to(dtype)
        seen["sampler_gap"] = ((old - said).abs().nan_to_num(), known)
        loss = loss * sampler_weights(old, said, cap=phase.sampler_cap)
    if any(update.tails):
        on_answer = _tokens_left(batch.row, batch.lengths) <= of_token(update.tails)
        loss = torch.where(on_answer, -of_token(update.rewards) * scores.logp, loss)
        sampled = (~on_answer).to(dtype)
    if phase.kl:
        kl = kl_estimate(scores.logp, torch.cat([update.reference[i] for i in batch.rows]))
        loss = loss + phase.kl * kl * sampled
        seen["kl"] = (kl, sampled)
    seen["entropy"] = (scores.entropy, every)
    seen["clip_share"] = (clipped.to(dtype), sampled)
    return loss, sampled, seen


def policy_loss(
    update: Update, batch: Batch, scores: TokenScores, phase: RL, *, router_weight: float = 0.0
) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    r"""One micro-batch's part of an RL step's loss.

    ``Σ_t w_t loss_t - entropy_bonus · mean entropy``, ``loss`` of :func:`token_losses`, ``w`` of
    :func:`~dereason.training.losses.token_weights`.

    Returns:
        the loss, a scalar; values (N,) and the 0-1 mask (N,) of the tokens that each logged mean is over.
    """
    import torch

    loss, sampled, seen = token_losses(update, batch, scores, phase)
    lengths = torch.tensor(batch.lengths, device=loss.device, dtype=loss.dtype)
    weights = token_weights(lengths[batch.row], phase.loss, update.counts, max_new_tokens=phase.max_new_tokens)
    total = (loss * weights).sum()
    if phase.entropy_bonus:
        total = total - phase.entropy_bonus * (scores.entropy * sampled).sum() / max(update.counts.tokens, 1.0)
    if router_weight:
        total = total + router_weight * scores.router_loss * len(batch.rows) / max(update.counts.sequences, 1.0)
    return total, seen


def _tokens_left(row_N: Any, lengths: Sequence[int]) -> Any:
    """Tokens (N,) from each token to the end of its row, itself included."""
    import torch

    ends = torch.tensor(lengths, device=row_N.device).cumsum(0)
    return ends[row_N] - torch.arange(len(row_N), device=row_N.device)


def tokens_before(row_N: Any, lengths: Sequence[int]) -> Any:
    """Tokens (N,) between the beginning of each token's row and the token."""
    import torch

    lengths_R = torch.tensor(lengths, device=row_N.device)
    return torch.arange(len(row_N), device=row_N.device) - (lengths_R.cumsum(0) - lengths_R)[row_N]
