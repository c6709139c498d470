"""How long a text a model takes, prompt and response together, by its configuration alone.

Rotary positions do not end, but training did: what lies beyond ``max_position_embeddings`` the model has never seen,
and its answers there measure nothing. Scaling moves that end in ways that differ by kind: :func:`trained_positions`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dereason.errors import DereasonError
from dereason.lm import embedded
from dereason.lm.local.adapter import adapter_base

if TYPE_CHECKING:
    from dereason.lm.local.model import ModelSettings

_MULTIPLIED = ("linear", "dynamic", "ntk")
"""Kinds of rope scaling whose ``max_position_embeddings`` is the length before scaling. That of ``llama3`` and
``longrope``, and of a configuration with a kind for each sort of layer (Gemma 3), is the length after it."""

LONGEST_TARGET = 4096
"""Longest prompt + target in tokens where neither the settings nor the model say less."""


@dataclass(frozen=True)
class Context:
    """The room for one text.

    Attributes:
        tokens: how many tokens fit, prompt and response together.
        words: where the number is from, to follow "the model has".
    """

    tokens: int
    words: str


def trained_positions(config: Any) -> int | None:
    """Positions that a transformers configuration promises, rope scaling included; None where there is no such end.

    ``yarn``: factor × the original length; ``linear`` and ``dynamic``: factor × ``max_position_embeddings``; every
    other kind: ``max_position_embeddings``, which there counts the scaled positions. ALiBi and recurrent models have
    no end.
    """
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or getattr(text, "alibi", False):
        return None
    rope = getattr(text, "rope_parameters", None)
    rope = rope if isinstance(rope, Mapping) else {}
    kind, factor = rope.get("rope_type", "default"), rope.get("factor")
    if not isinstance(factor, int | float) or factor <= 1:
        return limit
    if kind == "yarn":
        return max(limit, int(factor * (rope.get("original_max_position_embeddings") or limit)))
    return int(factor * limit) if kind in _MULTIPLIED else limit


def context_of(settings: ModelSettings, trained: int | None, table: int | None = None) -> Context | None:
    """The room that a model has for a text; None where nothing is known to end it.

    Args:
        settings: ``max_positions`` in them takes the configuration's place; vLLM's own limit lowers both.
        trained: see :func:`trained_positions`.
        table: size of a learned table of positions, which no setting can exceed.
    """
    room = None if trained is None else Context(trained, f"positions for {trained} tokens by its configuration")
    if settings.max_positions is not None:
        room = Context(settings.max_positions, f"room for {settings.max_positions} tokens by model.max_positions")
    if table is not None and (room is None or table <= room.tokens):
        room = Context(table, f"a table of {table} positions")
    served = settings.vllm.max_length if settings.backend == "vllm" else None
    if served is not None and (room is None or served < room.tokens):
        room = Context(served, f"room for {served} tokens by vllm.max_length")
    return room


def config_of(settings: ModelSettings) -> Any:
    """A model's transformers configuration, from this machine alone; None where it is not here or cannot be read.

    That of the embedded model comes from its package, even before the model was ever used; a hub model's from the hub's
    cache, and else from ``model.config``. An endpoint's model has none here.
    """
    from transformers import AutoConfig

    if settings.backend == "api":
        return None
    try:
        if settings.name == embedded.NAME:
            converted, package = embedded.converted_path(), embedded.gguf_path()
            if (converted / "config.json").is_file():
                return AutoConfig.from_pretrained(converted)
            return package and AutoConfig.from_pretrained(str(package.parent), gguf_file=package.name)
        if (base := adapter_base(settings)) is not None:
            return config_of(base)
        folder = local_folder(settings)
        if folder is not None:
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return None if settings.config is None else AutoConfig.for_model(**settings.config)
    except DereasonError:
        raise
    except Exception:  # files that a library cannot use: loading the model says which
        return None


def local_folder(settings: ModelSettings) -> Path | None:
    """The folder of a model's files on this machine, its own or the one in the hub's cache; None without one."""
    if settings.name == embedded.NAME:
        return embedded.converted_path() if (embedded.converted_path() / "config.json").is_file() else None
    if os.path.isdir(settings.name):
        return Path(settings.name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(settings.name, "config.json", revision=settings.revision or "main")
    except HFValidationError:  # neither a folder nor a hub id
        return None
    return Path(found).parent if isinstance(found, str) else None


def longest_target(max_length: int | None, context: Context | None) -> int:
    """The longest prompt + target that a phase takes: its own limit, or the default within the model's context."""
    if max_length is not None:
        return max_length
    return LONGEST_TARGET if context is None else min(LONGEST_TARGET, context.tokens)


def fetch_config(settings: ModelSettings) -> None:
    """Have a hub model's configuration in the hub's cache, so that its context is known before the model is loaded."""
    if settings.backend == "api" or settings.name == embedded.NAME or local_folder(settings) is not None:
        return
    from huggingface_hub import hf_hub_download

    with contextlib.suppress(Exception):  # without network, or no such model: loading it says which
        hf_hub_download(settings.name, "config.json", revision=settings.revision or "main")
