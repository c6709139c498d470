"""Decoding in process, for machines without vLLM.

What is done: the tokens that all prompts of a batch share (system message, rubric) are run once; each
prompt is run once for all its n samples; finished sequences leave the batch at once; sampling is inverse-CDF
with one uniform number per token, drawn from a stream that belongs to the sample (seed, prompt, index), so
that a sample does not depend on its neighbours in the batch beyond floating point rounding.

What is left out: a static cache, refilling freed places with waiting prompts, CUDA graphs.

Shape legend: P prompts of a batch, B = rows still decoding (at first P·n), L prompt length, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_MIN_SHARED = 8  # a shared prefix shorter than this is not worth its own forward pass


def uniforms(prompt_ids: Sequence[int], index: int, seed: int, length: int) -> np.ndarray:
    """The sample's own stream of uniform numbers in [0, 1), shape (length,), float64."""
    digest = hashlib.sha256(np.asarray([seed, index, *prompt_ids], dtype=np.int64).tobytes()).digest()
    key = np.frombuffer(digest[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(length)


def plan_batches(lengths: Sequence[int], n: int, batch_size: int) -> list[list[int]]:
    """Prompts grouped into batches of about ``batch_size`` sequences, shortest prompts first."""
    per_batch = max(1, batch_size // max(1, n))
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    return [order[i : i + per_batch] for i in range(0, len(order), per_batch)]


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all prompts share, at least one token of each prompt left over."""
    low, high = min(map(list, prompts)), max(map(list, prompts))  # lexicographic extremes share what all share
    limit = min(len(p) for p in prompts) - 1
    count = 0
    while count < limit and low[count] == high[count]:
        count += 1
    return count if len(prompts) > 1 and count >= _MIN_SHARED else 0


def prefill(model: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Any, Any, Any, Any]:
    """Run the prompts, the part that all share only once.

    Returns:
        cache of P rows; logits at each prompt's end (P, V); attention mask (P, L); next positions (P,).
    """
    import torch
    from transformers import DynamicCache

    device = model.device
    cache = DynamicCache(config=model.config)
    shared = shared_prefix(prompts)
    rows = len(prompts)
    if shared:
        head = torch.tensor([list(prompts[0][:shared])], device=device)
        model(input_ids=head, past_key_values=cache, use_cache=True, logits_to_keep=1)
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
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask,
        position_ids=positions.to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return cache, logits, mask, (positions[:, -1] + 1).to(device)


def sample_tokens(logits_BV: torch.Tensor, temperature: float, uniform_B: torch.Tensor) -> torch.Tensor:
    """Next tokens (B,): arg max at temperature 0, else inverse-CDF sampling with the given uniforms."""
    import torch

    if temperature == 0:
        return logits_BV.argmax(-1)
    cdf_BV = torch.softmax(logits_BV.float() / temperature, dim=-1).cumsum(-1, dtype=torch.float64)
    picks = torch.searchsorted(cdf_BV, (uniform_B * cdf_BV[:, -1]).unsqueeze(1), right=True).squeeze(1)
    return picks.clamp(max=logits_BV.size(-1) - 1)


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    temperature: float,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    seed: int,
) -> list[list[list[int]]]:
    """Draw n continuations of each prompt of one batch.

    Returns:
        token ids [prompt][sample][token]; the stop token is kept, nothing follows it.
    """
    import torch

    with torch.inference_mode():
        cache, logits_PV, mask, positions = prefill(model, prompts, pad_id)
        device = logits_PV.device
        if n > 1:
            cache.batch_repeat_interleave(n)
        logits = logits_PV.repeat_interleave(n, 0)
        mask = mask.repeat_interleave(n, 0)
        positions = positions.repeat_interleave(n, 0)
        rows = len(prompts) * n
        streams = torch.zeros((rows, 0), dtype=torch.float64)
        if temperature:
            streams = torch.from_numpy(
                np.stack([uniforms(p, j, seed, max_new_tokens) for p in prompts for j in range(n)])
            ).to(device)
        stops = torch.tensor(list(stop_ids), device=device)
        out = torch.full((rows, max_new_tokens), -1, device=device)
        alive = torch.arange(rows, device=device)
        for step in range(max_new_tokens):
            uniform = streams[alive, step] if temperature else streams
            tokens = sample_tokens(logits, temperature, uniform)
            out[alive, step] = tokens
            going = ~torch.isin(tokens, stops)
            if step + 1 == max_new_tokens or not bool(going.any()):
                break
            if not bool(going.all()):
                keep = going.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                alive, tokens, mask, positions = alive[keep], tokens[keep], mask[keep], positions[keep]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = model(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            positions = positions + 1
    ids = [[t for t in row if t >= 0] for row in out.tolist()]
    return [ids[i * n : (i + 1) * n] for i in range(len(prompts))]
