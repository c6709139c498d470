r"""BRIDGE (arXiv 2509.06948): SFT steers RL through a second set of weights, by a penalty form of a bilevel problem::

    max_w J_SFT(θ*(w), w)   subject to   θ*(w) = argmax_θ J_RL(θ, w)

θ are the model's own weights, all trained; w is a LoRA on top, merged at the end; θ' is a copy of θ that learns by RL
alone, and stands for θ*. With one SFT and one RL batch a step::

    θ  ← θ  + α ∇_θ  [(1-λ) J_SFT(θ, w) + λ J_RL(θ, w)]
    θ' ← θ' + α ∇_θ' J_RL(θ', w)
    w  ← w  + β ∇_w  {(1-λ) J_SFT(θ, w) + λ [J_RL(θ, w) - J_RL(θ', w)]}

The bracket is the cooperative gain. Ours, because the paper as we know it does not say: the three updates are made at
once, from the values before the step; each set of weights has an optimiser state of its own and is clipped by itself;
the SFT batch is the demonstrations of the step's problems; a problem without one takes part in J_RL alone, and a step
without any has λ = 1: θ learns by plain RL, and w, as long as θ' = θ, stands still. First order: nothing is
differentiated twice.

**Shared rollouts.** J_RL(θ', w) would need rollouts of its own, drawn at full cost. Ours: the rollouts of (θ, w)
serve both, and in the gradient at θ' each token of them counts by the ratio of its probabilities under (θ', w)
and (θ, w), capped at ``ratio_cap`` and detached. Per token because a whole response's ratio has a variance that grows
exponentially with its length. Not PPO's clip: that takes the gradient away where the ratio has left [1-ε, 1+ε], and
would so tie θ', which is to go where RL alone leads, to θ. What is bounded: no token counts more than ``ratio_cap``
times. What is not: the bias of taking tokens by themselves, and of the cap, grows as θ' leaves θ; ``resync_every``
starts the copy at θ again.

Cost, measured with the embedded model on a CPU by ``benchmarks/joint_step.py`` (a step of 4 problems, 4 rollouts each,
of 48 tokens): 6.2 GiB at the peak where plain RL has 3.5; 2,404 tokens trained (rollouts twice, demonstrations once)
where it has 954; 2.3 times its time.

Logged: ``gain``, the bracket without its KL part, on the same rollouts: mean reward less the mean weighted by whole
responses' ratios that sum to one in each group. It is never larger than the spread of the group's rewards, and 0
where θ' = θ. ``gain_ess`` is the share of rollouts that effectively carry it (1/G: one alone, trust nothing);
``lambda``; ``shadow_capped``, the share of tokens at the cap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dereason.training.adapters import LoRA, attach
from dereason.training.joint.frame import JointRow, Method, demonstration_row, rollout_rows
from dereason.training.policy import Group

if TYPE_CHECKING:
    from torch import Tensor

    from dereason.lm.local.model import ModelSettings

Gradient = Callable[[float, float, bool], tuple[list[Any], list[Any]]]
"""Gradient of ``a · J_SFT + b · J_RL`` for (a, b, whether at θ' in place of θ), in the model's weights and in w."""


def directions(gradient: Gradient, weight: float) -> tuple[list[Any], list[Any], list[Any]]:
    """What θ, θ' and w move along (or against, where the gradient is that of losses).

    Args:
        gradient: see :data:`Gradient`.
        weight: λ, 0..1.
    """
    theta, w = gradient(1 - weight, weight, False)
    shadow, w_at_shadow = gradient(0.0, 1.0, True)
    return theta, shadow, [here - weight * there for here, there in zip(w, w_at_shadow, strict=True)]


def shadow_loss(log_ratio_N: Tensor, advantage_N: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
    """Policy-gradient loss (N,) at θ' on rollouts of (θ, w), and the weight (N,) min(ρ, cap) in it."""
    import torch

    weight = torch.exp(log_ratio_N.detach()).clamp(max=cap)
    return -weight * advantage_N * torch.exp(log_ratio_N - log_ratio_N.detach()), weight


def cooperative_gain(log_ratios: Sequence[Sequence[float]], rewards: Sequence[Sequence[float]]) -> tuple[float, float]:
    """J_RL(θ, w) - J_RL(θ', w) in rewards, summed over groups, and the sum of their effective shares of rollouts.

    Args:
        log_ratios: log π_(θ',w) - log π_(θ,w) of each whole rollout, by group.
        rewards: likewise.
    """
    import torch

    gain = share = 0.0
    for of_group, earned in zip(log_ratios, rewards, strict=True):
        weights = torch.softmax(torch.tensor(of_group, dtype=torch.float64), 0)
        values = torch.tensor(earned, dtype=torch.float64)
        gain += float(values.mean() - (weights * values).sum())
        share += float(1 / (weights**2).sum()) / len(earned)
    return gain, share


class Bridge(Method):
    """Full weights by SFT and RL, a LoRA by what both gain over RL alone. One process, rollouts by our engine."""

    paper: ClassVar[str] = "2509.06948"
    rule: ClassVar[str] = "bilevel: weights by (1 - lambda) SFT + lambda RL, a LoRA by SFT and the gain over RL alone"

    name: Literal["bridge"] = "bridge"
    """Names this method."""
    start: float = Field(default=0.5, ge=0, le=1)
    """Lambda at the first step; the paper has it fixed between 0.3 and 0.7, or growing from 0 to 1 (0.5 is ours)."""
    end: float = Field(default=0.5, ge=0, le=1)
    """Lambda at the end of the phase; between the two it goes linearly (ours). Equal to `start`: it is fixed."""
    lora_learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of the LoRA (ours); the weights' and the copy's is the phase's `optimiser.learning_rate`."""
    rank: int = Field(default=32, gt=0)
    """Rank of the LoRA (ours)."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale of the LoRA: it is multiplied by alpha / rank (ours)."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which layers the LoRA is on: every linear layer but the output, or the layers of these names (ours)."""
    ratio_cap: float = Field(default=2.0, ge=1)
    """Cap of a token's importance ratio in the copy's gradient (ours)."""
    resync_every: int = Field(default=0, ge=0)
    """Optimiser steps after which the copy starts again at the weights, optimiser state included (ours); 0: never."""

    def weight(self, progress: float) -> float:
        """Lambda where the phase is so far (0..1)."""
        return self.start + (self.end - self.start) * progress

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return [*rollout_rows(group, advantages), demonstration_row(demonstration)]

    def wrap(self, student: Any, model: ModelSettings, seed: int) -> Any:
        """The student with a LoRA on it; both are trained."""
        lora = LoRA(rank=self.rank, alpha=self.alpha, target_modules=self.target_modules)
        return attach(student, lora, model, seed).requires_grad_(True)

    def trainer_class(self) -> Any:
        """See :class:`~dereason.training.joint.frame.Method`."""
        from dereason.training.joint.bridge_trainer import make_trainer_class

        return make_trainer_class()
