"""The ``api`` backend: any OpenAI-compatible endpoint.

What is left out: streaming, tools, images, batch endpoints, scoring given replies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dereason.errors import DereasonError
from dereason.lm.api.run import Endpoints, Question, Run
from dereason.lm.base import Completion, Message, Sampling, Usage
from dereason.lm.calls import Answer, CallStore, question_key
from dereason.lm.local.model import ModelSettings, model_identity


def check_endpoint(settings: ModelSettings) -> str | None:
    """Refuse settings that cannot work, without asking the endpoint.

    Returns:
        the key, or None where the endpoint needs none.

    Raises:
        DereasonError: the address or the key is missing, or the packages are not installed.
    """
    if find_spec("openai") is None or find_spec("tenacity") is None:
        raise DereasonError(
            "backend=api needs the packages openai and tenacity, which are not installed here",
            "pip install 'dereason[api]'",
        )
    api = settings.api
    if api.base_url is None:
        raise DereasonError(
            f"{settings.name} has backend=api and no address", "set api.base_url, such as http://localhost:8000/v1"
        )
    if api.key_env is None:
        return None
    if not (key := os.environ.get(api.key_env, "").strip()):
        raise DereasonError(
            f"api.key_env of {settings.name} names ${api.key_env}, which is not set",
            f"export {api.key_env}=... in the shell that starts dereason, or set api.key_env to another variable",
        )
    return key


class ApiModel:
    """The ``api`` backend. Keeps :class:`~dereason.lm.base.LanguageModel`.

    A batch is one prompt. Every finished call is stored at once, and a stored one is never made again.

    Attributes:
        settings: which model, and where.
        usage: what asking it took so far.
    """

    def __init__(
        self,
        settings: ModelSettings,
        chat_template_kwargs: dict[str, Any] | None = None,
        *,
        identity: str | None = None,
        store: Path | None = None,
    ) -> None:
        """Open the store; the endpoint is not asked.

        Args:
            settings: which model, and where.
            chat_template_kwargs: extra arguments of its chat template, sent with each call.
            identity: in place of the model's name and revision.
            store: folder of finished calls; None keeps none.

        Raises:
            DereasonError: see :func:`check_endpoint`.
        """
        key = check_endpoint(settings)
        self.settings = settings
        self.usage = Usage(price=settings.api.price(0, 0))
        self._identity = identity or model_identity(settings)
        self._kwargs = dict(chat_template_kwargs or {})
        self._store = None if store is None else CallStore(store, self._identity)
        self._known = Endpoints(settings.api, key, self._store, self.usage)

    @property
    def identity(self) -> str:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return self._identity

    @property
    def several(self) -> bool:
        """Whether the endpoint has been seen to give several choices a call."""
        return bool(self._known.several)

    def template_hash(self) -> str:
        """Hash of the model's name and the template's arguments: the template itself is the endpoint's."""
        content = {"backend": "api", "identity": self._identity, "kwargs": self._kwargs}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def batches(self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling) -> int:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return len(prompts)

    def missing(self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling, seed: int) -> list[int]:
        """How many of each prompt's n responses are not stored; of equal prompts, the first has them all."""
        seen: set[str] = set()
        found = []
        for chat in prompts:
            key = self._response_key(chat, sampling, seed)
            found.append(0 if key in seen else len(set(range(n)) - self._stored(key)))
            seen.add(key)
        return found

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        n: int,
        sampling: Sampling,
        seed: int,
        finished: frozenset[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See :class:`~dereason.lm.base.LanguageModel`. Batches come as they are finished.

        Calls go on while the caller works on a batch. Closing the iterator cancels those in flight. Filters that are
        not set are not sent: then the endpoint's own apply, which some take from the model's generation config.

        Raises:
            DereasonError: the endpoint gives no answers, does not take a filter, or the budget is reached; all that
                came back is stored.
        """
        members: dict[str, list[int]] = {}
        for i, chat in enumerate(prompts):
            if i not in finished:
                members.setdefault(self._response_key(chat, sampling, seed), []).append(i)
        body: dict[str, Any] = {self.settings.api.length_field: sampling.max_new_tokens}
        if sampling.temperature is not None:
            body["temperature"] = sampling.temperature
        body |= sampling.filters
        questions = [
            Question(key, self._body(prompts[at[0]], body), n, sampling.max_new_tokens) for key, at in members.items()
        ]
        with closing(self._answered(questions)) as coming:
            for question in coming:
                for i in members[question.key]:
                    yield i, [_completion(i, j, *question.got[j]) for j in range(n)]

    def choice_probabilities(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        """See :class:`~dereason.lm.base.LanguageModel`.

        The endpoint tells the probabilities of its likeliest first tokens alone: a choice that is none of them
        counts as impossible.

        Raises:
            DereasonError: the endpoint gives no log-probabilities, or no choice is among the likeliest first tokens.
        """
        top = self.settings.api.top_logprobs
        body = {"temperature": 1.0, self.settings.api.length_field: 1, "logprobs": True, "top_logprobs": top}
        keys = [self._key("first token", chat, top=top) for chat in prompts]
        bodies = {key: self._body(chat, body) for key, chat in zip(keys, prompts, strict=True)}
        questions = [Question(key, asked, 1, 1, wants_first=True) for key, asked in bodies.items()]
        found: dict[str, np.ndarray] = {}
        with closing(self._answered(questions)) as coming:
            for start in range(0, len(keys), batch_size):
                batch = keys[start : start + batch_size]
                while any(key not in found for key in batch):
                    question = next(coming)
                    found[question.key] = self._probabilities(question, choices)
                yield np.stack([found[key] for key in batch])

    def _answered(self, questions: Sequence[Question]) -> Generator[Question, None, None]:
        """The questions in the order in which all their answers are there; the stored ones are not asked."""
        whole: list[Question] = []
        asked: list[Question] = []
        for question in questions:
            known = self._stored(question.key) & set(range(question.n))
            self.usage.stored += len(known)
            if len(known) < question.n:
                question.got.update((i, self._read(question.key, i)) for i in known)
            (asked if len(known) < question.n else whole).append(question)
        with Run(self._known, asked) if asked else nullcontext() as run:
            for question in whole:  # read when they are wanted, and not kept: there may be many
                question.got.update((i, self._read(question.key, i)) for i in range(question.n))
                yield question
                question.got.clear()
            for question in run.answered() if run else ():
                yield question
                question.got.clear()

    def _stored(self, key: str) -> set[int]:
        return set() if self._store is None else self._store.known(key)

    def _read(self, key: str, choice: int) -> tuple[Answer, int]:
        assert self._store is not None  # or nothing is stored
        return self._store.read(key, choice)

    def _response_key(self, chat: Sequence[Message], sampling: Sampling, seed: int) -> str:
        how = {"temperature": sampling.temperature, "max_new_tokens": sampling.max_new_tokens, **sampling.filters}
        return self._key("response", chat, seed=seed, **how)

    def _key(self, kind: str, chat: Sequence[Message], **decides: Any) -> str:
        common = {"identity": self._identity, "extra": self.settings.api.extra, "kwargs": self._kwargs}
        try:
            return question_key(kind=kind, messages=list(chat), **common, **decides)
        except UnicodeEncodeError as error:
            raise DereasonError(
                f"a prompt for {self._identity} holds half a character, which no request can: {error.object[:200]!r}",
                "mend the text of the problem, of prompt, or of api.extra",
            ) from error

    def _body(self, chat: Sequence[Message], fields: dict[str, Any]) -> dict[str, Any]:
        kwargs = {"chat_template_kwargs": self._kwargs} if self._kwargs else {}
        return {"model": self.settings.name, "messages": list(chat), **fields, **kwargs, **self.settings.api.extra}

    def _probabilities(self, question: Question, choices: Sequence[str]) -> np.ndarray:
        """Probability of each choice, shape (choices,)."""
        answer, _ = question.got[0]
        if answer.first is None:
            raise DereasonError(
                f"{self._identity} gives no score: {answer.refusal}", "use another judge, or leave the problem out"
            )
        weights = np.zeros(len(choices))
        exact = any(choice in answer.first for choice in choices)
        for token, logp in answer.first.items():
            text = token if exact else token.strip()  # some tokenizers begin a reply with a space
            if text in choices:
                weights[list(choices).index(text)] += np.exp(logp)
        if weights.sum() == 0:
            likeliest = max(answer.first, key=lambda token: answer.first[token] if answer.first else 0.0)
            raise DereasonError(
                f"none of {', '.join(choices)} is among the likeliest first tokens of {self._identity}, which would "
                f"begin with {likeliest!r}",
                "use a judge that replies with the score alone, or raise api.top_logprobs",
            )
        return weights / weights.sum()


def _completion(request: int, index: int, answer: Answer, prompt_tokens: int) -> Completion:
    return Completion(
        request=request,
        index=index,
        text=answer.text,
        token_ids=(),
        prompt_tokens=prompt_tokens,
        hit_limit=answer.hit_limit,
        generated=answer.tokens,
        refusal=answer.refusal,
    )
