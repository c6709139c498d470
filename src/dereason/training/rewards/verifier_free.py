r"""Rewards without an external verifier: CER, RLPR, VeriFree's, and CER where there is no rule.

All ask how probable the reference answer a* is after the rollout's own reasoning s (the text through its last
``\boxed{``), by the current policy at the rollout temperature. The pure functions come first; the classes below
them are reward functions that are bound to a trainer, because they need its model and, for CER and RLPR, the
whole group, which several processes may share.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dereason.errors import DereasonError
from dereason.training.rewards.rules import Log, correctness
from dereason.training.rewards.scoring import BOX, answer_logps, encode, encode_answer, split_at_box
from dereason.verify.kinds import Kind
from dereason.verify.reading import kind_of


def cer_rewards(logp_PU: np.ndarray, sampled: Sequence[int | None], reference: int) -> np.ndarray:
    r"""Conditional expectation rewards of one group (arXiv 2603.10624).

    ``r_i = Σ_j π(a_i|s_j) π(a*|s_j) / Σ_j π(a_i|s_j)``: the probability of the reference, averaged over the
    group's reasonings, each weighted by how probable it makes the answer a_i. Full-sequence probabilities, in log
    space, own reasoning included.

    Args:
        logp_PU: log π(a_u|s_j), summed over tokens: P reasonings, U unique answers.
        sampled: for each rollout of the group the column of its answer, None where it has no box.
        reference: the column of a*.

    Returns:
        float64, one per rollout of the group, in [0, 1]; 0 for a rollout without a box.
    """
    logp = np.asarray(logp_PU, dtype=np.float64)
    rewards = np.zeros(len(sampled))
    if logp.size == 0:
        return rewards
    joint = np.logaddexp.reduce(logp + logp[:, [reference]], axis=0)
    alone = np.logaddexp.reduce(logp, axis=0)
    # An answer that no reasoning makes possible in floating point has no conditional expectation: 0.
    value = np.where(np.isfinite(alone), np.exp(joint - np.where(np.isfinite(alone), alone, 0.0)), 0.0)
    for i, column in enumerate(sampled):
        if column is not None:
            rewards[i] = min(1.0, float(value[column]))
    return rewards


def rlpr_reward(with_reasoning: np.ndarray, without: np.ndarray) -> float:
    """RLPR's reward (arXiv 2506.18254): mean token probability of a*, minus the same without reasoning, in [0, 1].

    Args:
        with_reasoning: log-probability of each token of a* after the rollout's reasoning.
        without: the same directly after the prompt.
    """
    if len(with_reasoning) == 0:
        return 0.0
    return float(np.clip(np.exp(with_reasoning).mean() - np.exp(without).mean(), 0.0, 1.0))


def moving_threshold(means: Sequence[float], *, beta: float, decay: float, seen: int, start: int) -> float | None:
    """RLPR's threshold for the generation that follows; None before generation ``start`` (from 1).

    ``beta`` times a moving average of the mean reward std of the generations so far. It begins as their plain mean over
    those from ``seen`` up to ``start``; each later one moves it by ``1 - decay``.

    Args:
        means: mean reward std of each generation's groups, in order.
        beta: how far below the average a group may lie.
        decay: of the average.
        seen: first generation that is in it, from 1.
        start: first generation that has a threshold.
    """
    if len(means) < start - 1:
        return None
    average = float(np.mean(means[seen - 1 : start - 1]))
    for mean in means[start - 1 :]:
        average = decay * average + (1 - decay) * mean
    return beta * average


def short(mean: float) -> float:
    """As float32 has it: what is read back from a log is then what was used."""
    return float(np.float32(mean))


class Bound:
    """A reward function bound to a trainer; called before :meth:`bind` it raises a DereasonError.

    Called as TRL calls reward functions, with ``completion_ids`` as sampled, ``prompt_ids`` (token ids of each
    row's prompt, the chat template's special tokens among them) and the data set column ``answer``. The rows of a
    process are a contiguous piece of the generation, in which groups stand side by side, as TRL deals them out.
    """

    __name__ = "verifier_free"
    _trainer: Any = None

    def bind(self, trainer: Any) -> None:
        """Give the function its model, tokenizer, temperature and processes."""
        self._trainer = trainer

    @property
    def trainer(self) -> Any:
        """The trainer of :meth:`bind`."""
        if self._trainer is None:
            raise DereasonError(
                f"the reward {self.__name__} asks the model in training, and is bound to no trainer",
                "use it in an RL phase; it is no reward function for plain TRL",
            )
        return self._trainer

    def score(self, prefixes: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[list[np.ndarray]]:
        """:func:`~dereason.training.rewards.scoring.answer_logps` under the trainer's current policy."""
        if not prefixes:
            return []
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        training = model.training
        model.eval()
        with self.trainer.accelerator.autocast():
            scored = answer_logps(
                model,
                prefixes,
                answers,
                temperature=self.trainer.args.temperature,
                pad_id=self.trainer.processing_class.pad_token_id,
                rows=self.trainer.phase.rollout_batch,
            )
        model.train(training)
        return scored

    def gather(self, local: list[Any]) -> list[Any]:
        """The items of all processes, in the order of the generation's rows."""
        from accelerate.utils import gather_object

        return list(gather_object(local))

    def groups(self, local_rows: int) -> dict[int, list[int]]:
        """Group -> this process's rows in it."""
        before = self.gather([local_rows])[: int(self.trainer.accelerator.process_index)]
        first, size = sum(before), int(self.trainer.num_generations)  # processes may hold different numbers of groups
        members: dict[int, list[int]] = {}
        for row in range(local_rows):
            members.setdefault((first + row) // size, []).append(row)
        return members


class CERReward(Bound):
    """See :func:`cer_rewards`; each unique answer string of a group is scored once after each reasoning."""

    __name__ = "cer"

    def __init__(self, *, keep_unboxed: bool = False) -> None:
        self.keep_unboxed = keep_unboxed

    def __call__(self, *, completion_ids: Any, prompt_ids: Any, answer: Sequence[str], **_: Any) -> list[float | None]:
        """CER of each row."""
        return self.score_groups(completion_ids, prompt_ids, answer, set())

    def score_groups(
        self,
        completion_ids: Sequence[Sequence[int]],
        prompt_ids: Sequence[Sequence[int]],
        answer: Sequence[str],
        skip: set[int],
    ) -> list[float | None]:
        """CER of each row.

        Args:
            completion_ids: token ids of the rollouts.
            prompt_ids: token ids of their prompts.
            answer: reference of each row.
            skip: groups to leave unscored, at 0.
        """
        tokenizer = self.trainer.processing_class
        cut = [split_at_box(tokenizer, ids) for ids in completion_ids]
        # Reasonings are scored where their rollout ran; the answers of a group come from everywhere.
        answers = self.gather([c[1] if c else None for c in cut])
        size, rows = int(self.trainer.num_generations), len(cut)
        table: dict[int, list[str]] = {}  # group -> its unique answers, the reference first
        pieces: list[tuple[int, list[float]]] = []
        for group, members in self.groups(rows).items():
            given = {a for a in answers[group * size : (group + 1) * size] if a is not None}
            table[group] = [answer[members[0]], *sorted(given - {answer[members[0]]})]
            if group in skip:
                continue
            heads = [self._head(prompt_ids[i], completion_ids[i], cut[i]) for i in members]
            scored = self.score([head for head in heads if head], [encode_answer(tokenizer, a) for a in table[group]])
            pieces += [(group, [float(logps.sum()) for logps in row]) for row in scored]
        reasonings: dict[int, list[list[float]]] = {}
        for group, row_logps in self.gather(pieces):
            reasonings.setdefault(group, []).append(row_logps)
        rewards: list[float | None] = [0.0] * rows
        for group, members in self.groups(rows).items():
            sampled = [table[group].index(c[1]) if (c := cut[i]) else None for i in members]
            values = cer_rewards(np.array(reasonings.get(group, [])), sampled, 0)
            for i, value in zip(members, values, strict=True):
                rewards[i] = float(value)
        return rewards

    def _head(self, prompt: Sequence[int], completion: Sequence[int], cut: tuple[list[int], str] | None) -> list[int]:
        """Prompt and reasoning; empty for a rollout that gives the group no reasoning."""
        if cut:
            return [*prompt, *cut[0]]
        if not self.keep_unboxed:
            return []
        ended = completion[-1] in self.trainer.eos_token_ids
        tail = encode(self.trainer.processing_class, BOX)
        return [*prompt, *(completion[:-1] if ended else completion), *tail]


class RuleThenCERReward(CERReward):
    """The verifier's verdict where the reference's kind has a rule, CER where it has none (our combination).

    The *reference* decides, not the response: a response cannot choose its judge by leaving out the box.
    """

    __name__ = "rule_then_cer"

    def __init__(self, *, no_rule: Sequence[Kind], keep_unboxed: bool = False) -> None:
        super().__init__(keep_unboxed=keep_unboxed)
        self.no_rule = frozenset(no_rule)

    def __call__(
        self, *, completion_ids: Any, prompt_ids: Any, answer: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """The reward of each row; None where a rule should have decided and the verifier failed."""
        options = columns.get("options") or [None] * len(answer)
        free = [kind_of(a, o or None) in self.no_rule for a, o in zip(answer, options, strict=True)]
        ruled = {group for group, members in self.groups(len(answer)).items() if not free[members[0]]}
        soft = self.score_groups(completion_ids, prompt_ids, answer, ruled)
        hard = [correctness(j.verdict) for j in columns["judgements"]]
        return [s if f else h for f, s, h in zip(free, soft, hard, strict=True)]


class RLPRReward(Bound):
    """See :func:`rlpr_reward`; prompts whose reward hardly varies are left out (None for the whole group).

    Args:
        drop_flat: whether they are.
        beta: see :func:`moving_threshold`, and so are the next three.
        decay: of the moving average.
        seen: first generation in it.
        start: first generation that is filtered.
    """

    __name__ = "rlpr"

    def __init__(
        self, *, drop_flat: bool = True, beta: float = 0.5, decay: float = 0.99, seen: int = 6, start: int = 11
    ) -> None:
        self.drop_flat = drop_flat
        self.numbers = {"beta": beta, "decay": decay, "seen": seen, "start": start}
        self.means: list[float] = []
        self.without: dict[str, list[float]] = {}
        self._step, self._stds = -1, [0.0]

    def prepare(self, asked: Mapping[str, tuple[Sequence[int], str]], file: Path) -> None:
        """Score every reference without reasoning, by the policy as the phase begins with it; once.

        Every process calls this, before training. The scores are kept in a file, which a phase that goes on reads: by
        then the policy is another one.

        Args:
            asked: problem id -> token ids of its prompt, reference.
            file: where the scores are.
        """
        if not file.is_file():
            accelerator, tokenizer = self.trainer.accelerator, self.trainer.processing_class
            box, found = encode(tokenizer, BOX), {}
            for id in [*asked][accelerator.process_index :: accelerator.num_processes]:
                prompt, answer = asked[id]
                found[id] = self.score([[*prompt, *box]], [encode_answer(tokenizer, answer)])[0][0].tolist()
            parts = self.gather([found])
            if accelerator.is_main_process:
                part = file.with_name(file.name + ".part")
                part.write_text(json.dumps({id: logps for each in parts for id, logps in each.items()}))
                part.replace(file)
            accelerator.wait_for_everyone()
        self.without = json.loads(file.read_text())

    @property
    def threshold(self) -> float | None:
        """Of the present generation."""
        return moving_threshold(self.means, **self.numbers) if self.drop_flat else None  # type: ignore[arg-type]

    def __call__(
        self,
        *,
        completion_ids: Any,
        prompt_ids: Any,
        answer: Sequence[str],
        log_metric: Log,
        problem_id: Sequence[str] = (),
        **_: Any,
    ) -> list[float | None]:
        """RLPR's reward of each row, None for the rows of a prompt that is dropped."""
        step = int(self.trainer.state.global_step)
        if step != self._step:  # the draws of one generation have one threshold
            if self._step >= 0:
                self.means.append(short(float(np.mean(self._stds))))
            self._step, self._stds = step, []
        tokenizer = self.trainer.processing_class
        cut = [split_at_box(tokenizer, ids) for ids in completion_ids]
        rewards = [0.0] * len(cut)
        for members in self.groups(len(cut)).values():
            reference = [encode_answer(tokenizer, answer[members[0]])]
            boxed = [(i, c[0]) for i in members if (c := cut[i])]
            scored = self.score([[*prompt_ids[i], *head] for i, head in boxed], reference)
            for (i, _head), logps in zip(boxed, scored, strict=True):
                rewards[i] = rlpr_reward(logps[0], np.array(self.without[problem_id[i]]))
        every = np.array(self.gather(rewards)).reshape(-1, int(self.trainer.num_generations))
        stds = every.std(axis=1, ddof=1)
        threshold = self.threshold
        dropped = stds < threshold if threshold is not None else stds < 0
        self._stds += stds.tolist()
        if len(stds):
            log_metric("dropped_groups", float(dropped.mean()))
            log_metric("std_mean", float(stds.mean()))
            log_metric("std_threshold", threshold or 0.0)
        return [None if dropped[group] else rewards[i] for group, rows in self.groups(len(cut)).items() for i in rows]


class VeriFreeReward(Bound):
    """Probability of the whole reference after the rollout's reasoning (arXiv 2505.21493); 0 without a box."""

    __name__ = "verifree"

    def __call__(self, *, completion_ids: Any, prompt_ids: Any, answer: Sequence[str], **_: Any) -> list[float | None]:
        """π(a*|q, s) of each row."""
        tokenizer = self.trainer.processing_class
        cut = [split_at_box(tokenizer, ids) for ids in completion_ids]
        rewards: list[float | None] = [0.0] * len(cut)
        for members in self.groups(len(cut)).values():
            boxed = [(i, c[0]) for i in members if (c := cut[i])]
            scored = self.score(
                [[*prompt_ids[i], *head] for i, head in boxed], [encode_answer(tokenizer, answer[members[0]])]
            )
            for (i, _head), logps in zip(boxed, scored, strict=True):
                rewards[i] = float(np.exp(logps[0].sum()))
        return rewards


def splice_reference(
    tokenizer: Any, completion_ids: Sequence[Sequence[int]], references: Sequence[str]
) -> tuple[list[list[int]], list[int]]:
    """VeriFree's rows: each rollout's reasoning followed by the reference in place of its own answer.

    Returns:
        token ids of the rows; the number of reference tokens at the end of each (0 for a rollout without a box,
        which stays as it was).
    """
    rows: list[list[int]] = []
    tails: list[int] = []
    for ids, reference in zip(completion_ids, references, strict=True):
        cut = split_at_box(tokenizer, ids)
        answer = encode_answer(tokenizer, reference) if cut else []
        rows.append([*cut[0], *answer] if cut else list(ids))
        tails.append(len(answer))
    return rows, tails
