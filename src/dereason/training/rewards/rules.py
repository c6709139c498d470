r"""Rewards that need no model, as plain TRL reward functions.

Each is a callable with a ``__name__`` that TRL calls as ``(prompts, completions, completion_ids, **columns)``. Of the
dataset's columns it reads ``answer`` (the reference) and ``options`` (a list of choices, empty or None without); a
completion is a text or a list of chat messages. Two arguments more are optional: ``judgements`` (one
:class:`~dereason.verify.verdict.Judgement` a completion) and ``hit_limits`` (whether it stopped at the length limit). A
caller that has judged passes them; without them the function judges by itself.

What is judged for a reward is the *marked* answer: an answer that the response does not mark as one is no answer, lest
a policy be paid for whatever number its text happens to end with.

Every function returns None where the verdict is ``error``, also those whose number does not depend on the verdict:
TRL leaves a completion out of its group only if *all* reward functions return None for it.

The formulas stand in pure functions beside the callables.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dereason.errors import DereasonError
from dereason.lm.prompts import LETTERS
from dereason.problems.schema import Verdict
from dereason.verify.span import MARKS, Mark
from dereason.verify.verdict import Judgement
from dereason.verify.verifier import JUDGED, Item, default_verifier, item_of

Log = Callable[[str, float], None]


class RewardFunction(Protocol):
    """What TRL's ``reward_funcs`` takes."""

    __name__: str

    def __call__(self, *args: Any, **columns: Any) -> list[float | None]:
        """One reward a completion; None where there is none. TRL passes everything by name."""
        ...


@dataclass(frozen=True)
class Rollout:
    """One judged completion, as rewards see it."""

    question: str
    """The question with its options: the column ``question`` if there is one, else the prompt's last user message."""
    text: str
    """The generated text, special tokens left out."""
    token_ids: Sequence[int]
    """The generated token ids, the end token included where there is one."""
    reference: str
    """The problem's answer."""
    options: list[str] | None
    """The choices of a multiple-choice problem, None without."""
    judgement: Judgement
    """What the rules say of it under the marks that count."""


class Judging:
    """Judges a batch of completions once for all the rewards that share it.

    Args:
        stop_ids: token ids that end a response.
        max_new_tokens: length limit of a response in tokens; None takes every response for one that ended by itself.
        marks: an answer counts only at one of these (:mod:`dereason.verify.locate`); None: any answer counts.
        judge: judges under these marks in place of the process-wide verifier.
    """

    def __init__(
        self,
        *,
        stop_ids: Sequence[int] = (),
        max_new_tokens: int | None = None,
        marks: Collection[Mark] | None = MARKS,
        judge: Callable[[Sequence[Item]], list[Judgement]] | None = None,
    ) -> None:
        self.stop_ids = frozenset(stop_ids)
        self.max_new_tokens = max_new_tokens
        self.marks = marks
        self.judge = judge
        self._last: tuple[list[Item], list[Judgement]] = ([], [])

    def rollouts(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: dict[str, Any],
    ) -> list[Rollout]:
        """The batch, judged; ``judgements`` and ``hit_limits`` among the columns are taken as they are.

        Raises:
            DereasonError: there is no column ``answer``.
        """
        if "answer" not in columns:
            raise DereasonError(
                "the data set of a reward has no column 'answer'", "give every row its reference answer as text"
            )
        texts = [completion_text(completion) for completion in completions]
        options = [list(o) if o else None for o in columns.get("options") or [None] * len(texts)]
        judged = columns.get("judgements")
        if judged is None:
            limits = columns.get("hit_limits") or [self.hit_limit(ids) for ids in completion_ids]
            rows = [{name: columns[name][i] for name in JUDGED if name in columns} for i in range(len(texts))]
            judged = self._judge_once(
                [item_of(text, limit, row) for text, limit, row in zip(texts, limits, rows, strict=True)]
            )
        questions = columns.get("question") or [None] * len(texts)
        return [
            Rollout(question_text(prompt, question, choice), text, ids, reference, choice, judgement)
            for prompt, question, choice, text, ids, reference, judgement in zip(
                prompts, questions, options, texts, completion_ids, columns["answer"], judged, strict=True
            )
        ]

    def hit_limit(self, token_ids: Sequence[int]) -> bool:
        """Whether a response was cut: it has all the tokens it may have, and the last one is no end token."""
        if self.max_new_tokens is None or len(token_ids) < self.max_new_tokens:
            return False
        return token_ids[-1] not in self.stop_ids

    def _judge_once(self, items: list[Item]) -> list[Judgement]:
        if items != self._last[0]:
            judged = self.judge(items) if self.judge else default_verifier().judge_many(items, self.marks)
            self._last = (items, judged)
        return self._last[1]


