"""What a model has room for: a row of its embedding for each token id, and a position for each token.

Rotary positions and ALiBi have no end. A learned table does, and so do sines that were computed once: what goes
beyond them is an index error in the middle of a run, on a GPU one that ends the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dereason.errors import DereasonError

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


def embedding_rows(model: Any) -> int:
    """How many token ids the model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])


def is_tight(model: Any, tokenizer: Any) -> bool:
    """Whether :func:`check_room` could refuse anything of what the tokenizer writes."""
    return len(tokenizer) > embedding_rows(model) or position_limit(model) is not None


def check_room(
    model: Any,
    tokenizer: Any,
    sequences: Sequence[Sequence[int]],
    name: str,
    *,
    new_tokens: int = 0,
    setting: str | None = None,
) -> None:
    """Refuse, before anything runs, token ids without an embedding and sequences beyond the last position.

    Args:
        model: a causal language model of transformers.
        tokenizer: what wrote the sequences.
        sequences: token ids.
        name: of the model, for the message.
        new_tokens: how many more may follow each sequence.
        setting: what bounds their length, or that of the new tokens; None: nothing does.

    Raises:
        DereasonError: there is such a sequence.
    """
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
    limit = position_limit(model)
    longest = max(map(len, sequences), default=0)
    if limit is not None and longest + new_tokens > limit:
        taken = f"{longest} tokens" if not new_tokens else f"a prompt of {longest} tokens and {new_tokens} new ones"
        fits = limit - longest if new_tokens else limit
        mend = f"set {setting}={fits} or less, " if setting and fits > 0 else ""
        raise DereasonError(
            f"{name} has a table of {limit} positions, and {taken} do not fit",
            f"{mend}leave out what is longer, or take a model with rotary positions",
        )
