r"""The frame of every joint method: which rows enter an optimiser step, and the terms of its loss.

For each problem a method gets the group of rollouts and maybe a demonstration, and says which rows enter and which
*terms* of the loss each row's tokens belong to. For a micro-batch it then gives each term's loss per token, as a
function of what stands in :class:`View`. The reducer (:func:`reduce`) sums

    Σ_k  w_k Σ_t  loss_kt / n_k ,

each term k over its own tokens and with its own normaliser n_k, counted over the whole optimiser step: all
micro-batches, all processes. So the split into micro-batches changes nothing. Two readings of w_k:

    per term:     w_k = 1. One demonstration weighs as much as all rollouts of the step, or as a hundred demonstrations.
    per problem:  w_k = problems of term k / problems of the step, where a problem is in one term or the other; the
                  normaliser of demonstrations is then the mean over problems of the mean over their tokens. Every
                  problem weighs the same, whichever term it is in.

A problem without a demonstration is plain GRPO in every method: :meth:`Method.rows` is not asked.

Shape legend: N response tokens of a micro-batch, R its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dereason.settings import Settings
from dereason.training.losses import BatchCounts, LossName, token_weights
from dereason.training.policy import Group, Update

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from dereason.lm.local.model import ModelSettings

PAIRS = "pairs"
"""The term whose loss is over pairs of rollouts (:meth:`Method.pairs`), and whose normaliser is their number."""
POLICY, SFT = "policy", "sft"
"""The two terms that most methods have: the phase's own RL loss on rollouts, and likelihood of demonstrations."""


@dataclass(frozen=True)
class JointRow:
    """A row that enters the step.

    Attributes:
        response: token ids.
        terms: the terms of the loss that its tokens belong to; none: the row is left out.
        advantage: of its tokens.
        rollout: number of the rollout in its group; None for a demonstration.
        given: how many of its leading tokens were given to a rollout. They carry no loss but where the method takes
            some (:attr:`Method.taken_share`).
    """

    response: Sequence[int]
    terms: tuple[str, ...]
    advantage: float = 0.0
    rollout: int | None = None
    given: int = 0


@dataclass
class JointUpdate(Update):
    """This process's rows of one optimiser step, with the terms of each.

    Attributes:
        places: of each row's problem in the step.
        terms: names of the terms that each row belongs to.
        demonstration: whether each row is one.
        supervised: whether each row's problem has one.
        correct: whether each row is a rollout that is right.
        counts_of: loss tokens and rows of each term, over all processes.
        shares: w_k of each term, where it is not 1.
        given: leading tokens of each row that were given to it (those of a row that takes none are in its prompt).
        taken: places of those that carry loss.
        contexts: numbers of the contexts that rows share, by the problem's place and what stands behind its prompt.
        present: log-probabilities of the rows that are run by the policy before this step, for a loss over pairs.
        pair_weights: coefficient of each row's log-probability in the loss over pairs.
    """

    places: list[int] = field(default_factory=list)
    terms: list[tuple[str, ...]] = field(default_factory=list)
    demonstration: list[bool] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    counts_of: dict[str, BatchCounts] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    given: list[int] = field(default_factory=list)
    taken: list[list[int]] = field(default_factory=list)
    contexts: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)
    present: dict[int, Any] = field(default_factory=dict)
    pair_weights: list[float] = field(default_factory=list)

    def tokens(self) -> list[int]:
        """How many tokens of each row carry loss, where the row does."""
        rows = zip(self.rows, self.given, self.taken, strict=True)
        return [len(row.response) - given + len(taken) for row, given, taken in rows]

    def totals_of(self) -> dict[str, tuple[float, float]]:
        """This process's share of ``counts_of``: loss tokens and rows by term."""
        found: dict[str, tuple[float, float]] = {}
        for count, names, keep in zip(self.tokens(), self.terms, self.kept, strict=True):
            for name in names if keep else ():
                tokens, rows = found.get(name, (0.0, 0.0))
                found[name] = (tokens + count, rows + 1)
        return found

    def problems_of(self) -> dict[int, set[str]]:
        """The terms of each problem of this process, by its place in the step; one without a kept row is not there."""
        found: dict[int, set[str]] = {}
        for place, names, keep in zip(self.places, self.terms, self.kept, strict=True):
            if keep:
                found.setdefault(place, set()).update(names)
        return found