class JudgedReward(ABC):
    """A reward of judged completions: the shape of a TRL reward function, and None for every verifier error.

    Attributes:
        decides: whether what it pays is a verdict of its own (1 right, 0 not, None undecided), which then stands in
            place of the rules'.
    """

    decides: ClassVar[bool] = False

    def __init__(self, name: str, judging: Judging) -> None:
        self.__name__ = name
        self.judging = judging

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        """One reward a completion; None where the verifier failed."""
        rollouts = self.judging.rollouts(prompts, completions, completion_ids, columns)
        kept = [i for i, r in enumerate(rollouts) if r.judgement.verdict is not Verdict.ERROR]
        rewards: list[float | None] = [None] * len(rollouts)
        log = columns.get("log_metric") or _no_log
        for i, reward in zip(kept, self.score([rollouts[i] for i in kept], log), strict=True):
            rewards[i] = reward
        return rewards

    @abstractmethod
    def score(self, rollouts: Sequence[Rollout], log: Log) -> list[float | None]:
        """Rewards of completions that have a verdict; ``log`` takes (metric, value of this batch)."""


class CorrectnessReward(JudgedReward):
    """1 for a correct answer, 0 for any other response."""

    def __init__(self, judging: Judging) -> None:
        super().__init__("correctness", judging)

    def score(self, rollouts: Sequence[Rollout], log: Log) -> list[float | None]:
        """See :class:`JudgedReward`."""
        return [correctness(r.judgement.verdict) for r in rollouts]


def correctness(verdict: Verdict) -> float | None:
    """1 for ``correct``, None for ``error``, 0 for every other verdict."""
    return None if verdict is Verdict.ERROR else float(verdict is Verdict.CORRECT)


def right_of(judgement: Judgement) -> bool | None:
    """Whether a response is right by its verdict, None for ``error``."""
    return None if judgement.verdict is Verdict.ERROR else judgement.verdict is Verdict.CORRECT


class LengthShapedReward(JudgedReward):
    """General-Reasoner's reward: see :func:`length_shaped`. Lengths are counted by ``tokenizer``."""

    def __init__(
        self, judging: Judging, tokenizer: Any, *, no_answer: float, per_token: float, max_difference: int
    ) -> None:
        super().__init__("length_shaped", judging)
        self.tokenizer = tokenizer
        self.constants = {"no_answer": no_answer, "per_token": per_token, "max_difference": max_difference}

    def score(self, rollouts: Sequence[Rollout], log: Log) -> list[float | None]:
        """See :class:`JudgedReward`."""
        return [
            length_shaped(
                r.judgement.verdict,
                self._length(r.judgement.extracted or "") - self._length(r.reference)
                if r.judgement.verdict is Verdict.CORRECT
                else 0,
                **self.constants,  # type: ignore[arg-type]  # mypy sees the join of their types
            )
            for r in rollouts
        ]

    def _length(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))


def length_shaped(
    verdict: Verdict,
    difference: int,
    *,
    no_answer: float = -0.5,
    per_token: float = 0.05,
    max_difference: int = 10,
) -> float | None:
    """General-Reasoner's reward (arXiv 2505.14652): a right answer loses a little for each token too many or too few.

    ``1 - per_token * min(max_difference, |difference|)`` for ``correct``; ``no_answer`` where no answer was found
    (``unparsable``, ``truncated``); 0 for ``wrong``; None for ``error``.

    Args:
        verdict: of the response.
        difference: tokens of the extracted answer minus tokens of the reference.
        no_answer: reward of a response without an answer.
        per_token: what one token of difference costs.
        max_difference: the difference beyond which nothing more is taken off.
    """
    if verdict is Verdict.ERROR:
        return None
    if verdict is Verdict.CORRECT:
        return 1 - per_token * min(max_difference, abs(difference))
    return 0.0 if verdict is Verdict.WRONG else no_answer


