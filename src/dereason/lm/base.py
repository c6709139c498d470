"""The protocol that every model backend keeps, and the types that cross it.

A backend turns chats into completions (:meth:`LanguageModel.generate`) and, where it can read logits, into
the probabilities of a few one-token choices (:meth:`LanguageModel.choice_probabilities`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypedDict

import numpy as np
from pydantic import Field, model_validator

from dereason.settings import Settings

Progress = Callable[[int, int, str], None]
"""Told of work under way: (done, total, a few words)."""


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


LEAST_TEMPERATURE = 0.01
"""Below it, other than 0, a temperature is refused: differences of logits divided by it leave floating point, and vLLM
takes this one in its place."""


class Filters(Settings):
    """Which tokens may be drawn at all; the others have probability 0, and those that are left are renormalised.

    Applied to the distribution at the temperature, in this order: top_k, top_p, min_p. Tokens that are as probable as
    the last one that is left are left too.
    """

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the most probable tokens alone that together have this probability (nucleus sampling, arXiv
    1904.09751); 1 leaves all."""
    top_k: int = Field(default=0, ge=0)
    """Draw from so many most probable tokens alone; 0 leaves all."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Draw from the tokens alone that have at least this share of the most probable one's probability (arXiv
    2407.01082); 0 leaves all."""

    @property
    def filters(self) -> dict[str, Any]:
        """Those that leave out anything, by name."""
        off = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
        return {name: getattr(self, name) for name, value in off.items() if getattr(self, name) != value}


def check_temperature(temperature: float | None, filters: Filters) -> None:
    """Refuse a temperature too small to divide by, and filters that would filter nothing.

    Raises:
        ValueError: the temperature is between 0 and :data:`LEAST_TEMPERATURE`; or it is 0 and there are filters.
    """
    if temperature is not None and 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(
            f"temperature {temperature:g} is below {LEAST_TEMPERATURE}: set 0, which is greedy, or a larger one"
        )
    if temperature == 0 and filters.filters:
        raise ValueError(
            f"temperature is 0, which takes the most probable token, and {', '.join(filters.filters)} would change "
            "nothing: set a temperature above 0, or leave it out"
        )


class Sampling(Filters):
    """How responses are drawn."""

    temperature: float | None = Field(default=1.0, ge=0)
    """Softmax temperature; 0 takes the most probable token (greedy), null leaves it to the endpoint
    (`backend: api` only)."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Length limit of a response, in tokens, the end token included."""
    batch_size: int = Field(default=64, gt=0)
    """Sequences decoded at once; part of the result's identity, because floating point sums depend on it."""

    @model_validator(mode="after")
    def _draws_something(self) -> Self:
        check_temperature(self.temperature, self)
        return self


def check_draws(sampling: Sampling, n: int, field: str, *, endpoint: bool = True) -> None:
    """Refuse settings of a draw that make no sense together.

    Args:
        sampling: how responses are drawn.
        n: responses to each prompt.
        field: the setting that says so.
        endpoint: whether an endpoint may be asked, which has a temperature of its own.

    Raises:
        ValueError: several greedy responses to a prompt, which are all the same; or no temperature for a model here.
    """
    if n > 1 and sampling.temperature == 0:
        raise ValueError(
            f"{field} is {n} and sampling.temperature is 0: greedy responses to a prompt are all the same; "
            f"set {field} to 1, or a temperature above 0"
        )
    if sampling.temperature is None and not endpoint:
        raise ValueError("sampling.temperature is null, which leaves it to an endpoint, and none is asked: set one")


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
        generated: how many tokens were generated, where the backend tells no ids.
        refusal: what an endpoint said in place of a response; empty where it responded.
    """

    request: int
    index: int
    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    hit_limit: bool
    logps: tuple[float, ...] = ()
    generated: int = 0
    refusal: str = ""

    @property
    def tokens(self) -> int:
        """Generated tokens, the end token included where the backend tells ids."""
        return len(self.token_ids) or self.generated


@dataclass
class Usage:
    """What asking an endpoint took since its model was loaded.

    Attributes:
        calls: requests made, retries included.
        retries: requests made because one before failed.
        stored: responses that were stored already; they cost nothing.
        prompt_tokens: tokens of the prompts, as the endpoint counts them.
        tokens: generated tokens, as the endpoint counts them.
        price: in dollars; None where the prices are not known.
        replaced: characters of the responses that were no Unicode.
    """

    calls: int = 0
    retries: int = 0
    stored: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    price: float | None = None
    replaced: int = 0

    def since(self, before: Usage) -> Usage:
        """What came on top of an earlier state."""
        return Usage(
            self.calls - before.calls,
            self.retries - before.retries,
            self.stored - before.stored,
            self.prompt_tokens - before.prompt_tokens,
            self.tokens - before.tokens,
            None if self.price is None else self.price - (before.price or 0.0),
            self.replaced - before.replaced,
        )

    def words(self) -> str:
        """The totals in a few words; empty where nothing was asked and nothing was stored."""
        parts = []
        if self.calls:
            parts = [f"{self.calls:,} calls", f"{self.prompt_tokens:,} + {self.tokens:,} tokens"]
        if self.retries:
            parts.insert(1, f"{self.retries:,} retries")
        if self.stored:
            parts.append(f"{self.stored:,} stored")
        if self.replaced:
            parts.append(f"{self.replaced:,} characters replaced")
        if self.price is not None and self.calls:
            parts.append(f"${self.price:,.2f}" if self.price >= 0.1 else f"${self.price:.4f}")
        return ", ".join(parts)


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