@dataclass(frozen=True)
class View:
    """What a method's loss may be a function of.

    Attributes:
        logp: (N,) log-probabilities under the policy, differentiable.
        policy_loss: (N,) the phase's own loss per token (clipped surrogate, with its KL term), differentiable.
        entropy: (N,) in nats, without gradient unless the phase has an entropy bonus.
        advantage: (N,) of each token's row.
        demonstration: (N,) bool, whether the token is a demonstration's.
        supervised: (N,) bool, whether its problem has a demonstration; where it has none, the loss is plain GRPO's.
        row: (N,) each token's row in the micro-batch, 0..R-1.
        lengths: (R,) tokens of each row.
        progress: how far the phase is, 0 at its first step, 1 at its last.
        given: (N,) bool, whether the token was given to its rollout, not drawn.
        pair_weight: (N,) coefficient of each token's row in the loss over pairs; 0 outside it.
    """

    logp: Tensor
    policy_loss: Tensor
    entropy: Tensor
    advantage: Tensor
    demonstration: Tensor
    supervised: Tensor
    row: Tensor
    lengths: Tensor
    progress: float
    given: Tensor
    pair_weight: Tensor

    def row_mean(self, values_N: Tensor) -> Tensor:
        """The mean of values (N,) over each token's row, for each token (N,)."""
        sums = values_N.new_zeros(len(self.lengths)).index_add(0, self.row, values_N)
        return (sums / self.lengths)[self.row]


class Queue(Settings):
    """SFT updates besides those of RL, on demonstrations of problems that RL could not solve."""

    batch: int = Field(default=128, gt=0)
    """Demonstrations of one update; when as many wait, it follows the batch's RL updates, and the others wait on."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Learning rate, constant; the updates have an AdamW, with moments, of their own."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Their gradients are clipped to this norm."""


class Method(Settings):
    """A joint method: its settings, and the two functions that make it. Subclasses are pure: state is the trainer's.

    Attributes:
        paper: arXiv number; empty for a baseline.
        rule: what it does, in a few words.
        prefixes: whether rollouts may continue the beginning of a demonstration.
        joins: whether the demonstration is a member of its group, its reward in the baseline of every row.
    """

    paper: ClassVar[str] = ""
    rule: ClassVar[str] = ""
    prefixes: ClassVar[bool] = False
    joins: ClassVar[bool] = False

    @property
    def needs_reference(self) -> bool:
        """Whether the loss has the phase's starting model in it, whatever `kl` is."""
        return False

    @property
    def supervised(self) -> Queue | None:
        """SFT updates of their own, besides those of RL, on demonstrations that wait for them (:meth:`buffers`)."""
        return None

    @property
    def per_problem(self) -> bool:
        """Whether every problem weighs the same in the step, whichever term it is in; see the module's docstring."""
        return False

    def given(self, length: int, size: int, progress: float, stream: np.random.Generator) -> list[int]:
        """How many leading tokens of the demonstration each of a problem's rollouts is given.

        Args:
            length: tokens of the demonstration before its end token.
            size: rollouts of the group.
            progress: how far the phase is, 0 at its first step, 1 at its last.
            stream: made of seed, step and problem, so that every process and a resumed phase draw the same.
        """
        return [0] * size

    def search(self, tried: Mapping[int, Group], length: int) -> int | None:
        """How many leading tokens of the demonstration a further group of a problem's rollouts is given.

        Args:
            tried: the groups so far by what they were given, in the order of drawing; the first is what :meth:`given`
                says.
            length: tokens of the demonstration before its end token.

        Returns:
            a number that was not tried: the same prefix would be continued in the same way; None: no further group.
        """
        return None

    def settle(self, tried: Mapping[int, Group]) -> Group:
        """The group that is trained on, of those that were drawn."""
        return next(iter(tried.values()))

    @property
    def taken_share(self) -> float:
        """Share of the given tokens of a step, those of highest entropy, that carry loss."""
        return 0.0

    @property
    def guided_outside(self) -> bool:
        """Whether a rollout that was given something is no part of its group's baseline."""
        return False

    def rows(self, group: Group, advantages: Sequence[float], demonstration: Sequence[int]) -> list[JointRow]:
        """The rows of a problem that has a demonstration.

        Args:
            group: its rollouts, their rewards and whether they are right.
            advantages: of the rollouts, by the phase's own rule; where the method ``joins``, the demonstration's behind
                them.
            demonstration: token ids of the reply.
        """
        raise NotImplementedError

    def terms(self, view: View) -> dict[str, Tensor]:
        """The loss per token (N,) of each term, its weight in it; tokens of rows outside a term are not looked at."""
        return {POLICY: view.policy_loss, SFT: -view.logp}

    def pairs(self, log_ratios: Sequence[float], right: Sequence[bool]) -> tuple[list[float], float, int]:
        """A loss over pairs of one group's rollouts, its gradient being linear in theirs.

        Args:
            log_ratios: log π/π_ref of each whole rollout, by the policy before this step; log π where the method has no
                reference.
            right: whether each is.

        Returns:
            derivative of the loss in each rollout's log π; the loss; how many pairs it is the sum over.
        """
        raise NotImplementedError

    def wrap(self, student: Any, model: ModelSettings, seed: int) -> Any:
        """The model that is trained, of the one that the phase begins with."""
        return student

    def trainer_class(self) -> Any:
        """The trainer, ours with demonstrations or a subclass of it."""
        from dereason.training.joint.trainer import make_trainer_class

        return make_trainer_class()

    def supervises(self, step: int) -> bool:
        """Whether an optimiser step, numbered from 0, is SFT on its problems' demonstrations, without rollouts."""
        return False

    def buffers(self, group: Group) -> bool:
        """Whether the demonstration of this group's problem is to wait for an update of :attr:`supervised`."""
        return False