class FormatReward(JudgedReward):
    """1 where a test of the text's shape holds, 0 where not.

    Args:
        judging: see :class:`Judging`.
        name: what TRL logs it as.
        holds: takes the text; None where it could not tell.
    """

    def __init__(self, judging: Judging, name: str, holds: Callable[[str], bool | None]) -> None:
        super().__init__(name, judging)
        self.holds = holds

    def score(self, rollouts: Sequence[Rollout], log: Log) -> list[float | None]:
        """See :class:`JudgedReward`."""
        found = [self.holds(r.text) for r in rollouts]
        return [None if f is None else float(f) for f in found]


_BRACE = re.compile(r"\\boxed\s*(\{)|\\.|[{}]", re.DOTALL)
_AFTER_BOX = re.compile(r"(?:[\s$.,;!*_\u3002]|\\[)\]])*")


def boxed_last(text: str) -> bool:
    r"""Whether the text has exactly one ``\boxed{}``, balanced and not empty, with nothing after it.

    Nothing but white space, closing punctuation, emphasis marks and the end of a formula (``$``, ``\)``, ``\]``).
    """
    start = end = None
    depth = 0
    for match in _BRACE.finditer(text):
        token = match.group()
        if match.group(1):
            if start is not None:
                return False
            start, depth = match.end(), 1
        elif start is not None and end is None and token in "{}":
            depth += 1 if token == "{" else -1
            if depth == 0:
                end = match.start()
    if start is None or end is None or not text[start:end].strip():
        return False
    return _AFTER_BOX.fullmatch(text, end + 1) is not None


@dataclass(frozen=True)
class ThinkThenAnswer:
    """Whether the text is one think block that is not empty, then an answer that is not empty.

    Attributes:
        opening: the tag that opens the block.
        closing: the tag that closes it.
        opened_by_prompt: the chat template already wrote the opening tag, so the text must not.
    """

    opening: str = "<think>"
    closing: str = "</think>"
    opened_by_prompt: bool = False

    def __call__(self, text: str) -> bool:
        """Whether the text has this shape."""
        thought, found, answer = text.partition(self.closing)
        if not found or self.closing in answer or self.opening in answer:
            return False
        if not self.opened_by_prompt:
            before, found, thought = thought.partition(self.opening)
            if not found or before.strip():
                return False
        return self.opening not in thought and bool(thought.strip()) and bool(answer.strip())


class PatternMatch:
    """Whether the whole text matches a regular expression of the user's.

    None where matching takes longer than the limit: some patterns take time exponential in the text's length, and a
    policy under training can write such a text.

    Args:
        pattern: in the syntax of the package ``regex``, a superset of ``re``.
        time_limit: seconds for one text.
    """

    def __init__(self, pattern: str, time_limit: float) -> None:
        import regex

        self.pattern = regex.compile(pattern)
        self.time_limit = time_limit

    def __call__(self, text: str) -> bool | None:
        """Whether the text has this shape."""
        try:
            return self.pattern.fullmatch(text, timeout=self.time_limit) is not None
        except TimeoutError:
            return None


class OverlongReward(JudgedReward):
    """DAPO's soft punishment: see :func:`overlong_punishment`.

    A completion's length is ``len(completion_ids)``: the end token counts, padding does not (TRL hands the ids over
    before padding), and in conversations with tools the tools' replies count. A completion that was cut at the limit
    has the length ``max_length`` and gets -1; so does one whose end token is its last possible token.
    """

    def __init__(self, judging: Judging, *, max_length: int, buffer: int) -> None:
        super().__init__("overlong", judging)
        self.max_length = max_length
        self.buffer = buffer

    def score(self, rollouts: Sequence[Rollout], log: Log) -> list[float | None]:
        """See :class:`JudgedReward`."""
        return [overlong_punishment(len(r.token_ids), self.max_length, self.buffer) for r in rollouts]


