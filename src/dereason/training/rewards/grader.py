r"""The generative verifier: a language model says whether an answer equals the reference.

For answers that no rule compares (a sentence, a name, a formula in words). The protocol is General-Verifier's
(General-Reasoner, arXiv 2505.14652; the model is ``TIGER-Lab/general-verifier``): the model reads the question, the
reference and the extracted answer under the headings "Question", "Ground Truth Answer" and "Student Answer", and
ends its reply with "Final Decision: Yes" or "Final Decision: No". Decoding is greedy.

Ours, and not the protocol's: the wording of the instruction (:data:`TEMPLATE`), and that every reply without
exactly one decision is *undecided*, which is the verdict ``error`` and never ``wrong``. Theirs counts whatever
does not say Yes as wrong.

What is left out: sampling several replies and voting, and prompts without a chat template (the published model was
trained on bare text; a backend here puts the prompt into the model's own chat template).
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import NamedTuple

from pydantic import Field, field_validator

from dereason.errors import DereasonError
from dereason.lm.base import LanguageModel, Message, Sampling
from dereason.problems.schema import Verdict
from dereason.settings import Settings

TEMPLATE = """Decide whether a student's answer means the same as the reference answer to a question.

### Question: {question}

### Ground Truth Answer: {reference}

### Student Answer: {answer}

Only compare the two answers; do not work out the question yourself. Another notation, order of words or level of \
rounding that keeps the meaning is the same answer. Give your reasons in a few words and end with one line: \
"Final Decision: Yes" if both answers are the same, "Final Decision: No" if they are not."""
"""The default prompt; the headings are General-Verifier's, the words ours."""

FIELDS = frozenset({"question", "reference", "answer"})
MAX_FAILURES = 3
"""Failed calls in a row after which the model is taken to be gone."""

_DECISION = re.compile(r"final\s+decision[\s:*_\"'`]*(yes|no)\b", re.IGNORECASE)
# An answer that carries a decision or a heading of its own would speak to the judge, not be judged.
_SPEAKS = re.compile(r"final\s+decision|#{3}", re.IGNORECASE)
_THOUGHT = "</think>"

_log = logging.getLogger(__name__)


class GenerativeVerifierSettings(Settings):
    """How the judging model is asked."""

    template: str = TEMPLATE
    """The prompt, with the fields `{question}`, `{reference}` and `{answer}`; other braces are doubled."""
    max_new_tokens: int = Field(default=1024, gt=0)
    """Length limit of a reply in tokens."""
    batch_size: int = Field(default=32, gt=0)
    """Replies decoded at once."""
    max_answer_characters: int = Field(default=2000, gt=0)
    """Longer answers are not shown to the model; they are undecided."""
    cache_size: int = Field(default=100_000, ge=0)
    """How many decisions are remembered; the oldest are forgotten first."""

    @field_validator("template")
    @classmethod
    def _has_the_fields(cls, template: str) -> str:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as exc:
            raise ValueError(f"the template's braces do not match ({exc}); write a literal brace twice") from exc
        found = {name for _, name, _, _ in parts if name is not None}
        if found != FIELDS or any(spec or conversion for _, _, spec, conversion in parts):
            listed = ", ".join(f"{{{name}}}" for name in sorted(found)) or "none"
            raise ValueError(
                f"the template needs {{question}}, {{reference}} and {{answer}} and no others, not {listed}"
            )
        return template


class Query(NamedTuple):
    """What is put to the judging model; equal queries are asked once."""

    question: str
    """The question, with its options if it has any."""
    reference: str
    """The problem's answer."""
    answer: str
    """The answer extracted from a response."""


@dataclass(frozen=True)
class Decision:
    """What the judging model says of one answer."""

    verdict: Verdict
    """``correct``, ``wrong``, or ``error`` where it is undecided or the model failed."""
    reason: str
    """Why, in words."""
    reply: str | None
    """The model's reply as it came; None where there was none."""


