"""What a model thinks aloud, and what its chat template writes of that: targets that fit to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.base import Message
from dereason.lm.rendering import chat_text
from dereason.lm.tags import TAG

_QUESTION = "What is 5 + 7?"


def before_reply(tokenizer: Any, kwargs: Mapping[str, Any]) -> str:
    """What the chat template writes between the user's message and the reply."""
    chat: list[Message] = [{"role": "user", "content": _QUESTION}]
    return chat_text(tokenizer, chat, kwargs).rpartition(_QUESTION)[2]


def opens_thought(tokenizer: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the chat template opens a thought before the reply, which then begins inside it."""
    return _is_open(before_reply(tokenizer, kwargs))


def fit_thoughts(before: str, reply: str) -> str:
    """A reply that goes on from what the template writes before it: every thought opened once and closed.

    A second opening tag is taken away where the template has opened the thought already, and one is put in front of
    a thought that is only closed.

    Args:
        before: see :func:`before_reply`.
        reply: a target.

    Raises:
        DereasonError: a thought that the target or the template opens and the target does not close; or one in the
            target where the template has closed one already.
    """
    if _is_open(reply):
        raise DereasonError("the target opens a thought and does not close it", "leave it out: it was cut short")
    tags = list(TAG.finditer(reply))
    if _is_open(before):
        if not tags:
            raise DereasonError(
                "the chat template opens a thought before the reply, and the target does not close it",
                "take targets that think aloud, or have the template open no thought (prompt.chat_template_kwargs, "
                "for example enable_thinking: false)",
            )
        first = tags[0]
        if first["opening"] and not reply[: first.start()].strip():
            rest = reply[first.end() :]
            return rest.removeprefix("\n") if before.endswith("\n") else rest
        return reply
    if tags and TAG.search(before):
        raise DereasonError(
            "the target thinks aloud, and the chat template has closed a thought before the reply already",
            "set targets.thoughts=drop, or have the template close no thought (prompt.chat_template_kwargs)",
        )
    # a channel may begin without one; another tag was opened by the template of the model that wrote the target
    if tags and not tags[0]["opening"] and not tags[0].group().startswith("<|channel|>"):
        opening = tags[0].group().replace("/", "", 1).replace("end_of", "begin_of")
        return f"{opening}\n{reply}"
    return reply


def _is_open(text: str) -> bool:
    """Whether the last tag opens a thought."""
    tags = list(TAG.finditer(text))
    return bool(tags) and tags[-1]["opening"] is not None
