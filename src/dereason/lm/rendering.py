"""A chat through a tokenizer's own template. The template is the user's, and so are the errors that it ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dereason.errors import DereasonError
from dereason.lm.base import Message

_OURS = {"conversation", "chat_template", "tokenize", "return_dict", "return_tensors", "add_generation_prompt"}


def chat_ids(
    tokenizer: Any, chat: Sequence[Message], kwargs: Mapping[str, Any], *, reply_follows: bool = False
) -> list[int]:
    """Token ids of a chat.

    Args:
        tokenizer: with a chat template.
        chat: the messages.
        kwargs: extra arguments of the template.
        reply_follows: whether what begins the assistant's reply is put at the end.

    Returns:
        the ids, at least one.

    Raises:
        DereasonError: the template refuses the chat, fails, or makes nothing of it.
    """
    encoded = _apply(tokenizer, chat, kwargs, tokenize=True, return_dict=True, add_generation_prompt=reply_follows)
    ids = list(encoded["input_ids"])
    if not ids:
        raise DereasonError(f"{_template_of(tokenizer)} makes nothing of a chat", "give the tokenizer a chat template")
    return ids


def chat_text(tokenizer: Any, chat: Sequence[Message], kwargs: Mapping[str, Any], *, reply_follows: bool = True) -> str:
    """The text of a chat, as a rule up to where the assistant's reply begins; see :func:`chat_ids`."""
    return str(_apply(tokenizer, chat, kwargs, tokenize=False, add_generation_prompt=reply_follows))


def _apply(tokenizer: Any, chat: Sequence[Message], kwargs: Mapping[str, Any], **how: Any) -> Any:
    if taken := sorted(_OURS & kwargs.keys()):
        raise DereasonError(
            f"prompt.chat_template_kwargs has {', '.join(taken)}, which dereason sets itself",
            "leave it out: these are arguments for the template alone",
        )
    try:
        return tokenizer.apply_chat_template(list(chat), **how, **kwargs)
    except Exception as exc:  # a template is a program that came with the model
        words = str(exc).strip().splitlines() or [type(exc).__name__]
        line = getattr(exc, "lineno", None)  # jinja's syntax errors
        where = f" (line {line} of it)" if line else ""
        asks_system = any(message["role"] == "system" for message in chat)
        raise DereasonError(
            f"{_template_of(tokenizer)} cannot render a chat of {', '.join(m['role'] for m in chat)}: "
            f"{words[0]}{where}",
            "leave out the system message (prompt.system: null) if the template takes none, or mend the template"
            if asks_system and not line
            else "mend the template, or see what it wants in prompt.chat_template_kwargs",
        ) from exc


def _template_of(tokenizer: Any) -> str:
    return f"the chat template of {getattr(tokenizer, 'name_or_path', '') or 'the tokenizer'}"
