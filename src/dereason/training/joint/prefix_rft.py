r"""Prefix-RFT (arXiv 2507.01679): one rollout of each group goes on from the beginning of the demonstration::

    share that it is given:  U(low, high), where low falls from `high` to `floor` by a cosine
    loss:                    the RL loss on what all rollouts drew and, with the same advantage, on the `top` share of
                             the given tokens of the *step* that have the highest entropy

The guided rollout is a member of its group: its reward is in the mean and the standard deviation. Where it does better
than the others its beginning is learned, at the tokens where the policy was undecided; where it does worse that is
unlearned. Given tokens have a ratio and a clip as drawn ones have, and the taken ones count in the same normaliser
(ours); KL is about drawn tokens alone. Entropies are the policy's that draws, over all processes (the released code,
ZeroYuHuang/prefix_rft, ``recipe/prefix_rft/dp_actor.py``, ranks within each device's batch, anew at each update).

``baseline: rollouts`` leaves the guided rollout out of its group's baseline, as the released estimators
``dr_grpo_prefix`` and ``dr_grpo_prefix_v2`` do (``recipe/prefix_rft/core_algos.py``): its advantage is its reward less
the others' mean. (They give that to the given tokens; what the guided rollout drew has its bare reward in the first and
nothing in the second. Which of them the paper ran its code does not say.) The paper's RL loss is Dr. GRPO:
``algorithm: dr_grpo``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dereason.training.joint.frame import JointRow, Method, rollout_rows
from dereason.training.policy import Group

if TYPE_CHECKING:
    import numpy as np


class PrefixRFT(Method):
    """One rollout a group continues the beginning of the demonstration."""

    paper: ClassVar[str] = "2507.01679"
    rule: ClassVar[str] = "one rollout continues an expert prefix; its tokens of highest entropy are trained on too"
    prefixes: ClassVar[bool] = True

    name: Literal["prefix_rft"] = "prefix_rft"
    """Names this method."""
    high: float = Field(default=0.95, gt=0, le=1)
    """Largest share of the demonstration that is given; the paper's is 0.95."""
    floor: float = Field(default=0.05, ge=0, le=1)
    """The smallest share at the end of the phase; at its beginning it is `high`. The paper's is 0.05."""
    top: float = Field(default=0.2, ge=0, le=1)
    """Share of a step's given tokens that are trained on; the paper's is 0.2."""
    baseline: Literal["group", "rollouts"] = "group"
    """Whether the guided rollout's reward is in its group's baseline; `rollouts` needs `scale_rewards: none`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.floor > self.high:
            raise ValueError(f"prefix_rft.floor {self.floor} is above prefix_rft.high {self.high}")
        return self

    def low(self, progress: float) -> float:
        """The smallest share that is given, where the phase is so far (0..1)."""
        return self.floor + (self.high - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def given(self, length: int, size: int, progress: float, stream: np.random.Generator) -> list[int]:
        """See :class:`~dereason.training.joint.frame.Method`; the last rollout is the guided one."""
        low = self.low(progress)
        return [0] * (size - 1) + [int((low + (self.high - low) * stream.random()) * length)]

    @property
    def taken_share(self) -> float:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.top

    @property
    def guided_outside(self) -> bool:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return self.baseline == "rollouts"

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages)
