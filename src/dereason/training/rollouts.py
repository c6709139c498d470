"""What happens to the rollouts of an RL phase: judged once, rewarded, kept as samples, counted in the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dereason.problems.schema import Verdict, frame, write_table
from dereason.training.rewards.rules import RewardFunction
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import Item, Verifier

FLAT = 1e-3
"""Rewards of a group that lie closer together than this are one reward, where rewards decide what a mixed group is.
Probabilities are never quite equal; the number is ours."""


def rollout_table(work: Path) -> pl.DataFrame:
    """All rollouts of a phase as a SAMPLE table, in step order."""
    files = sorted((work / "rollouts").glob("step-*.parquet"))
    return pl.concat([pl.read_parquet(f) for f in files]) if files else frame("sample", [])


class Rollouts:
    """The one reward function of our trainer: judges each completion once, keeps it as a sample, logs shares.

    The trainer sets ``prompt_ids`` and ``completion_ids`` before each call: what was sampled, where the method
    trains on something else (VeriFree).

    Args:
        folder: where the samples go.
        identity: name of the phase, the samples' ``model``.
        stops: token ids that end a response.
        reward: makes rewards of judged completions.
        verifier: judges.
        tokenizer: of the model.
        by_spread: whether a group counts as mixed by its rewards (verifier-free ones), not by its verdicts.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        stops: tuple[int, ...],
        reward: RewardFunction,
        verifier: Verifier,
        tokenizer: Any,
        *,
        by_spread: bool,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.identity = identity
        self.stops = stops
        self.reward = reward
        self.verifier = verifier
        self.by_spread = by_spread
        self.tokenizer = tokenizer
        self.prompt_ids: Sequence[Sequence[int]] = []
        self.completion_ids: Sequence[Sequence[int]] = []
        self.__name__ = "reward"

    def __call__(self, prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
        """Rewards of one generation; see TRL's custom reward functions for the arguments."""
        ids = self.completion_ids
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        limits = [row[-1] not in self.stops for row in ids]
        judged = self.verifier.judge_many(
            [
                Item(text, limit, answer, options or None)
                for text, limit, answer, options in zip(
                    texts, limits, columns["answer"], columns["options"], strict=True
                )
            ]
        )
        self._keep(columns, texts, limits, judged)
        shown = [[{"role": "assistant", "content": text}] for text in texts]
        rewards = self.reward(
            prompts, shown, ids, **columns, prompt_ids=self.prompt_ids, judgements=judged, hit_limits=limits
        )
        self._log(columns, judged, rewards)
        return rewards

    def _keep(self, columns: dict[str, Any], texts: list[str], limits: list[bool], judged: Sequence[Judgement]) -> None:
        step = columns["trainer_state"].global_step
        seen: dict[str, int] = {}
        samples: list[dict[str, object]] = []
        for i, problem_id in enumerate(columns["problem_id"]):
            index = seen[problem_id] = seen.get(problem_id, -1) + 1
            samples.append(
                {
                    "problem_id": problem_id,
                    "model": self.identity,
                    "purpose": "rollout",
                    "index": index,
                    "step": step,
                    "response": texts[i],
                    "prompt_tokens": len(self.prompt_ids[i]),
                    "tokens": len(self.completion_ids[i]),
                    "hit_limit": limits[i],
                    **judged[i].columns(),
                }
            )
        write_table(frame("sample", samples), self.folder / f"step-{step:06d}.parquet")

    def _log(self, columns: dict[str, Any], judged: Sequence[Judgement], rewards: Sequence[float | None]) -> None:
        log = columns["log_metric"]
        for verdict in Verdict:
            log(str(verdict), sum(j.verdict is verdict for j in judged) / len(judged))
        log("completion_length", sum(map(len, self.completion_ids)) / len(self.completion_ids))
        groups: dict[str, list[float]] = {}
        for problem_id, j, reward in zip(columns["problem_id"], judged, rewards, strict=True):
            value = reward if self.by_spread else None if j.verdict is Verdict.ERROR else j.verdict is Verdict.CORRECT
            if value is not None:
                groups.setdefault(problem_id, []).append(float(value))
        mixed = sum(max(g) - min(g) > FLAT for g in groups.values())
        log("mixed_groups", mixed / max(1, len(groups)))
