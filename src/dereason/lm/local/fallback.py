"""Models that the engine does not fit, decoded by ``transformers.generate`` with the engine's own sampling.

``generate`` runs the forward passes and keeps the cache, whatever that is; our logits processor draws each token, so
that streams and log-probabilities are the engine's. Prompts of similar length go together, padded on the left, where
a trial shows that the model leaves padding out of account (not every recurrent model does); elsewhere prompts of one
length. Nothing is refilled, and a batch runs until its longest sample ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from dereason.lm.local.exact import in_float32
from dereason.lm.local.sampling import Drawn, sample_tokens, uniforms

_padded: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def generate_samples(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    temperature: float,
    limits: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    pad_id: int,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[int, list[Drawn]]]:
    """What :func:`dereason.lm.local.engine.stream` yields, by ``generate``."""
    done: dict[int, list[Drawn]] = defaultdict(list)
    for members in _together(model, prompts, pad_id):
        sequences = [(i, j) for i in members for j in range(n)]
        for start in range(0, len(sequences), batch_size):
            batch = sequences[start : start + batch_size]
            longest = max(limits[i][j] for i, j in batch)
            streams = None
            if temperature:
                streams = np.stack([uniforms(prompts[i], j, seed, longest) for i, j in batch])
            rows = [prompts[i] for i, _ in batch]
            drawn = _generate(model, rows, streams, temperature, longest, stop_ids, pad_id)
            for (i, j), sample in zip(batch, drawn, strict=True):
                done[i].append(Drawn(sample.ids[: limits[i][j]], sample.logps[: limits[i][j]]))
                if len(done[i]) == n:
                    yield i, done.pop(i)


def _together(model: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> list[list[int]]:
    """Prompts that may share a batch, the shortest first."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    groups = [members for _, members in sorted(by_length.items())]
    if len(groups) > 1 and model not in _padded:
        _padded[model] = _takes_padding(model, prompts[groups[-1][0]], pad_id)
    if len(groups) > 1 and _padded[model]:
        return [[i for members in groups for i in members]]
    return groups


def _takes_padding(model: Any, prompt: Sequence[int], pad_id: int) -> bool:
    """Whether a short row beside a long one has the logits that it has alone, in float32, two tokens long."""
    import torch

    ids = (list(prompt) * 6)[:6]
    both, short = [ids, ids[2:5]], [ids[2:5]]
    try:
        with torch.inference_mode(False), torch.no_grad(), in_float32(model) as exact:
            masked, plain, unmasked = (
                _logits(model, rows, pad_id, mask)[:, -1] for rows, mask in ((both, True), (short, True), (both, False))
            )
    except Exception:  # whatever a model does with a mask that it does not know
        return False
    gap, contaminated = (float((x - plain).abs().max() / plain.abs().max()) for x in (masked, unmasked))
    return gap < min(1e-3 if exact else 0.1, contaminated / 10)


def _logits(model: Any, rows: list[list[int]], pad_id: int, masked: bool) -> Any:
    """Logits (2, rows, V) of two steps, both with token 1 for a next one, padding masked or not."""
    import torch

    seen: list[Any] = []

    def keep(_: Any, logits: Any) -> Any:
        seen.append(logits.clone())
        forced = torch.full_like(logits, -torch.inf)
        forced[:, 1] = 0.0
        return forced

    _run(model, rows, keep, 2, [], pad_id, masked=masked)
    return torch.stack(seen)


def _generate(
    model: Any,
    rows: list[Sequence[int]],
    streams: np.ndarray | None,
    temperature: float,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
) -> list[Drawn]:
    import torch

    columns: list[tuple[list[int], list[float]]] = []

    def draw(_: Any, logits: Any) -> Any:
        uniform = None if streams is None else torch.from_numpy(streams[:, len(columns)]).to(logits.device)
        tokens, logps = sample_tokens(logits, temperature, uniform)
        columns.append((tokens.tolist(), logps.tolist()))
        return torch.full_like(logits, -torch.inf).scatter_(1, tokens[:, None], 0.0)  # generate takes the arg max

    _run(model, rows, draw, max_new_tokens, stop_ids, pad_id)
    samples = []
    for row in range(len(rows)):
        tokens = [column[0][row] for column in columns]
        length = next((k + 1 for k, t in enumerate(tokens) if t in stop_ids), len(tokens))
        samples.append(Drawn(tokens[:length], [column[1][row] for column in columns[:length]]))
    return samples


def _run(
    model: Any,
    rows: Sequence[Sequence[int]],
    process: Any,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    *,
    masked: bool = True,
) -> None:
    """``generate``, the next token being the most probable one after ``process``."""
    import torch
    from transformers import GenerationConfig

    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(r)) + list(r) for r in rows], device=model.device)
    mask = torch.tensor([[1 - masked] * (width - len(r)) + [1] * len(r) for r in rows], device=model.device)
    # The model's own configuration may carry penalties and bans, which would be applied to the logits first.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.generate(
            ids,
            attention_mask=mask,
            logits_processor=[process],
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=pad_id,
        )
    finally:
        model.generation_config = own
