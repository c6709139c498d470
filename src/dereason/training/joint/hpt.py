"""HPT, hybrid post-training (arXiv 2509.04419): problem by problem, RL where it is solved often enough, else SFT.

    solved(q) > gate:   the rollouts, by the RL loss
    solved(q) <= gate:  the demonstration, by c · mean over its tokens of -log π(d_t); rollouts are dropped

As the paper's equation has it the gate is the problem's, so each problem weighs the same (``per: problem``): one gated
problem of sixteen has a sixteenth of the step. The released code (TsinghuaC3I/Unify-Post-Training,
``hpt/verl/verl/mix_src/mix_actor.py``) divides each of the two losses within its micro-batch and adds them: there what
a demonstration weighs depends on what it shares a micro-batch with. ``per: term`` is that without the micro-batch: each
loss is a mean of its own over the step, so the one demonstration weighs as much as the fifteen groups.

With a gate of -1 it is GRPO, with one of G it is SFT on the demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dereason.training.joint.frame import (
    POLICY,
    SFT,
    JointRow,
    Method,
    View,
    demonstration_row,
    rollout_rows,
    successes,
)
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor


class HPT(Method):
    """SFT on problems that are solved at most ``gate`` times, RL on the others."""

    paper: ClassVar[str] = "2509.04419"
    rule: ClassVar[str] = "solved at most gate times: SFT, else RL"

    name: Literal["hpt"] = "hpt"
    """Names this method."""
    gate: int = Field(default=0, ge=-1)
    """Most correct rollouts of a problem that goes to SFT; the paper has 0, and 2 for Llama."""
    sft_weight: float = Field(default=1.0, ge=0)
    """Weight c of the SFT loss; the released runs have 1, and 0.3 for Qwen2.5-Math-1.5B."""
    per: Literal["problem", "term"] = "problem"
    """Whether each problem weighs the same, or each of the two losses is a mean of its own."""

    @property
    def per_problem(self) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.per == "problem"

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        if successes(group) <= self.gate:
            return [demonstration_row(demonstration)]
        return rollout_rows(group, advantages)

    def terms(self, view: View) -> dict[str, Tensor]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return {POLICY: view.policy_loss, SFT: -self.sft_weight * view.logp}
