"""A phase's rewards in the shape that verl asks for; what ``dereason export --to verl`` writes calls this.

verl calls one function a response, ``compute_score(data_source, solution_str, ground_truth, extra_info)``, with text
alone. How long the response was, and whether the model ended it, comes from the reward manager in the exported
``manager.py``, as ``extra_info["response_tokens"]`` and ``extra_info["ended"]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from dereason.errors import DereasonError
from dereason.problems.schema import Verdict
from dereason.settings import Settings
from dereason.training.rewards.rules import Combined
from dereason.training.rewards.settings import Correctness, Format, Overlong, Rewards, build
from dereason.verify.verifier import Verifier, VerifierSettings, item_of


class VerlReward(Settings):
    """The content of an exported ``reward.json``."""

    rewards: Rewards
    """What is rewarded, and which answers count."""
    max_new_tokens: int = Field(gt=0)
    """Length limit of a response in tokens."""
    stop_ids: list[int]
    """Token ids that end a response; the reward manager reads them."""
    verifier: VerifierSettings = VerifierSettings(workers=1)
    """Limits of the verifier; each of verl's reward workers has one."""


class Scorer:
    """Scores one response at a time, with the verdict of our verifier.

    Args:
        path: a ``reward.json``, see :class:`VerlReward`.

    Raises:
        DereasonError: a reward that needs a model or a tokenizer (see :func:`check_rewards`).
    """

    def __init__(self, path: Path) -> None:
        self.settings = VerlReward.model_validate_json(path.read_text(encoding="utf-8"))
        check_rewards(self.settings.rewards)
        limit = self.settings.max_new_tokens
        functions = build(self.settings.rewards, tokenizer=None, max_new_tokens=limit, stop_ids=())
        self.reward = Combined(functions, [reward.weight for reward in self.settings.rewards.of])
        self.verifier = Verifier(self.settings.verifier)

    def __call__(self, response: str, reference: str, extra: Mapping[str, Any] | None) -> dict[str, float]:
        """Score a response.

        Args:
            response: its text, without special tokens.
            reference: the problem's answer.
            extra: ``options`` (choices of a multiple-choice problem) and what the reward manager counted.

        Returns:
            ``score``; ``acc`` (1 where the verdict is ``correct``), ``strict`` (1 where the answer is also marked); and
            1 or 0 for ``unparsable``, ``truncated`` and ``error``. The score is that of the marked answer, see
            :class:`~dereason.training.rewards.settings.Rewards`. verl knows no response without a score: an ``error``,
            which our own trainers leave out of the batch, has the score 0.
        """
        extra = extra or {}
        options = extra.get("options")
        options = None if options is None or len(options) == 0 else list(options)
        tokens = extra.get("response_tokens")
        cut = tokens is not None and int(tokens) >= self.settings.max_new_tokens and not extra.get("ended", False)
        problem = {"answer": reference, "options": options, "source": extra.get("source")}
        problem["metadata"] = extra.get("metadata")
        item = item_of(response, cut, problem)
        judged = self.verifier.judge_many([item])
        judgement = judged[0]
        value = self.reward(
            prompts=[extra.get("question") or ""],
            completions=[response],
            completion_ids=[range(int(tokens or 0))],
            answer=[reference],
            options=[options],
            judgements=self.verifier.rewarded([item], judged, self.settings.rewards.counted),
        )[0]
        flags = (Verdict.UNPARSABLE, Verdict.TRUNCATED, Verdict.ERROR)
        return {
            "score": 0.0 if value is None else value,
            "acc": float(judgement.verdict is Verdict.CORRECT),
            "strict": float(judgement.strict),
            **{str(verdict): float(judgement.verdict is verdict) for verdict in flags},
        }


def check_rewards(rewards: Rewards) -> None:
    """Refuse rewards that verl's reward workers, which have neither the policy nor its tokenizer, cannot compute.

    Raises:
        DereasonError: one is there.
    """
    for reward in rewards.of:
        if not isinstance(reward, Correctness | Format | Overlong):
            raise DereasonError(
                f"the reward {reward.name!r} needs a model or a tokenizer, which verl's reward workers do not have",
                "export a phase whose rewards are correctness, format and overlong, or train it here",
            )
