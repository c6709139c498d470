"""The protocol that every model backend keeps, and the types that cross it.

A backend turns chats into completions (:meth:`LanguageModel.generate`) and, where it can read logits, into
the probabilities of a few one-token choices (:meth:`LanguageModel.choice_probabilities`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np
from pydantic import Field

from dereason.settings import Settings

Progress = Callable[[int, int, str], None]
"""Told of work under way: (done, total, a few words)."""


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


class Sampling(Settings):
    """How responses are drawn."""

    temperature: float = Field(default=1.0, ge=0)
    """Softmax temperature; 0 takes the most probable token (greedy)."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Length limit of a response, in tokens, the end token included."""
    batch_size: int = Field(default=64, gt=0)
    """Sequences decoded at once; part of the result's identity, because floating point sums depend on it."""


@dataclass(frozen=True)
class Completion:
    """One response.

    Attributes:
        request: index of its prompt among the requested ones.
        index: which of the prompt's n samples it is, 0..n-1.
        text: the decoded response, special tokens left out.
        token_ids: the generated token ids, the end token included where there is one.
        prompt_tokens: length of the prompt in tokens.
        hit_limit: True where the length limit ended it, not the model.
        logps: log-probability (nats) of each token under the distribution that it was drawn from (greedy: at
            temperature 1); empty where the backend does not know them.
    """

    request: int
    index: int
    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    hit_limit: bool
    logps: tuple[float, ...] = ()


class LanguageModel(Protocol):
    """What profiling, supervision and evaluation need of a model."""

    @property
    def identity(self) -> str:
        """Name and content of the model; two models with one identity give the same answers."""
        ...

    def template_hash(self) -> str:
        """Hash of how chats become token ids (template, its arguments and special tokens)."""
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        n: int,
        sampling: Sampling,
        seed: int,
        finished: frozenset[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Draw n responses to each prompt, batch by batch.

        Yields ``(batch number, completions)``. How prompts fall into batches depends on the arguments alone,
        so a caller that stored some batches passes their numbers as ``finished`` and gets exactly the rest.
        """
        ...

    def batches(self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling) -> int:
        """How many batches :meth:`generate` makes of these prompts."""
        ...

    def choice_probabilities(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[str], batch_size: int
    ) -> Iterator[np.ndarray]:
        """Probability of each one-token choice as the reply's first token, renormalised over the choices.

        Yields arrays of shape (prompts in the batch, choices), in the prompts' order.
        """
        ...
