"""A model that says what a test tells it to, and a desk to ask it at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dereason.lm.base import Completion, LanguageModel, Message, Sampling
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.supervision.desk import Desk
from dereason.verify.verifier import default_verifier

Say = Callable[[str, int], str | Completion]
"""(the user's message, index) -> the response; a text has as many tokens as words."""


class ScriptedModel:
    """Keeps :class:`~dereason.lm.base.LanguageModel`. A prompt is a batch; ``asked`` are the messages, in order."""

    def __init__(self, say: Say, identity: str = "scripted@1") -> None:
        self.say = say
        self.identity = identity
        self.asked: list[str] = []

    def template_hash(self) -> str:
        return "scripted"

    def batches(self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling) -> int:
        return len(prompts)

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        n: int,
        sampling: Sampling,
        seed: int,
        finished: frozenset[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        for number, chat in enumerate(prompts):
            if number not in finished:
                text = chat[-1]["content"]
                self.asked.append(text)
                yield number, [self._completion(number, i, self.say(text, i)) for i in range(n)]

    @staticmethod
    def _completion(request: int, index: int, said: str | Completion) -> Completion:
        if isinstance(said, Completion):
            return said
        return Completion(request, index, said, (), 7, False, generated=len(said.split()))

    def choice_probabilities(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        raise NotImplementedError


def make_desk(
    store: Path,
    load: Callable[[ModelSettings, str | None], LanguageModel],
    student: ModelSettings | None = None,
    prompt: Prompt | None = None,
) -> Desk:
    """A desk without a screen."""
    return Desk(
        prompt=prompt or Prompt(),
        verifier=default_verifier(),
        store=store,
        load=load,
        student=(student or ModelSettings(name="student"), None),
        progress=lambda name: lambda done, total, words: None,
        say=lambda line: None,
    )
