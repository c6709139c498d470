"""Keys and values of the sequences being decoded, in preallocated storage that is written in place.

A *place* is one row of the storage. All places write their next token into the same column, ``end``; a sequence of
length k fills the k columns before it, so that short and long ones are aligned at their ends, as transformers' own
left padding aligns them. Masks of every kind (full, sliding window, eager, SDPA) are therefore transformers' own.
Attention reads the columns from ``low``, where the longest sequence starts, as a view; nothing is copied at a step.
A sequence that leaves is overwritten by one that comes (one row), and when the columns run out the window moves back
to the front (once in about a hundred steps). Then the storage is measured anew: it grows with the longest sequence
being decoded, never beyond its share of the memory that is free. Where that is not enough for all places, there are
fewer until the long sequences have ended; the engine puts the youngest samples back and goes on with them later.

    columns   0      low              end
    place 0   ·······ooooooooooooooooo         o: written, seen
    place 1   ··········xxxxoooooooooo         x: left by the sequence that sat here before, masked
    place 2   ·············xxxxxoooooo
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from dereason.lm.local.footprint import CACHE_CPU, CACHE_GPU
from dereason.memory import free_bytes

_SPARE = 128  # columns allocated beyond those in use


class PlaceLayer(CacheLayerMixin):
    """One attention layer's storage: keys and values (places, heads, columns, head size)."""

    supports_early_init = False

    def __init__(self, sliding: bool) -> None:
        """An empty layer; ``sliding`` tells transformers which of its masks the layer takes."""
        super().__init__()
        self.is_sliding = sliding
        self.rows = self.low = self.end = 0

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        """Not used: :meth:`PlaceCache.allocate` has the sizes."""
        raise NotImplementedError

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write one column of the rows in use; returns views of what they attend to."""
        self.keys[: self.rows, :, self.end : self.end + 1] = key_states
        self.values[: self.rows, :, self.end : self.end + 1] = value_states
        seen = slice(self.low, self.end + 1)
        return self.keys[: self.rows, :, seen], self.values[: self.rows, :, seen]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns attended to, the new one included; the offset is 0."""
        return self.end - self.low + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.end - self.low

    def get_max_length(self) -> int:
        """-1: the storage grows."""
        return -1