class GenerativeVerifier:
    """A judging model over any backend, with a cache.

    Args:
        lm: the model that judges.
        settings: see :class:`GenerativeVerifierSettings`.
    """

    def __init__(self, lm: LanguageModel, settings: GenerativeVerifierSettings | None = None) -> None:
        self.lm = lm
        self.settings = settings or GenerativeVerifierSettings()
        self._cache: OrderedDict[Query, Decision] = OrderedDict()
        self._answered = False
        self._failures = 0

    def judge(self, queries: Sequence[Query]) -> list[Decision]:
        """Decide each query, in order; equal ones are asked once, in one call of the backend for all.

        A call that fails makes its queries undecided, and they are asked again the next time.

        Raises:
            DereasonError: the model failed in its first call, or three times in a row. A judge that is not there
                would otherwise turn every reward into none, and training into nothing.
        """
        found: dict[Query, Decision] = {}
        asked: list[Query] = []
        for query in dict.fromkeys(queries):
            if (refusal := self._refusal(query)) is not None:
                found[query] = refusal
            elif query in self._cache:
                self._cache.move_to_end(query)
                found[query] = self._cache[query]
            else:
                asked.append(query)
        found.update(self._ask(asked))
        return [found[query] for query in queries]

    def messages(self, query: Query) -> list[Message]:
        """The chat for one query."""
        return [{"role": "user", "content": self.settings.template.format(**query._asdict())}]

    def _refusal(self, query: Query) -> Decision | None:
        limit = self.settings.max_answer_characters
        if len(query.answer) > limit:
            cause = f"the answer has {len(query.answer)} characters, more than max_answer_characters {limit}"
        elif _SPEAKS.search(query.answer):
            cause = "the answer carries a decision or a heading of its own"
        else:
            return None
        return Decision(Verdict.ERROR, f"not judged: {cause}", None)

    def _ask(self, queries: list[Query]) -> dict[Query, Decision]:
        if not queries:
            return {}
        sampling = Sampling(
            temperature=0, max_new_tokens=self.settings.max_new_tokens, batch_size=self.settings.batch_size
        )
        decided: dict[Query, Decision] = {}
        failure = "it gave no reply"
        try:
            for _, completions in self.lm.generate([self.messages(q) for q in queries], 1, sampling, seed=0):
                for completion in completions:
                    query = queries[completion.request]
                    decided[query] = self._cache[query] = decide(completion.text, completion.hit_limit)
            self._answered, self._failures = True, 0
        # A backend may fail in any way (out of memory, a server gone); what it already said is kept.
        except Exception as exc:
            failure = f"{type(exc).__name__}: {exc}"
            self._failures += 1
            if not (self._answered or decided) or self._failures >= MAX_FAILURES:
                raise DereasonError(
                    f"the judge model {self.lm.identity} failed: {failure}",
                    "see that it runs by itself; lower its batch_size if memory ran out",
                ) from exc
            _log.warning("the judge model %s failed, its answers are undecided: %s", self.lm.identity, failure)
        while len(self._cache) > self.settings.cache_size:
            self._cache.popitem(last=False)
        missing = Decision(Verdict.ERROR, f"the judge model failed: {failure}", None)
        return {query: decided.get(query, missing) for query in queries}


def decide(reply: str, hit_limit: bool = False) -> Decision:
    """Read the decision out of a reply.

    Args:
        reply: what the judging model wrote; anything up to a closing think tag is not read.
        hit_limit: whether the reply stopped at its length limit.

    Several decisions that agree are one; none, or two that differ, is the verdict ``error``.
    """
    said = {match.lower() for match in _DECISION.findall(reply.rpartition(_THOUGHT)[2])}
    if said == {"yes"}:
        return Decision(Verdict.CORRECT, "the judge model says that it is the same answer", reply)
    if said == {"no"}:
        return Decision(Verdict.WRONG, "the judge model says that it is another answer", reply)
    if said:
        cause = "the judge model says both Yes and No"
    elif hit_limit:
        cause = "the judge model's reply hit its length limit before a decision"
    else:
        cause = "the judge model's reply has no decision"
    return Decision(Verdict.ERROR, f"undecided: {cause}", reply)
