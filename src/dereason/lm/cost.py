"""What asking a model will take, said before it is asked, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dereason.lm.api.model import ApiModel
from dereason.lm.api.reply import about_tokens
from dereason.lm.base import LanguageModel, Message, Sampling, Usage
from dereason.lm.chats import ChatModel


@dataclass(frozen=True)
class Estimate:
    """What asking will take. Stored responses are counted in ``responses`` and ``stored`` alone: they cost nothing.

    Attributes:
        responses: that are wanted.
        stored: of them, that need not be asked for.
        prompt_tokens: of the prompts that will be sent.
        max_new_tokens: that may be generated at most.
        price: in dollars, at most; None where the prices are not known.
        exact: whether ``prompt_tokens`` was counted with the model's tokenizer.
    """

    responses: int
    stored: int
    prompt_tokens: int
    max_new_tokens: int
    price: float | None
    exact: bool

    def words(self) -> str:
        """The estimate on one line."""
        if self.stored == self.responses:
            return f"{self.responses:,} responses, all stored"
        about = "" if self.exact else "about "
        text = f"{self.responses:,} responses" + (f" ({self.stored:,} stored)" if self.stored else "")
        text += f", {about}{self.prompt_tokens:,} prompt tokens, at most {self.max_new_tokens:,} generated"
        return text + (f"; at most {about}${self.price:,.2f}" if self.price is not None else "")


def estimate(lm: LanguageModel, chats: Sequence[Sequence[Message]], n: int, sampling: Sampling, seed: int) -> Estimate:
    """What n responses to each chat will take.

    For a model with a tokenizer here, prompt tokens are exact; for an endpoint they are a quarter of the text's bytes,
    counted once a response until the endpoint has given several choices for one prompt.

    Args:
        lm: the model that would be asked.
        chats: the prompts.
        n: responses to each.
        sampling: how they would be drawn.
        seed: of the sampling streams; with the rest it tells which are stored.
    """
    if isinstance(lm, ChatModel):
        lengths, missing, sent = [len(lm.encode(chat)) for chat in chats], [n] * len(chats), [1] * len(chats)
    else:
        lengths = [sum(about_tokens(message["content"]) for message in chat) for chat in chats]
        missing = lm.missing(chats, n, sampling, seed) if isinstance(lm, ApiModel) else [n] * len(chats)
        several = isinstance(lm, ApiModel) and lm.several and sampling.temperature != 0
        sent = [min(count, 1) if several else count for count in missing]
    prompt_tokens = sum(length * times for length, times in zip(lengths, sent, strict=True))
    tokens = sum(missing) * sampling.max_new_tokens
    return Estimate(
        responses=n * len(chats),
        stored=n * len(chats) - sum(missing),
        prompt_tokens=prompt_tokens,
        max_new_tokens=tokens,
        price=lm.settings.api.price(prompt_tokens, tokens) if isinstance(lm, ApiModel) else None,
        exact=isinstance(lm, ChatModel),
    )


def usage(lm: LanguageModel) -> Usage:
    """What asking a model took so far, as it stands now; nothing for a model that is no endpoint."""
    return replace(lm.usage) if isinstance(lm, ApiModel) else Usage()
