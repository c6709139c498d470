r"""BREAD (arXiv 2506.17211): where all rollouts are wrong, others are drawn that continue the demonstration::

    all rollouts wrong:  drawn again behind the first `grow` share of the demonstration, then behind twice as much,
                         ..., `draws` times at most, until one is right; that group takes the first one's place
    otherwise:           the group as it is
    loss:                the RL loss on what the rollouts drew; the prefix is context, it has no loss

So a problem that the policy never solves still gives a group with a success, and what is shown is as short as does it.
A group that has no success behind the longest prefix stays as it was first drawn. How the paper looks for the length is
not known to us for certain; growing it in equal steps of tokens is ours. Every draw counts in the generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from dereason.training.joint.frame import JointRow, Method, rollout_rows, successes
from dereason.training.policy import Group


class BREAD(Method):
    """All-wrong groups are drawn again behind an expert prefix that grows until there is a success."""

    paper: ClassVar[str] = "2506.17211"
    rule: ClassVar[str] = "all-wrong groups are drawn again behind a short expert prefix, longer until one is right"
    prefixes: ClassVar[bool] = True

    name: Literal["bread"] = "bread"
    """Names this method."""
    grow: float = Field(default=0.2, gt=0, lt=1)
    """Share of the demonstration that each draw is given more than the one before (ours)."""
    draws: int = Field(default=4, gt=0)
    """Draws behind a prefix at most (ours)."""

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.grow * self.draws >= 1:
            raise ValueError(
                f"bread.grow {self.grow} times bread.draws {self.draws} is the whole demonstration or more: the policy "
                "would have nothing left to do"
            )
        return self

    def retries(self, group: Group, length: int) -> list[int]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        if successes(group) or all(c is None for c in group.correct):
            return []
        lengths = (max(1, round(self.grow * draw * length)) for draw in range(1, self.draws + 1))
        return [given for given in dict.fromkeys(lengths) if given < length]

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """See :class:`~dereason.training.joint.frame.Method`."""
        return rollout_rows(group, advantages)
