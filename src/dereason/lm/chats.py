"""What the backends that hold a tokenizer share: chats become token ids, drawn tokens become completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.base import Completion, Message, Sampling
from dereason.lm.endings import reply_text
from dereason.lm.local.engine import plan_batches
from dereason.lm.prompts import template_hash
from dereason.lm.rendering import chat_ids


class ChatModel:
    """The tokenizer's half of :class:`~dereason.lm.base.LanguageModel`."""

    def __init__(
        self, tokenizer: Any, stop_ids: tuple[int, ...], chat_template_kwargs: dict[str, Any] | None, identity: str
    ) -> None:
        """Keep what the methods below need.

        Args:
            tokenizer: of the model, with a chat template.
            stop_ids: token ids that end a response.
            chat_template_kwargs: extra arguments of the chat template.
            identity: see :class:`~dereason.lm.base.LanguageModel`.
        """
        self.tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._kwargs = dict(chat_template_kwargs or {})
        self._identity = identity

    @property
    def identity(self) -> str:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return self._identity

    def template_hash(self) -> str:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return template_hash(self.tokenizer, self._kwargs)

    def encode(self, chat: Sequence[Message]) -> list[int]:
        """Token ids of a chat, up to where the assistant's reply begins."""
        return chat_ids(self.tokenizer, chat, self._kwargs, reply_follows=True)

    def batches(self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling) -> int:
        """See :class:`~dereason.lm.base.LanguageModel`."""
        return len(plan_batches([0] * len(prompts), n, sampling.batch_size))

    def _temperature(self, sampling: Sampling) -> float:
        """The temperature, which a model here cannot choose itself."""
        if sampling.temperature is None:
            raise DereasonError(
                f"sampling.temperature is null, which leaves it to an endpoint, and {self.identity} is none",
                "set a number; 0 is greedy",
            )
        return sampling.temperature

    def _completion(
        self, request: int, index: int, ids: Sequence[int], logps: Sequence[float], prompt_tokens: int
    ) -> Completion:
        return Completion(
            request=request,
            index=index,
            text=reply_text(self.tokenizer, ids, self._stop_ids),
            token_ids=tuple(ids),
            prompt_tokens=prompt_tokens,
            hit_limit=ids[-1] not in self._stop_ids,
            logps=tuple(logps),
        )

    def _choice_ids(self, choices: Sequence[str]) -> list[int]:
        """The token id of each choice.

        Raises:
            DereasonError: a choice is not one token of this tokenizer, or two are the same token.
        """
        ids = [self.tokenizer.encode(c, add_special_tokens=False) for c in choices]
        if any(len(i) != 1 for i in ids) or len({i[0] for i in ids}) != len(ids):
            raise DereasonError(
                f"the tokenizer of {self.identity} does not write each of {', '.join(choices)} as one token",
                "use another judge model",
            )
        return [i[0] for i in ids]
