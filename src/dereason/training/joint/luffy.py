r"""LUFFY (arXiv 2504.14945): the demonstration joins the group as one more response, off-policy.

    rollouts:       the RL loss
    demonstration:  -A_d · p_t / (p_t + γ),  p_t = π(d_t | ...), no clip, no ratio

    A_d = (r_d - mean) / std,  mean and std over the *rollouts'* rewards, a std of 0 replaced by 1

``p / (p + γ)`` keeps the gradient of improbable tokens up, which a plain likelihood ratio would lose. The paper's
group has one normaliser; ``pooled: false`` gives demonstrations their own. The released run uses no std (set
``scale_rewards: none``), no clip on rollouts either, and a constant divisor (``loss: dr_grpo``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import POLICY, JointRow, Method, View, demonstration_row, rollout_rows
from dereason.training.losses import STD_OFFSET
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor

OFF_POLICY = "off_policy"


class LUFFY(Method):
    """The demonstration as an off-policy member of the group, its gradient shaped."""

    paper: ClassVar[str] = "2504.14945"
    rule: ClassVar[str] = "the demonstration joins the group, its tokens by p/(p + gamma)"

    name: Literal["luffy"] = "luffy"
    """Names this method."""
    gamma: float = Field(default=0.1, gt=0)
    """Shape of the demonstration's weight p/(p + gamma); the paper's is 0.1."""
    pooled: bool = True
    """Whether demonstration tokens share the rollouts' normaliser, as in the paper, or have their own."""
    std: bool = True
    """Whether the demonstration's advantage is divided by the group's standard deviation; false with no scaling."""

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        known = [r for r in group.rewards if r == r]
        mean = sum(known) / max(1, len(known))
        spread = (sum((r - mean) ** 2 for r in known) / max(1, len(known) - 1)) ** 0.5
        scale = spread + STD_OFFSET if self.std and spread else 1.0
        term = POLICY if self.pooled else OFF_POLICY
        return [*rollout_rows(group, advantages), demonstration_row(demonstration, term, (1.0 - mean) / scale)]

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        import torch

        p = torch.exp(view.logp)
        shaped = -view.advantage * p / (p + self.gamma)
        return {POLICY: torch.where(view.demonstration, shaped, view.policy_loss), OFF_POLICY: shaped}
