"""What a model has room for: a row of its embedding for each token id, and a position for each token.

A learned table of positions ends, and so do sines that were computed once: what goes beyond them is an index error in
the middle of a run, on a GPU one that ends the process. Rotary positions go on beyond what the model was trained for
(:mod:`~dereason.lm.local.context`), and what it says there is of no use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dereason.errors import DereasonError
from dereason.lm.base import Message
from dereason.lm.local.context import Context, context_of, trained_positions
from dereason.lm.rendering import chat_ids

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

_SPARE = 2  # rows that some tables have in front of position 0 (OPT)


def position_limit(model: Any) -> int | None:
    """How many positions the model's table has; None where it needs no table."""
    import torch

    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if limit is None:
        return None
    sizes = range(limit, limit + _SPARE + 1)
    words = model.get_input_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and module is not words and module.num_embeddings in sizes:
            return int(limit)
        table = getattr(module, "embed_positions", None)  # GPT-J's and CodeGen's sines
        if isinstance(table, torch.Tensor) and name and table.size(0) in sizes:
            return int(limit)
    return None


def room_of(model: Any, settings: ModelSettings) -> Context | None:
    """The room that a loaded model has for a text; see :func:`~dereason.lm.local.context.context_of`."""
    return context_of(settings, trained_positions(model.config), position_limit(model))


def embedding_rows(model: Any) -> int:
    """How many token ids the model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])


def encode_long(
    model: Any,
    tokenizer: Any,
    chats: Mapping[str, Sequence[Message]],
    kwargs: Mapping[str, Any],
    settings: ModelSettings,
    *,
    new_tokens: int,
) -> dict[str, list[int]]:
    """Token ids of those chats that :func:`check_room` could refuse; short ones need not be encoded to be known short.

    Args:
        model: a causal language model of transformers.
        tokenizer: of the model.
        chats: by any name.
        kwargs: extra arguments of the chat template.
        settings: of the model.
        new_tokens: how many more may follow each.
    """
    room = room_of(model, settings)
    every = len(tokenizer) > embedding_rows(model)
    return {
        name: chat_ids(tokenizer, chat, kwargs, reply_follows=True)
        for name, chat in chats.items()
        if every or (room is not None and not surely_fits(chat, room.tokens - new_tokens))
    }


def surely_fits(chat: Sequence[Message], tokens: int) -> bool:
    """Whether a chat has no more tokens than this, whatever the tokenizer: half a token a byte and a template's own.

    A token is a byte or more; what a tokenizer's normaliser and a template add stays far below the other half.
    """
    return 2 * sum(len(message["content"].encode(errors="replace")) for message in chat) + 512 <= tokens


def check_room(
    model: Any,
    tokenizer: Any,
    sequences: Iterable[Sequence[int]],
    settings: ModelSettings,
    *,
    new_tokens: int = 0,
    setting: str | None = None,
) -> None:
    """Refuse, before anything runs, token ids without an embedding and sequences longer than the model's context.

    Args:
        model: a causal language model of transformers.
        tokenizer: what wrote the sequences.
        sequences: token ids.
        settings: of the model.
        new_tokens: how many more may follow each sequence.
        setting: what bounds their length, or that of the new tokens; None: nothing does.

    Raises:
        DereasonError: there is such a sequence.
    """
    sequences, name = list(sequences), settings.name
    rows = embedding_rows(model)
    if len(tokenizer) > rows:
        highest = max((max(ids) for ids in sequences if len(ids)), default=0)
        if highest >= rows:
            raise DereasonError(
                f"{name} has embeddings for {rows} tokens, and its tokenizer, which has {len(tokenizer)}, writes "
                f"{tokenizer.convert_ids_to_tokens(highest)!r} as number {highest}",
                "save the model again after model.resize_token_embeddings(len(tokenizer)), or put the tokenizer "
                "beside it that belongs to it",
            )
    check_length(name, room_of(model, settings), max(map(len, sequences), default=0), new_tokens, setting)


def check_length(
    name: str, room: Context | None, longest: int | None, new_tokens: int, setting: str | None, where: str = ""
) -> None:
    """Refuse a text that is longer than a model's context.

    Args:
        name: of the model.
        room: what it has; None: no end is known.
        longest: tokens of the longest prompt, or of the longest text; None: of an unknown prompt, one at least.
        new_tokens: how many may follow it.
        setting: see :func:`check_room`.
        where: what asks for it, for the message.

    Raises:
        DereasonError: it is longer.
    """
    known = 1 if longest is None else longest
    if room is None or known + new_tokens <= room.tokens:
        return
    taken = f"a prompt of {known} tokens and {new_tokens} new ones" if new_tokens else f"{known} tokens"
    if longest is None:
        taken = f"a prompt and {new_tokens} new tokens"
    fits = room.tokens - known if new_tokens else room.tokens
    lower = "less, with room for the prompt" if longest is None else "less"
    mend = f"set {setting}={fits} or {lower}, " if setting and fits > 0 else ""
    beyond = "or take a model with a longer context"
    if "table" not in room.words:
        beyond += " (model.max_positions, where the model is known to go further)"
    raise DereasonError(
        f"{name} has {room.words}, and {taken}{f' ({where})' if where else ''} do not fit",
        f"{mend}leave out what is longer, {beyond}",
    )
