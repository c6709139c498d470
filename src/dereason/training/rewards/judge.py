"""The reward from the generative verifier: a language model compares the answers that rules cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from dereason.problems.schema import Verdict
from dereason.training.rewards.grader import GenerativeVerifier, Query
from dereason.training.rewards.rules import JudgedReward, Judging, Log, Rollout
from dereason.verify.kinds import Kind
from dereason.verify.reading import kind_of
from dereason.verify.verdict import Judgement

When = Literal["always", "no_rule", "wrong"]


class JudgeReward(JudgedReward):
    """1 where the judging model says Yes, 0 where it says No, None where it fails or is undecided.

    A response without an answer gets 0 and is not shown to the model. Where the model is not asked (:func:`asks`), the
    verdict of the rules pays: 1 for ``correct``, 0 for ``wrong``.

    Args:
        judging: see :class:`~dereason.training.rewards.rules.Judging`.
        verifier: the judging model.
        when: see :func:`asks`.
    """

    decides: ClassVar[bool] = True

    def __init__(self, judging: Judging, verifier: GenerativeVerifier, when: When) -> None:
        super().__init__("judge", judging)
        self.verifier = verifier
        self.when = when

    def score(self, rollouts: Sequence[Rollout], log: Log) -> list[float | None]:
        """See :class:`~dereason.training.rewards.rules.JudgedReward`.

        Logs ``judge/asked`` and ``judge/undecided``, shares of the completions that have a verdict.
        """
        rewards: list[float | None] = [float(r.judgement.verdict is Verdict.CORRECT) for r in rollouts]
        asked = [i for i, r in enumerate(rollouts) if asks(self.when, r.judgement, r.reference, r.options)]
        queries = [
            Query(rollouts[i].question, rollouts[i].reference, rollouts[i].judgement.extracted or "") for i in asked
        ]
        paid = {Verdict.CORRECT: 1.0, Verdict.WRONG: 0.0}
        for i, decision in zip(asked, self.verifier.judge(queries), strict=True):
            rewards[i] = paid.get(decision.verdict)
        if rollouts:
            log("judge/asked", len(asked) / len(rollouts))
            log("judge/undecided", sum(r is None for r in rewards) / len(rollouts))
        return rewards


def asks(when: When, judgement: Judgement, reference: str, options: Sequence[str] | None) -> bool:
    """Whether the model is asked about a response.

    Never without an extracted answer. ``always``: about every answer. ``wrong``: about those that the rules call
    wrong. ``no_rule``: about those of them whose reference is free text, the one kind that no rule compares by meaning.
    """
    if judgement.verdict not in (Verdict.CORRECT, Verdict.WRONG) or not judgement.extracted:
        return False
    if when == "always":
        return True
    return judgement.verdict is Verdict.WRONG and (when == "wrong" or kind_of(reference, options) is Kind.TEXT)
