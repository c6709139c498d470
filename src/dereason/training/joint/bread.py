r"""BREAD (arXiv 2506.17211): where all rollouts are wrong, others are drawn that continue the demonstration::

    all rollouts wrong:  the demonstration is cut into `episodes` parts; a binary search over its beginnings finds the
                         shortest behind which a group of rollouts succeeds at a rate within [low, high]
    otherwise:           the group as it is
    loss:                the RL loss on what the rollouts drew; the prefix is context, it has no loss

A rate below the range asks for a longer beginning, one within or above it for a shorter one; with ten parts that is
four groups at most. So what is shown is as short as gives signal: a group that is all right teaches no more than one
that is all wrong. Where no group came within the range the first one stays, and teaches nothing. Every draw counts in
the generated tokens. We found no code of its authors: search and parts are the paper's, the range and the cut by
tokens, not by sentences, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from dereason.training.joint.frame import JointRow, Method, rollout_rows
from dereason.training.policy import Group


class BREAD(Method):
    """All-wrong groups are drawn again behind the shortest expert prefix behind which some rollouts are right."""

    paper: ClassVar[str] = "2506.17211"
    rule: ClassVar[str] = "all-wrong groups are drawn again behind the shortest expert prefix that gives signal"
    prefixes: ClassVar[bool] = True

    name: Literal["bread"] = "bread"
    """Names this method."""
    episodes: int = Field(default=10, gt=1)
    """Parts that the demonstration is cut into; the paper has about ten."""
    low: float = Field(default=0.2, gt=0, le=1)
    """Lowest success rate of a group that will do (ours)."""
    high: float = Field(default=0.8, gt=0, lt=1)
    """Highest success rate of a group that will do (ours); below 1, where all are right."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"bread.low {self.low} is above bread.high {self.high}")
        return self

    @property
    def searches(self) -> int:
        """Groups that a search draws at most, besides the first."""
        return (self.episodes - 1).bit_length()

    def _rate(self, group: Group) -> float:
        """The success rate of the rollouts that have a verdict; below every range where none has."""
        known = [correct for correct in group.correct if correct is not None]
        return sum(known) / len(known) if known else -1.0

    def search(self, tried: Mapping[int, Group], length: int) -> int | None:
        """See :class:`~dereason.training.joint.frame.Method`."""
        first, *later = tried.items()
        if self._rate(first[1]) != 0:
            return None
        shorter, longer = 0, length  # too short is known of the one; the other is the whole, or was long enough
        for given, group in later:
            if self._rate(group) < self.low:
                shorter = max(shorter, given)
            else:
                longer = min(longer, given)
        cuts = sorted({round(k * length / self.episodes) for k in range(1, self.episodes)})
        between = [cut for cut in cuts if shorter < cut < longer]
        return between[(len(between) - 1) // 2] if between else None

    def settle(self, tried: Mapping[int, Group]) -> Group:
        """See :class:`~dereason.training.joint.frame.Method`."""
        first, *later = tried.items()
        fit = [(given, group) for given, group in later if self.low <= self._rate(group) <= self.high]
        return min(fit, key=lambda pair: pair[0], default=first)[1]

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages)
