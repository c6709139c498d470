"""How long prompts are in a model's own tokens, without encoding all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dereason.content import files_digest, remembered
from dereason.lm.base import Message
from dereason.lm.local.context import local_folder
from dereason.lm.rendering import chat_ids

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


def longest_prompt(
    settings: ModelSettings, name: str, make: Callable[[], Sequence[Sequence[Message]]], kwargs: Mapping[str, Any]
) -> int | None:
    """Tokens of the longest of some chats; None where the model's tokenizer is not on this machine, or there are none.

    A token is a byte of the text or more (ours: what a tokenizer's normaliser may add is passed over), so chats are
    encoded from the longest text on, until none can have more tokens than were seen. The answer is kept.

    Args:
        settings: of the model.
        name: tells the chats from all others: while it is the same, so is the answer.
        make: makes the chats, up to the user's message; not called where the answer is known.
        kwargs: extra arguments of the chat template.

    Raises:
        DereasonError: the tokenizer or its template cannot be used.
    """
    from dereason.lm.local.model import load_tokenizer, loaded_files

    folder = local_folder(settings)
    if folder is None or settings.backend == "api":
        return None
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        return None
    files = [file for file in loaded_files(folder) if file.suffix not in _WEIGHTS]

    def look() -> dict[str, Any] | None:
        chats = make()
        if not chats:
            return None
        tokenizer = load_tokenizer(settings.model_copy(update={"name": str(folder), "revision": None}))
        sizes = [sum(len(message["content"].encode(errors="replace")) for message in chat) for chat in chats]
        empty: list[Message] = [{"role": message["role"], "content": ""} for message in chats[0]]
        best = spare = len(chat_ids(tokenizer, empty, kwargs, reply_follows=True))  # what the template adds
        for at in sorted(range(len(chats)), key=lambda i: (-sizes[i], i)):
            if sizes[at] + spare <= best:
                break
            best = max(best, len(chat_ids(tokenizer, chats[at], kwargs, reply_follows=True)))
        return {"tokens": best}

    found = remembered(f"longest {files_digest(files, folder)} {sorted(kwargs.items())} {name}", look)
    return None if found is None else int(found["tokens"])
