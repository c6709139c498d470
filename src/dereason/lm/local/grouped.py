"""Attention of decoding that reads a prompt's keys and values once for all its samples.

With n samples a prompt, plain attention reads the prompt's keys and values n times a step, a few query rows at a time.
Here a sequence is kept in three parts: the *head* that all prompts share (one copy), its *prompt* (one copy for all
its samples being decoded), and its *own* tokens (a place, as in :mod:`~dereason.lm.local.places`). Scores of the
three are joined before the softmax, so the result is plain attention's. It takes the place of a model's attention
function, by name, during the forward passes of decoding alone.

Shape legend: B rows, H key-value heads, Q query heads per key-value head, D head size, G prompts in use, M most rows
of one prompt, S head, L prompt and W own columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface

from dereason.lm.local.places import PlaceCache

_NAME = "dereason_grouped"
_active: list[GroupedCache] = []  # of the forward pass under way; transformers does not hand it to the function


class GroupedCache(PlaceCache):
    """Places for the samples' own tokens, slots for the prompts, one head. For models without sliding windows."""

    def __init__(self, model: Any, sliding: Sequence[bool], places: int) -> None:
        """See :class:`PlaceCache`."""
        super().__init__(model, sliding, places)
        self.config = model.config.get_text_config(decoder=True)
        self.slots: list[int] = []  # of each place in use
        self.names: dict[int, Any] = {}  # of each slot in use, its prompt
        self.lengths: dict[int, int] = {}  # and that prompt's tokens behind the head

    def allocate(self, example: Any, longest_prompt: int, head: Any, shared: int) -> None:
        """See :meth:`PlaceCache.allocate`."""
        super().allocate(example, 0, head, shared)
        self.shared = shared
        self.head = None if head is None else [(x.keys[0], x.values[0]) for x in head.layers]
        self.prompts = [
            [t.new_zeros((0, t.size(1), longest_prompt - shared, t.size(3))) for t in (x.keys, x.values)]
            for x in example.layers
        ]

    def seat(
        self, rows: Sequence[int], name: Any, prefilled: Any, source: int, length: int, shared: int, own: int = 0
    ) -> None:
        """See :meth:`PlaceCache.seat`; the prompt is copied unless another sample of it is being decoded."""
        self._reach(own, max(rows) + 1)
        slot = next((s for s, known in self.names.items() if known == name), None)
        if slot is None:
            slot = next(s for s in range(len(self.names) + 1) if s not in self.names)
            if slot == len(self.prompts[0][0]):
                self._add_slots()
            tail = length - own - shared
            self.names[slot], self.lengths[slot] = name, tail
            for ours, other in zip(self.prompts, prefilled.layers, strict=True):
                for mine, theirs in zip(ours, (other.keys, other.values), strict=True):
                    stop = theirs.size(2) - own
                    mine[slot, :, mine.size(2) - tail :] = theirs[source, :, stop - tail : stop]
        if own:
            for layer, other in zip(self.layers, prefilled.layers, strict=True):
                for mine, theirs in ((layer.keys, other.keys), (layer.values, other.values)):
                    mine[list(rows), :, self.end - own : self.end] = theirs[source, :, theirs.size(2) - own :]
        for row in rows:
            if row == len(self.starts):
                self.starts.append(0)
                self.slots.append(0)
            self.starts[row], self.slots[row] = self.end - own, slot

    def _add_slots(self) -> None:
        """Storage for more prompts: as many again, or four; never for more than there may be places."""
        more = min(max(4, len(self.prompts[0][0])), self.most - len(self.prompts[0][0]))
        for ours in self.prompts:
            ours[:] = [torch.cat([t, t.new_zeros((more, *t.shape[1:]))]) for t in ours]
        self.budget -= more * self.prompts[0][0].size(2) * self.cell

    def leave(self, row: int) -> None:
        """See :meth:`PlaceCache.leave`."""
        slot, self.slots[row] = self.slots[row], -1
        if slot not in self.slots:
            del self.names[slot], self.lengths[slot]

    def move(self, source: int, target: int) -> None:
        """See :meth:`PlaceCache.move`."""
        super().move(source, target)
        self.slots[target] = self.slots[source]

    def drop_last(self) -> None:
        """See :meth:`PlaceCache.drop_last`."""
        super().drop_last()
        self.slots.pop()

    @contextmanager
    def attending(self) -> Iterator[None]:
        """See :meth:`PlaceCache.attending`."""
        before = self.config._attn_implementation
        self.config._attn_implementation = _NAME
        _active.append(self)
        try:
            yield
        finally:
            _active.pop()
            self.config._attn_implementation = before

    def mask_and_positions(self, device: Any) -> tuple[Any, Any]:
        """See :meth:`PlaceCache.mask_and_positions`; and all that the layers of this forward pass have in common."""
        mask, positions = super().mask_and_positions(device)
        slots = self.slots
        self.used = max(slots) + 1  # slots: G
        width = self.prompts[0][0].size(2)
        self.first = width - max(self.lengths.values())
        tails = torch.tensor([self.lengths.get(s, 0) for s in range(self.used)], device=device)
        slots_B = torch.tensor(slots, device=device)
        ranks: list[int] = []
        seen: Counter[int] = Counter()
        for slot in slots:
            ranks.append(seen[slot])
            seen[slot] += 1
        self.alongside = max(seen.values())  # M
        self.alike = slots == list(range(len(slots)))  # one row a prompt, in order: nothing to rearrange
        self.at = slots_B * self.alongside + torch.tensor(ranks, device=device)  # of each row among (slot, rank)
        self.rows_of = torch.zeros(self.used * self.alongside, dtype=torch.long, device=device)
        self.rows_of[self.at] = torch.arange(
            len(slots), device=device
        )  # the other way; where no row is, row 0 runs in vain
        visible = torch.arange(self.first, width, device=device) >= (width - tails)[slots_B][:, None]
        whole = torch.cat([visible.new_ones((len(slots), self.shared)), visible, mask.bool()], 1)
        self.bias = torch.zeros(whole.shape, dtype=self.prompts[0][0].dtype, device=device)
        self.bias.masked_fill_(~whole, -torch.inf)
        self.bias = self.bias[:, None, None]
        return mask, positions + self.shared + tails[slots_B][:, None]

    def attend(self, layer: int, query: Any, keys: Any, values: Any, scale: float) -> Any:
        """Attention's output (B, H, Q, D) of queries (B, H, Q, D) and own keys and values (B, H, W, D)."""
        prompt_keys, prompt_values = (t[: self.used, :, self.first :] for t in self.prompts[layer])
        query = query * scale
        scores = [self._ungroup(self._group(query) @ prompt_keys.mT), query @ keys.mT]
        if self.head is not None:
            head_keys, head_values = self.head[layer]
            scores.insert(0, _as_rows(_as_heads(query) @ head_keys.mT, len(query)))
        together = torch.cat(scores, -1).add_(self.bias)
        if together.dtype in (torch.float16, torch.bfloat16):
            shares = together.softmax(-1, dtype=torch.float32).to(values.dtype)
        else:
            shares = together.softmax(-1)
        parts = shares.split([s.size(-1) for s in scores], -1)
        out = parts[-1] @ values
        out += self._ungroup(self._group(parts[-2]) @ prompt_values)
        if self.head is not None:
            out += _as_rows(_as_heads(parts[0]) @ head_values, len(query))
        return out

    def _group(self, x: Any) -> Any:
        """(B, H, Q, ·) as (G, H, M·Q, ·)."""
        if self.alike:
            return x
        _, heads, queries, size = x.shape
        split = x[self.rows_of].view(self.used, self.alongside, heads, queries, size)
        return split.transpose(1, 2).reshape(self.used, heads, self.alongside * queries, size)

    def _ungroup(self, x: Any) -> Any:
        """(G, H, M·Q, ·) as (B, H, Q, ·)."""
        if self.alike:
            return x
        _, heads, rows, size = x.shape
        split = x.view(self.used, heads, self.alongside, rows // self.alongside, size)
        return split.transpose(1, 2).reshape(self.used * self.alongside, heads, rows // self.alongside, size)[self.at]


def _as_heads(x: Any) -> Any:
    """(B, H, Q, ·) as (H, B·Q, ·)."""
    return x.transpose(0, 1).reshape(x.size(1), -1, x.size(3))


def _as_rows(x: Any, rows: int) -> Any:
    """(H, B·Q, ·) as (B, H, Q, ·)."""
    return x.view(x.size(0), rows, -1, x.size(2)).transpose(0, 1)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Any, None]:
    """transformers' attention interface: query (B, heads, 1, D), key, value (B, H, W, D); output (B, 1, heads, D)."""
    unknown = [n for n in ("softcap", "s_aux", "sliding_window", "position_bias") if more.get(n) is not None]
    if unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    rows, heads, _, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    out = _active[-1].attend(module.layer_idx, query.view(rows, key.size(1), -1, size), key, value, scale)
    return out.reshape(rows, 1, heads, value.size(-1)), None


AttentionInterface.register(_NAME, _attention)
