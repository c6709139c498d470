r"""SRFT (arXiv 2506.19767): SFT and RL in one step, weighted by the policy's entropy.

    L = 0.5·exp(-H_d) · (-log π(d_t))        SFT on the demonstration
      + -A_d · π(d_t)                        RL on it: its behaviour policy is taken to have had probability 1
      + -0.1·exp(H_o) · log π(o_t)           correct rollouts
      + log π(o_t)                           the others

H is the entropy of the policy, taken here as the mean over the row's tokens and detached (ours: over what the paper
averages is not known to us); A_d is the demonstration's advantage in the group that it joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import POLICY, SFT, JointRow, Method, View, rollout_rows
from dereason.training.losses import STD_OFFSET
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor

OFF_POLICY = "off_policy"


class SRFT(Method):
    """Entropy-weighted SFT and RL on the demonstration, and RL on rollouts with weighted successes."""

    paper: ClassVar[str] = "2506.19767"
    rule: ClassVar[str] = "SFT weighted by exp(-H), successes by exp(H), RL on the demonstration too"

    name: Literal["srft"] = "srft"
    """Names this method."""
    sft_weight: float = Field(default=0.5, ge=0)
    """Weight of the SFT loss before exp(-H)."""
    success_weight: float = Field(default=0.1, ge=0)
    """Weight of correct rollouts before exp(H)."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        signs = [1.0 if correct else -1.0 for correct in group.correct]
        known = [*(s for s, c in zip(signs, group.correct, strict=True) if c is not None), 1.0]
        mean = sum(known) / len(known)
        spread = (sum((s - mean) ** 2 for s in known) / max(1, len(known) - 1)) ** 0.5
        joined = JointRow(demonstration, (SFT, OFF_POLICY), (1.0 - mean) / (spread + STD_OFFSET))
        return [*rollout_rows(group, signs), joined]

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        import torch

        entropy = view.row_mean(view.entropy).detach()
        signed = torch.where(view.advantage > 0, -self.success_weight * torch.exp(entropy) * view.logp, view.logp)
        return {
            POLICY: torch.where(view.supervised, signed, view.policy_loss),
            SFT: -self.sft_weight * torch.exp(-entropy) * view.logp,
            OFF_POLICY: -view.advantage * torch.exp(view.logp),
        }
