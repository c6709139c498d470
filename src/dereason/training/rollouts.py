"""What happens to the rollouts of an RL phase: judged once, rewarded, kept as samples, counted in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dereason.problems.schema import SAMPLE, Verdict, frame, write_table
from dereason.training.drift import drift_shares
from dereason.training.rewards.rules import Combined, Log, completion_text
from dereason.verify.several import several_answers
from dereason.verify.span import MARKS, Mark
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import JUDGED, Verifier, item_of

FLAT = 1e-3
"""Rewards of a group that lie closer together than this are one reward, where rewards decide what a mixed group is.
Probabilities are never quite equal; the number is ours."""


def rollout_table(work: Path) -> pl.DataFrame:
    """All rollouts of a phase as a SAMPLE table, in step order."""
    files = sorted((work / "rollouts").glob("step-*.parquet"))
    return pl.concat([pl.read_parquet(f, columns=list(SAMPLE)) for f in files]) if files else frame("sample", [])


def judged_frame(samples: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """SAMPLE table of a phase's own responses, with one column more: ``right``.

    It says whether the phase took the response for right: by the rewarded answer, where ``verdict`` is of any answer
    and ``strict`` of one at any mark. Null where that is undecided.
    """
    right = pl.Series("right", [sample["right"] for sample in samples], dtype=pl.Boolean)
    return frame("sample", list(samples)).with_columns(right)


class Rollouts:
    """The one reward function of our trainer: judges each completion once, keeps it as a sample, logs shares.

    It is called with the token ids of the prompts (``prompt_ids``) and of what was sampled (``completion_ids``), also
    where the method trains on something else (VeriFree). A completion may begin with tokens that were ``given`` to it:
    it is judged as a whole, kept with the purpose "guided", and says nothing of how often the problem is solved. After
    a call ``correct`` says of each completion whether it is right under the marks
    (:class:`~dereason.training.rewards.rules.Combined`), and ``mixed`` of each group whether its rollouts differ: in
    that, or where there is no verifier in reward. The samples keep the lenient verdict and ``strict``. :meth:`finish`
    ends a generation, which may take several calls.

    Args:
        folder: where the samples go.
        identity: name of the phase, the samples' ``model``.
        stops: token ids that end a response.
        reward: makes rewards of judged completions.
        verifier: judges.
        marks: an answer is paid only at one of these; None: any answer is.
        group_size: rollouts of a problem, side by side in each call.
        by_spread: whether a group counts as mixed by its rewards (verifier-free ones), not by what is right.
        flat: by how much they have to differ then; below 0: a group with any reward is mixed.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        stops: tuple[int, ...],
        reward: Combined,
        verifier: Verifier,
        *,
        marks: Collection[Mark] | None = MARKS,
        group_size: int,
        by_spread: bool,
        flat: float = FLAT,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.identity = identity
        self.stops = stops
        self.reward = reward
        self.verifier = verifier
        self.marks = marks
        self.group_size = group_size
        self.by_spread = by_spread
        self.flat = flat
        self.correct: list[bool | None] = []
        self.mixed: list[bool] = []
        self._samples: list[dict[str, object]] = []
        self._mixed: list[bool] = []
        self._drawn: Counter[str] = Counter()
        self.__name__ = "reward"

    def __call__(
        self,
        prompts: Any,
        completions: Any,
        completion_ids: Any,
        *,
        prompt_ids: Any,
        given: Sequence[int] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards of some whole groups, or of none; see TRL's custom reward functions for the arguments.

        ``given`` counts the leading tokens of each completion that were given to it; None: no token of any.
        """
        texts = [completion_text(completion) for completion in completions]
        limits = [row[-1] not in self.stops for row in completion_ids]
        items = [
            item_of(text, limit, {name: columns[name][i] for name in JUDGED if name in columns})
            for i, (text, limit) in enumerate(zip(texts, limits, strict=True))
        ]
        judged = self.verifier.judge_many(items)
        paid = self.verifier.rewarded(items, judged, self.marks)
        rewards = self.reward(
            prompts, completions, completion_ids, **columns, prompt_ids=prompt_ids, judgements=paid, hit_limits=limits
        )
        shares = given or [0] * len(texts)
        lengths = [(len(p) + g, len(c) - g) for p, c, g in zip(prompt_ids, completion_ids, shares, strict=True)]
        self.correct, self.mixed = self.reward.correct, []
        self._keep(columns, texts, lengths, limits, judged, shares, several_answers(self.verifier, items, judged))
        for start in range(0, len(rewards), self.group_size):
            values = (rewards if self.by_spread else self.correct)[start : start + self.group_size]
            known = [float(value) for value in values if value is not None]
            self.mixed.append(bool(known) and max(known) - min(known) > self.flat)
        self._mixed += self.mixed
        return rewards

    def _keep(
        self,
        columns: dict[str, Any],
        texts: list[str],
        lengths: list[tuple[int, int]],
        limits: list[bool],
        judged: Sequence[Judgement],
        given: Sequence[int],
        several: Sequence[bool],
    ) -> None:
        step = columns["trainer_state"].global_step
        for i, problem_id in enumerate(columns["problem_id"]):
            self._samples.append(
                {
                    "problem_id": problem_id,
                    "model": self.identity,
                    "purpose": "guided" if given[i] else "rollout",
                    "index": self._drawn[problem_id],  # a problem may be drawn again
                    "step": step,
                    "response": texts[i],
                    "prompt_tokens": lengths[i][0],
                    "tokens": lengths[i][1],
                    "hit_limit": limits[i],
                    **judged[i].columns(),
                    "right": self.correct[i],
                    "several": several[i],
                }
            )
            self._drawn[problem_id] += 1

    def finish(self, step: int, log: Log) -> dict[str, tuple[int, int]]:
        """End a generation: write the samples of all processes, log the shares of verdicts and what may drift.

        Every process calls this.

        Returns:
            problem -> (rollouts that are right, rollouts of which that is known), of all processes; guided ones do not
            count.
        """
        from accelerate import PartialState
        from accelerate.utils import gather_object

        samples, mixed = gather_object(self._samples), gather_object(self._mixed)
        outcomes: dict[str, tuple[int, int]] = {}
        for sample in samples:
            if sample["purpose"] != "guided":
                found, known = outcomes.get(sample["problem_id"], (0, 0))
                right = sample["right"]
                outcomes[sample["problem_id"]] = (found + (right is True), known + (right is not None))
        # in an order that does not depend on how many processes drew them
        samples.sort(key=lambda s: (s["problem_id"], s["index"]))
        self._samples, self._mixed = [], []
        self._drawn.clear()
        if PartialState().is_main_process:
            write_table(judged_frame(samples), self.folder / f"step-{step:06d}.parquet")
        for verdict in Verdict:
            log(str(verdict), sum(s["verdict"] == verdict for s in samples) / len(samples))
        for name, share in drift_shares(samples).items():
            log(name, share)
        log("completion_length", sum(s["tokens"] for s in samples) / len(samples))
        log("mixed_groups", sum(mixed) / len(mixed))
        return outcomes
