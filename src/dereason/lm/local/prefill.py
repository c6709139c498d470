"""Prompts run through a model: the tokens that all share once, then each prompt once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

_MIN_SHARED = 8  # a shared prefix shorter than this is not worth its own forward pass
_KINDS = {"full_attention", "sliding_attention"}
_known: dict[Any, frozenset[str]] = {}


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all prompts share, at least one token of each prompt left over."""
    low, high = min(map(list, prompts)), max(map(list, prompts))  # lexicographic extremes share what all share
    limit = min(len(p) for p in prompts) - 1
    count = 0
    while count < limit and low[count] == high[count]:
        count += 1
    return count if len(prompts) > 1 and count >= _MIN_SHARED else 0


def unusual_cache(model: Any) -> str | None:
    """Why the model's cache is not keys and values of each token in each layer; None where it is."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    if cache_argument(model) is None:
        return f"{type(model).__name__} takes no cache"
    kinds = set(get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))[0])
    if kinds <= _KINDS:
        return None
    return f"its cache has layers of kind {', '.join(sorted(kinds - _KINDS))}"


def sliding_layers(model: Any) -> list[bool]:
    """Of each layer of a usual cache, whether it takes the sliding-window mask."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    kinds, _ = get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))
    return [kind == "sliding_attention" for kind in kinds]


def shareable(model: Any, prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts share and that may be run once.

    None where a layer has a sliding window: padding lies between the shared tokens and the rest of shorter prompts,
    which would make the window shorter.
    """
    return 0 if unusual_cache(model) or any(sliding_layers(model)) else shared_prefix(prompts)


def takes_padding(model: Any) -> bool:
    """Whether prompts of different lengths can be run together and still give what each gives alone.

    Not with a sliding window, whose cache drops what lies before it, nor with eager attention, where a position that
    sees nothing is NaN in some precisions.
    """
    return model.config.get_text_config(decoder=True)._attn_implementation != "eager" and not any(sliding_layers(model))


def _inputs(model: Any) -> frozenset[str]:
    """Names of what the model's forward pass takes."""
    kind = type(model)
    if kind not in _known:
        _known[kind] = frozenset(inspect.signature(kind.forward).parameters)
    return _known[kind]


def cache_argument(model: Any) -> str | None:
    """The name under which a model takes a cache (transformers 5.24 changed it); None: it takes none."""
    return next((name for name in ("cache", "past_key_values") if name in _inputs(model)), None)


def forward(model: Any, cache: Any, *, last: bool = True, **inputs: Any) -> Any:
    """Logits of a forward pass behind a cache, which it extends.

    Args:
        model: a causal language model of transformers.
        cache: of the tokens before.
        last: whether the logits of the last position are enough, where the model can leave out the others.
        inputs: what else the model is given.

    Returns:
        logits (rows, positions, V).
    """
    return model(**inputs_behind(model, cache, **inputs, **({"logits_to_keep": 1} if last else {}))).logits


def inputs_behind(model: Any, cache: Any, **inputs: Any) -> dict[str, Any]:
    """What a model is called with behind a cache.

    Not every model takes a cache, ``position_ids`` (ALiBi) or ``logits_to_keep``: what it does not take is left out.
    """
    known = _inputs(model)
    inputs["use_cache"] = True
    if (name := cache_argument(model)) is not None:
        inputs[name] = cache
    return {name: value for name, value in inputs.items() if name in known}


def run_head(model: Any, head: Sequence[int]) -> Any:
    """A cache of one row that holds the tokens ``head``; nothing where that is none."""
    import torch
    from transformers import DynamicCache

    if not head:
        return None
    cache = DynamicCache(config=model.config)
    forward(model, cache, input_ids=torch.tensor([list(head)], device=model.device))
    return cache


def prefill(model: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Any, Any, Any, Any]:
    """Run the prompts, the part that all share only once.

    Args:
        model: a causal language model of transformers.
        prompts: token ids, none empty.
        pad_id: fills the left of shorter prompts; any token, it is masked.

    Returns:
        cache of P rows; logits at each prompt's end (P, V); attention mask (P, L); next positions (P,).
    """
    shared = shareable(model, prompts)
    return prefill_behind(model, run_head(model, prompts[0][:shared]), shared, prompts, pad_id)


def prefill_behind(
    model: Any, head: Any, shared: int, prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[Any, Any, Any, Any]:
    """The same, where the first ``shared`` tokens of the prompts have been run as ``head``, which stays as it is."""
    import torch
    from transformers import DynamicCache

    device = model.device
    rows = len(prompts)
    if head is None:
        cache = DynamicCache(config=model.config)
    else:
        cache = copy.deepcopy(head)
        cache.batch_repeat_interleave(rows)
    width = max(len(p) for p in prompts) - shared
    ids = torch.full((rows, width), pad_id)
    mask = torch.zeros((rows, shared + width), dtype=torch.long)
    mask[:, :shared] = 1
    for row, prompt in enumerate(prompts):
        tail = torch.tensor(prompt[shared:])
        ids[row, width - len(tail) :] = tail
        mask[row, shared + width - len(tail) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
    mask = mask.to(device)
    logits = forward(model, cache, input_ids=ids.to(device), attention_mask=mask, position_ids=positions.to(device))[
        :, -1
    ]
    return cache, logits, mask, (positions[:, -1] + 1).to(device)