def overlong_punishment(length: int, max_length: int, buffer: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13).

    0 up to ``max_length - buffer``, then ``((max_length - buffer) - length) / buffer``, which is -1 at
    ``max_length``; -1 beyond.

    Args:
        length: of the response, in tokens.
        max_length: the paper's L_max, the length limit.
        buffer: the paper's L_cache, over how many tokens the punishment grows.
    """
    return max(-1.0, min(0.0, (max_length - buffer - length) / buffer))


class Combined:
    """The weighted sum of several rewards, as one TRL reward function; see :func:`weighted_sum`.

    It judges each completion once and hands the judgements to all of them. With more than one, the mean of each is
    logged as ``rewards/NAME/mean``, over the completions for which it is a number.

    After a call ``correct`` says of each completion whether it is right, None where that is undecided. It is the
    verdict that says so, never the sum: a right answer may be worth 0.5, or less than nothing. The verdict is the
    rules', also where all rewards do without them (CER, RLPR, VeriFree), and where a reward asks a judging model it is
    that one's.
    """

    def __init__(
        self, functions: Sequence[RewardFunction], weights: Sequence[float], judging: Judging | None = None
    ) -> None:
        if not functions or len(functions) != len(weights):
            raise ValueError(f"{len(functions)} rewards need as many weights (and at least one), not {len(weights)}")
        self.__name__ = "reward"
        self.functions = list(functions)
        self.weights = list(weights)
        self.judging = judging or Judging()  # a caller that passes judgements needs no more
        self.correct: list[bool | None] = []

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        """The sum for each completion; None where any of the rewards is None."""
        rollouts = self.judging.rollouts(prompts, completions, completion_ids, columns)
        columns = {**columns, "judgements": [r.judgement for r in rollouts]}
        table = [
            f(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
            for f in self.functions
        ]
        decisions = [
            column
            for function, column in zip(self.functions, table, strict=True)
            if isinstance(function, JudgedReward) and function.decides
        ] or [[right_of(r.judgement) for r in rollouts]]
        self.correct = [None if None in row else all(row) for row in zip(*decisions, strict=True)]
        log = columns.get("log_metric")
        if log is not None and len(table) > 1:
            for function, column in zip(self.functions, table, strict=True):
                if numbers := [value for value in column if value is not None]:
                    log(f"rewards/{function.__name__}/mean", sum(numbers) / len(numbers))
        return [weighted_sum(row, self.weights) for row in zip(*table, strict=True)]

    def worth(
        self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str], ids: Sequence[Sequence[int]]
    ) -> list[float]:
        """The sum for each text as if its verdict were ``correct``.

        A reward that judges by a model, or that asks the model in training about a whole group, counts as its most: 1.

        Args:
            rows: of the data set, as a trainer has them: prompt, answer, options ...
            texts: a response to each.
            ids: their token ids.
        """
        columns = {key: [row[key] for row in rows] for key in rows[0]} if rows else {"prompt": [], "answer": []}
        correct = [Judgement(Verdict.CORRECT, answer, "taken as correct", how="boxed") for answer in columns["answer"]]
        columns |= {"judgements": correct, "hit_limits": [False] * len(texts)}
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        rollouts = self.judging.rollouts(columns.pop("prompt"), completions, ids, columns)
        table = [
            [value or 0.0 for value in function.score(rollouts, _no_log)]
            if isinstance(function, JudgedReward) and not function.decides
            else [1.0] * len(texts)
            for function in self.functions
        ]
        return [weighted_sum(row, self.weights) or 0.0 for row in zip(*table, strict=True)]


def weighted_sum(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """``sum_k weights[k] * values[k]`` for one completion; None where any value is None.

    TRL's own sum over reward functions takes None for 0 unless all are None: a completion whose judge failed would then
    count as one that the judge refused.
    """
    total = 0.0
    for value, weight in zip(values, weights, strict=True):
        if value is None:
            return None
        total += weight * value
    return total


def completion_text(completion: Any) -> str:
    """The text of a completion: a text itself, or the last assistant message of a chat."""
    if isinstance(completion, str):
        return completion
    said = [m["content"] for m in completion if m.get("role", "assistant") == "assistant"]
    return _content(said[-1]) if said else ""


def question_text(prompt: Any, question: str | None, options: list[str] | None) -> str:
    """The question as a judging model should read it; a prompt already lists the options."""
    if question is not None:
        return "\n".join([question.strip(), *(f"({LETTERS[i]}) {o}" for i, o in enumerate(options or []))])
    if isinstance(prompt, str):
        return prompt
    asked = [m["content"] for m in prompt if m.get("role") == "user"]
    return _content(asked[-1]) if asked else ""


def _content(content: Any) -> str:
    if isinstance(content, list):  # the blocks of multimodal chats
        return "".join(block.get("text", "") for block in content)
    return content or ""


def _no_log(metric: str, value: float) -> None:
    pass