class PlaceCache(Cache):
    """The storage of all layers, and which columns each place uses.

    Attributes:
        places: how many sequences there is storage for.
        starts: first column of each place in use.
        end: the column that the next token goes to.
    """

    def __init__(self, model: Any, sliding: Sequence[bool], places: int) -> None:
        """Storage for ``places`` sequences of a model, not allocated yet; ``sliding``: see :class:`PlaceLayer`."""
        super().__init__(layers=[PlaceLayer(s) for s in sliding])
        self.most = self.places = places
        self.starts: list[int] = []
        self.end = 0
        self.columns = 0

    def allocate(self, example: Any, longest_prompt: int, head: Any, shared: int) -> None:
        """Allocate.

        Args:
            example: a cache of this model with something in it.
            longest_prompt: tokens of the longest prompt that will ever be seated.
            head: cache of the tokens that all prompts begin with, or None.
            shared: how many those are.
        """
        self.end, self.longest_prompt = longest_prompt, longest_prompt
        self.budget = cache_bytes(example.layers[0].keys.device)
        self.columns = longest_prompt + _SPARE
        self.cell = sum(
            t.size(1) * t.size(3) * t.element_size() for like in example.layers for t in (like.keys, like.values)
        )
        self.places = self._affordable(self.columns)
        for layer, like in zip(self.layers, example.layers, strict=True):
            # zeros, not empty: a masked column's value is still multiplied with 0
            layer.keys, layer.values = (
                t.new_zeros((self.places, t.size(1), self.columns, t.size(3))) for t in (like.keys, like.values)
            )
            layer.is_initialized = True

    def _affordable(self, columns: int) -> int:
        """Places of so many columns that memory has room for; one in any case."""
        return max(1, min(self.most, int(self.budget // (columns * self.cell))))

    def surplus(self) -> int:
        """How many places have to be left before the next column, because memory has no room for more of all."""
        if self.end < self.columns:
            return 0
        return max(0, len(self.starts) - self._affordable(self._grown(self.end - min(self.starts))[1]))

    def youngest(self) -> int:
        """The place that has the shortest sequence."""
        return max(range(len(self.starts)), key=lambda row: self.starts[row])

    def seat(
        self, rows: Sequence[int], name: Any, prefilled: Any, source: int, length: int, shared: int, own: int = 0
    ) -> None:
        """Put a prompt into places, over what was there.

        Args:
            rows: the places, those left or the next ones.
            name: tells prompts apart.
            prefilled: cache of prompts that end together, after ``shared`` tokens that all begin with; padding lies
                between the two.
            source: which of its rows.
            length: tokens of the prompt, and of a sample that is gone on with.
            shared: see above.
            own: tokens of that sample among them.
        """
        self._reach(length, max(rows) + 1)
        at = torch.tensor(rows, device=self.layers[0].keys.device)
        for layer, other in zip(self.layers, prefilled.layers, strict=True):
            # a sliding window's cache keeps no more than it needs; then nothing is shared
            tail = min(length - shared, other.keys.size(2))
            rest = self.end - tail
            for ours, theirs in ((layer.keys, other.keys), (layer.values, other.values)):
                here = at.to(ours.device)
                ours[here, :, rest : self.end] = theirs[source, :, theirs.size(2) - tail :]
                if shared:
                    ours[here, :, rest - shared : rest] = theirs[source, :, :shared]
        for row in rows:
            if row == len(self.starts):
                self.starts.append(0)
            self.starts[row] = self.end - length

    def move(self, source: int, target: int) -> None:
        """Copy one place over another."""
        seen = slice(self.starts[source], self.end)
        for layer in self.layers:
            layer.keys[target, :, seen] = layer.keys[source, :, seen]
            layer.values[target, :, seen] = layer.values[source, :, seen]
        self.starts[target] = self.starts[source]

    def leave(self, row: int) -> None:
        """The sample in a place has ended; another one is seated there, or moved, or the place dropped."""

    def drop_last(self) -> None:
        """The last place is in use no more."""
        self.starts.pop()

    def attending(self) -> AbstractContextManager[None]:
        """Around the forward passes of decoding."""
        return nullcontext()

    def next_column(self) -> None:
        """Make ready for a forward pass of the places in use, one token each."""
        low = min(self.starts)
        if self.end == self.columns:
            low = self._make_room(low)
        for layer in self.layers:
            layer.rows, layer.low, layer.end = len(self.starts), low, self.end

    def mask_and_positions(self, device: Any) -> tuple[Any, Any]:
        """Attention mask (rows, columns attended to) and positions (rows, 1) of that forward pass."""
        starts = torch.tensor(self.starts, device=device)[:, None]
        columns = torch.arange(self.layers[0].low, self.end + 1, device=device)
        return (columns >= starts).long(), self.end - starts

    def _grown(self, used: int, reach: int = 0) -> tuple[int, int]:
        """End and columns of the storage once the columns in use stand at its front."""
        end = max(used, self.longest_prompt, reach)  # so that any prompt can still be seated
        columns = end + max(_SPARE, used // 4)
        # memory that is there is kept; where it is short, what long sequences have left is given to others
        return end, columns if self.places < self.most else max(self.columns, columns)

    def _reach(self, length: int, places: int) -> None:
        """Make ready for a sequence of this length, in storage of at least so many places."""
        if length > self.end:
            self._make_room(min(self.starts, default=self.end), length, places)

    def _make_room(self, low: int, reach: int = 0, places: int = 0) -> int:
        """Move the columns in use to the front, in storage of another size where that is due; returns their start."""
        used = self.end - low
        end, columns = self._grown(used, reach)
        places = max(self._affordable(columns), len(self.starts), places)
        kept_places = min(places, self.places)
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                kept = old[:kept_places, :, low : self.end]
                if (places, columns) != (self.places, self.columns):
                    old = old.new_zeros((places, old.size(1), columns, old.size(3)))
                else:
                    kept = kept.clone()  # source and target may overlap
                old[:kept_places, :, end - used : end] = kept
                setattr(layer, name, old)
        self.starts = [s - low + end - used for s in self.starts]
        self.end, self.columns, self.places = end, columns, places
        return end - used


def cache_bytes(device: Any) -> float:
    """Memory for the cache: a share of what is free; the rest is for what a forward pass makes."""
    return free_bytes(device) * (CACHE_GPU if device.type == "cuda" else CACHE_CPU)
