"""Which storage decodes a model, found out by trying.

The engine needs a cache of keys and values of each token, and logits that do not change when it is laid out in the
engine's way. The first is read from the model's configuration; the second is tried once a model, on a few tokens,
against a plain forward pass, both in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dereason.lm.local.exact import in_float32
from dereason.lm.local.prefill import forward, prefill, sliding_layers, unusual_cache

if TYPE_CHECKING:
    from dereason.lm.local.places import PlaceCache

_log = logging.getLogger(__name__)
_known: WeakKeyDictionary[Any, type[PlaceCache] | None] = WeakKeyDictionary()


def cache_for(model: Any, prompt: Sequence[int], pad_id: int, places: int) -> PlaceCache | None:
    """An empty cache of ``places`` sequences for a model; None where ``generate`` has to decode it.

    The first call for a model runs a few tokens of ``prompt`` through it, and logs a warning if the answer is None.
    """
    if model not in _known:
        _known[model] = _choose(model, prompt, pad_id)
    kind = _known[model]
    return None if kind is None else kind(model, sliding_layers(model), places)


def _choose(model: Any, prompt: Sequence[int], pad_id: int) -> type[PlaceCache] | None:
    from dereason.lm.local.grouped import GroupedCache
    from dereason.lm.local.places import PlaceCache

    reason = unusual_cache(model)
    if reason is None:
        plain_attention = model.config.get_text_config(decoder=True)._attn_implementation in ("sdpa", "eager")
        if plain_attention and not any(sliding_layers(model)):
            reason = _trial(model, GroupedCache, prompt, pad_id)
            if reason is None:
                return GroupedCache
        reason = _trial(model, PlaceCache, prompt, pad_id)
        if reason is None:
            return PlaceCache
    _log.warning(
        "%s is decoded by transformers.generate, several times slower than by dereason's engine: %s",
        type(model).__name__,
        reason,
    )
    return None


def _trial(model: Any, kind: type[PlaceCache], prompt: Sequence[int], pad_id: int) -> str | None:
    """Why not: two rows of unlike lengths, one token decoded, against a plain forward pass without cache."""
    import torch

    with torch.inference_mode(False), torch.no_grad(), in_float32(model) as exact:
        try:
            gap = _trial_gap(model, kind, prompt, pad_id)
        except Exception as exc:  # whatever a model does with a cache that it does not know
            return f"a trial run failed with {type(exc).__name__}: {exc}"
    # float32 and better differ by rounding; of quantised weights no more is asked than to be recognisable
    bound = 1e-3 if exact else 0.1
    return None if gap < bound else f"in a trial run its logits differed from a plain forward pass by {gap:.0%}"


def _trial_gap(model: Any, kind: type[PlaceCache], prompt: Sequence[int], pad_id: int) -> float:
    """Largest difference of the logits, as a share of the largest logit."""
    import torch

    ids = (list(prompt) * 6)[:6]
    rows = [ids, ids[2:5]]
    device = model.device
    cache = kind(model, sliding_layers(model), 2)
    for row, tokens in enumerate(rows):
        prefilled, _, _, _ = prefill(model, [tokens[:-1]], pad_id)
        if row == 0:
            cache.allocate(prefilled, len(ids), None, 0)
        cache.seat([row], row, prefilled, 0, len(tokens) - 1, 0)
    cache.next_column()
    mask, positions = cache.mask_and_positions(device)
    with cache.attending():
        got = forward(
            model,
            cache,
            input_ids=torch.tensor([[r[-1]] for r in rows], device=device),
            attention_mask=mask,
            position_ids=positions,
        )[:, -1]
    plain = torch.cat([model(input_ids=torch.tensor([r], device=device)).logits[:, -1] for r in rows])
    return float((got - plain).abs().max() / plain.abs().max())
