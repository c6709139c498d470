"""Models that the engine does not fit, decoded by ``transformers.generate`` with the engine's own sampling.

``generate`` runs the forward passes and keeps the cache, whatever that is; our logits processor draws each token, so
that streams and log-probabilities are the engine's. Prompts of one length go together: no padding, which not every
recurrent model takes. Nothing is refilled, and a batch runs until its longest sample ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dereason.lm.local.sampling import Draw, Drawn


def generate_samples(
    model: Any,
    draw: Draw,
    n: int,
    limits: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    pad_id: int,
    batch_size: int,
) -> Iterator[tuple[int, list[Drawn]]]:
    """What :func:`dereason.lm.local.engine.stream` yields, by ``generate``."""
    prompts = draw.prompts
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    done: dict[int, list[Drawn]] = defaultdict(list)
    for _, members in sorted(by_length.items()):
        sequences = [(i, j) for i in members for j in range(n)]
        for start in range(0, len(sequences), batch_size):
            batch = sequences[start : start + batch_size]
            longest = max(limits[i][j] for i, j in batch)
            streams = np.stack([draw.stream(i, j, longest) for i, j in batch])
            rows = [prompts[i] for i, _ in batch]
            drawn = _generate(model, rows, draw, streams, longest, stop_ids, pad_id)
            for (i, j), sample in zip(batch, drawn, strict=True):
                done[i].append(Drawn(sample.ids[: limits[i][j]], sample.logps[: limits[i][j]]))
                if len(done[i]) == n:
                    yield i, done.pop(i)


def _generate(
    model: Any,
    rows: list[Sequence[int]],
    draw: Draw,
    streams: np.ndarray,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
) -> list[Drawn]:
    import torch
    from transformers import GenerationConfig

    columns: list[tuple[list[int], list[float]]] = []

    def next_column(_: Any, logits: Any) -> Any:
        numbers = streams[:, len(columns)].tolist() if streams.size else ()
        columns.append(draw.tokens(logits, numbers))
        tokens = torch.tensor(columns[-1][0], device=logits.device)
        return torch.full_like(logits, -torch.inf).scatter_(1, tokens[:, None], 0.0)  # generate takes the arg max

    ids = torch.tensor([list(r) for r in rows], device=model.device)
    # The model's own configuration may carry penalties and bans, which would be applied to the logits first.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            logits_processor=[next_column],
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=pad_id,
        )
    finally:
        model.generation_config = own
    samples = []
    for row in range(len(rows)):
        tokens = [column[0][row] for column in columns]
        length = next((k + 1 for k, t in enumerate(tokens) if t in stop_ids), len(tokens))
        samples.append(Drawn(tokens[:length], [column[1][row] for column in columns[:length]]))
    return samples
