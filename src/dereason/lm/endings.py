"""Which tokens end a response: the model's end tokens, and the one that its chat template writes behind a reply.

Many base models have an end token of texts (``<|endoftext|>``) and a chat template that ends a turn with another one
(``<|im_end|>``). What SFT teaches is the template's: a sampler that knows only the first never sees a response end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dereason.lm.base import Message
from dereason.lm.rendering import chat_ids

_REPLIES = ("It is 12", "I do not know")  # they end in different tokens, whatever the vocabulary


def reply_end(tokenizer: Any, kwargs: Mapping[str, Any]) -> int | None:
    """The token that the chat template writes behind a reply.

    The first one there that stands for itself in the vocabulary (an added token, an end token); text between it and
    the reply, such as a line end, is passed over.

    Args:
        tokenizer: with or without a chat template.
        kwargs: extra arguments of the chat template.

    Returns:
        its id; None where the template writes nothing of the kind behind a reply.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    question: Message = {"role": "user", "content": "What is 5 + 7?"}
    first, second = (
        chat_ids(tokenizer, [question, {"role": "assistant", "content": reply}], kwargs) for reply in _REPLIES
    )
    if first == second:  # the template leaves replies out
        return None
    behind = 0
    while behind < min(len(first), len(second)) and first[-1 - behind] == second[-1 - behind]:
        behind += 1
    special, added = set(tokenizer.all_special_ids), tokenizer.added_tokens_decoder
    for token in first[len(first) - behind :]:
        # some vocabularies add white space and tags of HTML; no template ends a turn with the first
        if token in special or (token in added and str(added[token]).strip()):
            return int(token)
    return None


def stop_ids(generation: Any, tokenizer: Any, kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Token ids that end a response.

    They are the tokenizer's end token, all that the generation config names, and the one that the chat template writes
    behind a reply.

    Args:
        generation: the model's generation config.
        tokenizer: of the model.
        kwargs: extra arguments of the chat template.

    Returns:
        the ids, in order.
    """
    configured = generation.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return tuple(sorted({tokenizer.eos_token_id, *listed, reply_end(tokenizer, kwargs)} - {None}))


def reply_text(tokenizer: Any, ids: Sequence[int], stops: Collection[int]) -> str:
    """The text of a generated response, without special tokens and without the one that ended it."""
    return str(tokenizer.decode(without_end(ids, stops), skip_special_tokens=True))


def without_end(ids: Sequence[int], stops: Collection[int]) -> Sequence[int]:
    """A generated response without the token that ended it, which need not be marked as special."""
    return ids[:-1] if ids and ids[-1] in stops else ids
