r"""DYPO (arXiv 2604.08926): what a group of rollouts teaches depends on how many of it are right::

    all right:  the problem is dropped
    all wrong:  SFT on its demonstration
    mixed:      β · L_RL + (1-β) · L_GAL

    L_GAL = mean over pairs (s right, f wrong) of  -log σ(β' z_sf),   z_sf = log π/π_ref (s) - log π/π_ref (f)

π(s) is the probability of the whole rollout; pairs are within a group. Each problem that is not dropped weighs the
same, its pairs' mean as one (``per: problem``); with ``per: term`` each of the three losses is a mean over the step,
the one over pairs over all pairs of it. A rollout without a verdict is in no pair.

The released code (Tocci-Zhu/DYPO, ``examples/run_dypo_math.sh``, ``verl/trainer/ppo/core_algos.py``) is another form,
``form: released``: mixed groups train on L_RL + 0.1 · L_GAL without a reference (π_ref = 1), and all-wrong problems
wait in a queue for SFT updates of their own, as in ReLIFT.

The two rollouts of a pair may be in different micro-batches. L_GAL's gradient is linear in theirs::

    ∇ -log σ(β' z_sf) = -σ(-β' z_sf) β' (∇ log π(s) - ∇ log π(f))

So the coefficients of all rollouts are computed beforehand, without gradient, from their probabilities under the
present policy and the reference, and each token's loss is its rollout's coefficient times its log-probability. What is
logged as ``gal`` is L_GAL itself, not this linear stand-in.

The paper has several teachers to choose from; here a problem has one demonstration, and that one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import (
    PAIRS,
    POLICY,
    SFT,
    JointRow,
    Method,
    Queue,
    View,
    demonstration_row,
    successes,
)
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor


class DYPOQueue(Queue):
    """SFT updates of the released form."""

    batch: int = Field(default=16, gt=0)
    """Demonstrations of one update; when as many wait, it follows the batch's RL updates, and the others wait on."""


class DYPO(Method):
    """SFT on problems that are never solved, RL and a pairwise loss on those that sometimes are."""

    paper: ClassVar[str] = "2604.08926"
    rule: ClassVar[str] = "all right: dropped; all wrong: SFT; mixed: beta * RL + (1 - beta) * pairwise loss (GAL)"
    name: Literal["dypo"] = "dypo"
    """Names this method."""
    form: Literal["paper", "released"] = "paper"
    """The paper's equations, or what its released code does."""
    beta: float = Field(default=0.5, ge=0, le=1)
    """Weight of the RL loss on mixed groups, the pairwise loss having the rest (ours); in the paper's form alone."""
    gal_weight: float = Field(default=0.1, ge=0)
    """Weight of the pairwise loss in the released form."""
    queue: DYPOQueue = DYPOQueue()
    """SFT updates of the released form (their size, rate and clip are ours: one batch of its script, and ReLIFT's)."""
    pair_beta: float = Field(default=0.1, gt=0)
    """Scale beta' of the log-ratios in the pairwise loss (ours)."""
    per: Literal["problem", "term"] = "problem"
    """Whether each problem weighs the same, or each of the three losses is a mean of its own."""

    @property
    def needs_reference(self) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.form == "paper"

    @property
    def supervised(self) -> Queue | None:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.queue if self.form == "released" else None

    def buffers(self, group: Group) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return successes(group) == 0 and any(c is not None for c in group.correct)

    @property
    def per_problem(self) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.per == "problem"

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        right, judged = successes(group), sum(c is not None for c in group.correct)
        if right == judged:  # also where no rollout has a verdict
            return []
        if not right:
            return [demonstration_row(demonstration)] if self.form == "paper" else []
        return [
            JointRow(response, (POLICY, PAIRS), advantage, number)
            for number, (response, advantage) in enumerate(zip(group.responses, advantages, strict=True))
        ]

    def pairs(self, log_ratios: Sequence[float], right: Sequence[bool]) -> tuple[list[float], float, int]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        coefficients, value, count = [0.0] * len(right), 0.0, 0
        for s in (i for i, is_right in enumerate(right) if is_right):
            for f in (i for i, is_right in enumerate(right) if not is_right):
                z = self.pair_beta * (log_ratios[s] - log_ratios[f])
                small = math.exp(-abs(z))
                value += math.log1p(small) + max(-z, 0.0)
                share = (small if z > 0 else 1.0) / (1 + small)  # σ(-z)
                coefficients[s] -= self.pair_beta * share
                coefficients[f] += self.pair_beta * share
                count += 1
        return coefficients, value, count

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        import torch

        policy, pairs = (self.beta, 1 - self.beta) if self.form == "paper" else (1.0, self.gal_weight)
        return {
            POLICY: torch.where(view.supervised, policy * view.policy_loss, view.policy_loss),
            SFT: -view.logp,
            PAIRS: pairs * view.pair_weight * view.logp,
        }
