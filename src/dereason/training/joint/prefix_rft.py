r"""Prefix-RFT (arXiv 2507.01679): one rollout of each group goes on from the beginning of the demonstration::

    share that it is given:  U(low, high), where low falls from `high` to `floor` by a cosine
    loss:                    the RL loss on what all rollouts drew and, with the same advantage, on the `top` share of
                             the given tokens that have the highest entropy

The guided rollout is a member of its group: its reward is in the mean and the standard deviation. Where it does better
than the others its beginning is learned, at the tokens where the policy was undecided; where it does worse that is
unlearned. Given tokens have a ratio and a clip as drawn ones have, and count in the same normaliser (ours); KL is about
drawn tokens alone. The paper's RL loss is Dr. GRPO, as we know it at second hand: ``algorithm: dr_grpo``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dereason.training.joint.frame import JointRow, Method, View, rollout_rows
from dereason.training.policy import Group

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


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
    """Share of the given tokens that are trained on; the paper's is 0.2. Rounded up in each rollout (ours)."""

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

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        rows = rollout_rows(group, advantages)
        return [replace(row, taken=math.ceil(self.top * row.given - 1e-9)) for row in rows]  # 0.2 * 35 is above 7

    def takes(self, view: View) -> Tensor:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return highest(view.entropy, view.given, view.row, view.taken)


def highest(values_N: Tensor, among_N: Tensor, row_N: Tensor, count_R: Tensor) -> Tensor:
    """The tokens (N,) bool that have the highest values of their row, so many of each row.

    Args:
        values_N: what is compared.
        among_N: bool, the tokens that may be chosen.
        row_N: each token's row, 0..R-1.
        count_R: how many of each row, at most as many as may be chosen.
    """
    import torch

    chosen = torch.zeros_like(among_N)
    for row, count in enumerate(count_R.tolist()):
        places = (among_N & (row_N == row)).nonzero()[:, 0]
        chosen[places[values_N[places].topk(count).indices]] = True
    return chosen
