r"""LUFFY (arXiv 2504.14945): the demonstration joins the group as one more response, off-policy.

    rollouts:       the RL loss
    demonstration:  -A_d · p_t / (p_t + γ),  p_t = π(d_t | ...), no clip, no ratio

    A = (r - mean) / std,  mean and std over the rollouts *and* the demonstration, for every row alike

So seven rollouts that are all wrong and a demonstration have advantages of -0.125 and +0.875 (without std), and where
all are right nothing is learned of either. r_d is what the phase's rewards pay for the demonstration, taken as correct.
``p / (p + γ)`` keeps the gradient of improbable tokens up, which a plain likelihood ratio would lose.

The released run (ElliottYan/LUFFY, ``exp_scripts/train.sh``: ``adv_estimator=grpo``, ``rollout.n=8`` of which
``n_prefix=1``) has ``group_size: 7``, no std (``scale_rewards: none``), a constant divisor (``loss: dr_grpo``) and no
clip on rollouts either. What its code calls ``grpo_split``, mean and std over rollouts alone, belongs to its baseline
of RL with an SFT loss (here ``weighted``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import POLICY, JointRow, Method, View, demonstration_row, rollout_rows
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor

OFF_POLICY = "off_policy"


class LUFFY(Method):
    """The demonstration as an off-policy member of the group, its gradient shaped."""

    paper: ClassVar[str] = "2504.14945"
    rule: ClassVar[str] = "the demonstration joins the group, its tokens by p/(p + gamma)"
    joins: ClassVar[bool] = True

    name: Literal["luffy"] = "luffy"
    """Names this method."""
    gamma: float = Field(default=0.1, gt=0)
    """Shape of the demonstration's weight p/(p + gamma); the paper's is 0.1."""
    pooled: bool = True
    """Whether demonstration tokens share the rollouts' normaliser, as in the paper, or have their own (ours)."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        term = POLICY if self.pooled else OFF_POLICY
        return [*rollout_rows(group, advantages), demonstration_row(demonstration, term, advantages[-1])]

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        import torch

        p = torch.exp(view.logp)
        shaped = -view.advantage * p / (p + self.gamma)
        return {POLICY: torch.where(view.demonstration, shaped, view.policy_loss), OFF_POLICY: shaped}
