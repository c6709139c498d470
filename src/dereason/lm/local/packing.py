"""Which rows of an optimiser step go through the model together.

Rows of one group have the same prompt. Where the model's attention can be masked freely, the prompt is run once for
several of them, their responses side by side behind it, none seeing another (a *segment*); elsewhere each row is a
segment of its own. Segments of similar length make a micro-batch. The loss has the whole step's normaliser, so that
nothing here changes it beyond rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One prompt with one response, as token ids.

    Attributes:
        prompt: carries no loss; at least one token.
        response: each of its tokens may carry loss; at least one token.
        group: rows with the same number have the same prompt.
    """

    prompt: Sequence[int]
    response: Sequence[int]
    group: int = -1


@dataclass(frozen=True)
class Segment:
    """Rows run as one sequence: their prompt once, then their responses.

    Attributes:
        rows: indices of rows, all of one group.
        length: tokens of the sequence.
        responses: tokens of the responses.
    """

    rows: tuple[int, ...]
    length: int
    responses: int


def plan_micro_batches(
    rows: Sequence[Row],
    members: Sequence[int],
    *,
    micro_batch: int,
    pair_cost: float | None,
    tokens: int | None = None,
    edge: int | None = None,
) -> list[list[Segment]]:
    """Rows in micro-batches of segments of similar length, the longest first.

    A micro-batch takes no more padded tokens, and no more response tokens (whose logits cost memory), than
    ``micro_batch`` rows of the longest lengths would: the memory that ``micro_batch`` stands for is not exceeded.

    Args:
        rows: all rows of the optimiser step.
        members: indices of the rows that are run.
        micro_batch: rows of a micro-batch of the longest rows.
        pair_cost: what a pair of positions costs in attention, as a share of what a token costs elsewhere; decides
            how many responses share one prompt (every pair of positions is computed, masked or not). None: every row
            is a segment of its own.
        tokens: a micro-batch of several segments takes no more padded tokens than this either; None sets no such limit.
        edge: a row of more tokens is run alone (:func:`~dereason.lm.local.rope.rope_edge`); None: none is.
    """
    if not members:
        return []
    token_budget = micro_batch * max(len(rows[i].prompt) + len(rows[i].response) for i in members)
    token_budget = min(token_budget, tokens or token_budget)
    response_budget = micro_batch * max(len(rows[i].response) for i in members)
    alone = [i for i in members if edge is not None and len(rows[i].prompt) + len(rows[i].response) > edge]
    segments: list[Segment] = []
    for group in _groups(rows, [i for i in members if i not in set(alone)]):
        prompt = len(rows[group[0]].prompt)
        responses = [len(rows[i].response) for i in group]
        most = 1 if pair_cost is None else min(micro_batch, len(group))
        size = min(range(1, most + 1), key=lambda k: (_cost(prompt, responses, k, pair_cost or 0.0), k))
        for chunk in _chunks(group, size):
            count = sum(len(rows[i].response) for i in chunk)
            segments.append(Segment(tuple(chunk), prompt + count, count))
    batches: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda s: (-s.length, s.rows)):
        if batches:
            longest, filled = batches[-1][0].length, sum(s.responses for s in batches[-1])
            if longest * (len(batches[-1]) + 1) <= token_budget and filled + segment.responses <= response_budget:
                batches[-1].append(segment)
                continue
        batches.append([segment])
    single = [Segment((i,), len(rows[i].prompt) + len(rows[i].response), len(rows[i].response)) for i in alone]
    return [*([segment] for segment in sorted(single, key=lambda s: (-s.length, s.rows))), *batches]


def _groups(rows: Sequence[Row], members: Sequence[int]) -> list[list[int]]:
    """Members with the same group side by side, the longest response first; without a group, alone."""
    found: dict[tuple[int, int], list[int]] = {}
    for i in members:
        found.setdefault((0, rows[i].group) if rows[i].group >= 0 else (1, i), []).append(i)
    return [sorted(group, key=lambda i: (-len(rows[i].response), i)) for group in found.values()]


def _chunks(group: list[int], size: int) -> list[list[int]]:
    """The group in as few chunks as hold ``size`` rows, evenly filled."""
    count = math.ceil(len(group) / size)
    return [group[k::count] for k in range(count)]


def _cost(prompt: int, responses: list[int], size: int, pair_cost: float) -> float:
    count = math.ceil(len(responses) / size)
    length = prompt + sum(responses) / count
    return count * (length + pair_cost * length**2)


@dataclass(frozen=True)
class Batch:
    """A micro-batch as tensors. B segments of at most T tokens; N response tokens, row after row.

    Attributes:
        rows: indices of the rows, in the order of their tokens.
        lengths: response tokens of each.
        input_ids: (B, T), padded on the right.
        visible: (B, T, T) bool, key positions that a query sees; None where plain causal attention is right.
        position_ids: (B, T); None where positions are 0..T-1.
        attention_mask: (B, T), 0 on padding.
        predictors: (N,) flat positions b * T + t whose output predicts each response token.
        targets: (N,) the response tokens.
        row: (N,) number of each token's row in this micro-batch, 0..len(rows)-1.
        tokens: input tokens, padding left out.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    input_ids: Tensor
    visible: Tensor | None
    position_ids: Tensor | None
    attention_mask: Tensor
    predictors: Tensor
    targets: Tensor
    row: Tensor
    tokens: int


def make_batch(rows: Sequence[Row], segments: Sequence[Segment], *, pad_id: int, device: object = "cpu") -> Batch:
    """The tensors of one micro-batch."""
    import torch

    width = max(s.length for s in segments)
    shared = any(len(s.rows) > 1 for s in segments)
    ids = torch.full((len(segments), width), pad_id)
    mask = torch.zeros((len(segments), width), dtype=torch.long)
    positions = torch.zeros((len(segments), width), dtype=torch.long)
    owner = torch.full((len(segments), width), -1)  # 0 the prompt, k the k-th response, -1 padding
    predictors: list[int] = []
    targets: list[int] = []
    order: list[int] = []
    for b, segment in enumerate(segments):
        prompt = list(rows[segment.rows[0]].prompt)
        start = len(prompt)
        flat = prompt + [t for i in segment.rows for t in rows[i].response]
        ids[b, : len(flat)] = torch.tensor(flat)
        mask[b, : len(flat)] = 1
        positions[b, :start] = torch.arange(start)
        owner[b, :start] = 0
        for k, i in enumerate(segment.rows, 1):
            count = len(rows[i].response)
            positions[b, start : start + count] = len(prompt) + torch.arange(count)
            owner[b, start : start + count] = k
            predictors += [b * width + len(prompt) - 1, *range(b * width + start, b * width + start + count - 1)]
            targets += rows[i].response
            order.append(i)
            start += count
    visible = None
    if shared:
        earlier = torch.ones((width, width), dtype=torch.bool).tril()
        visible = earlier & ((owner[:, None, :] == owner[:, :, None]) | (owner[:, None, :] == 0))
    lengths = tuple(len(rows[i].response) for i in order)
    return Batch(
        rows=tuple(order),
        lengths=lengths,
        input_ids=ids.to(device),
        visible=None if visible is None else visible.to(device),
        position_ids=positions.to(device) if shared else None,
        attention_mask=mask.to(device),
        predictors=torch.tensor(predictors).to(device),
        targets=torch.tensor(targets).to(device),
        row=torch.repeat_interleave(torch.arange(len(order)), torch.tensor(lengths)).to(device),
        tokens=sum(s.length for s in segments),
    )