def rollout_rows(group: Group, advantages: Sequence[float], term: str = POLICY) -> list[JointRow]:
    """All rollouts of a group, what they drew of them in one term."""
    given = group.given or [0] * len(group.responses)
    return [
        JointRow(response, (term,), advantages[number], number, given[number])
        for number, response in enumerate(group.responses)
    ]


def demonstration_row(demonstration: Sequence[int], term: str = SFT, advantage: float = 0.0) -> JointRow:
    """A demonstration, in one term."""
    return JointRow(demonstration, (term,), advantage)


def successes(group: Group) -> int:
    """How many rollouts of a group are right, by their verdicts (undecided ones are none)."""
    return sum(map(bool, group.correct))


def reduce(
    losses: Mapping[str, Tensor],
    membership: Mapping[str, Tensor],
    counts: Mapping[str, BatchCounts],
    length_N: Tensor,
    *,
    shares: Mapping[str, float],
    loss: LossName,
    max_new_tokens: int,
) -> Any:
    """One micro-batch's part of the step's loss: every term over its own tokens, by its own normaliser.

    The term ``policy`` is normalised as the phase's ``loss`` says; every other one is a mean over its tokens, or,
    where problems weigh the same, over rows of the mean over their tokens.

    Args:
        losses: (N,) per token, by term.
        membership: (N,) bool, the tokens of each term.
        counts: of each term over the whole step; a term that is not there has no token anywhere.
        length_N: tokens of each token's row that carry loss.
        shares: weight of each term; empty: 1.
        loss: how the policy term is normalised.
        max_new_tokens: for ``dr_grpo``.

    Returns:
        the loss, a scalar.
    """
    import torch

    total = next(iter(losses.values())).sum() * 0.0
    for name, values in losses.items():
        if name in counts:
            kind: LossName = loss if name == POLICY else "grpo" if name == SFT and shares else "dapo"
            weights = token_weights(length_N, kind, counts[name], max_new_tokens=max_new_tokens)
            # where, not a product: what stands outside a term may be infinite
            total = total + (torch.where(membership[name], values, 0.0) * weights).sum() * shares.get(name, 1.0)
    return total
