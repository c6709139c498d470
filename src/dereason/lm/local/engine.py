"""Decoding in process, for machines without vLLM.

What is done: the tokens that all prompts share (system message, rubric) are run once, each prompt once for all its n
samples; a fixed number of places is decoded at once, in preallocated storage that is written in place
(:mod:`~dereason.lm.local.places`); a sequence that ends leaves at once and the next one takes its place, whatever its
prompt; tokens are drawn from streams that belong to the sample (:mod:`~dereason.lm.local.sampling`), with their
log-probabilities; on a CPU in float32 the linear layers run on rearranged weights
(:mod:`~dereason.lm.local.packed`). Models that do not fit go another way (:mod:`~dereason.lm.local.fallback`).

What is left out: CUDA graphs, paged storage, quantised weights, several devices.

Shape legend: B places in use, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dereason.lm.local.fallback import generate_samples
from dereason.lm.local.fit import cache_for
from dereason.lm.local.packed import PackedLinears
from dereason.lm.local.prefill import forward, prefill_behind, run_head, shareable, takes_padding
from dereason.lm.local.sampling import Drawn, sample_tokens, uniforms

if TYPE_CHECKING:
    from dereason.lm.local.places import PlaceCache

# Tokens of one prefill pass, padding included: enough to fill the matrix products; on a CPU few enough for its caches.
_PREFILL_TOKENS = 512
_MAX_PREFILL_TOKENS_CPU = 1024
_MAX_PREFILL_TOKENS = 8192


def plan_batches(lengths: Sequence[int], n: int, batch_size: int) -> list[list[int]]:
    """Prompts grouped into batches of about ``batch_size`` sequences, shortest prompts first."""
    per_batch = max(1, batch_size // max(1, n))
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    return [order[i : i + per_batch] for i in range(0, len(order), per_batch)]


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    temperature: float,
    max_new_tokens: int | Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    pad_id: int,
    seed: int,
    batch_size: int,
) -> list[list[Drawn]]:
    """Draw n continuations of each prompt.

    Args:
        model: a causal language model of transformers, in eval mode; a LoRA model of peft as well.
        prompts: token ids, none empty; any number of prompts.
        n: samples per prompt.
        temperature: 0 takes the most probable token.
        max_new_tokens: length limit, the stop token included; or one of each sample, [prompt][sample].
        stop_ids: tokens that end a sample.
        pad_id: fills shorter prompts; any token, it is masked.
        seed: of the sampling streams; a sample's belongs to (seed, prompt, index).
        batch_size: places, that is sequences decoded at once.

    Returns:
        samples [prompt][sample].
    """
    drawn: list[list[Drawn]] = [[] for _ in prompts]
    for i, samples in stream(
        model,
        prompts,
        n,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
        pad_id=pad_id,
        seed=seed,
        batch_size=batch_size,
    ):
        drawn[i] = samples
    return drawn


def stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    temperature: float,
    max_new_tokens: int | Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    pad_id: int,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[int, list[Drawn]]]:
    """:func:`decode`, yielding ``(prompt number, its samples)`` as soon as a prompt's samples have all ended."""
    import torch

    if not prompts or n < 1:
        return
    if hasattr(model, "get_base_model"):  # peft: the adapters sit inside it
        model = model.get_base_model()
    limits = [[max_new_tokens] * n] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    with torch.inference_mode():
        cache = cache_for(model, prompts[0], pad_id, min(batch_size, n * len(prompts)))
    if cache is None:
        yield from generate_samples(model, prompts, n, temperature, limits, stop_ids, pad_id, seed, batch_size)
        return
    decoder = _Decoder(model, cache, prompts, n, temperature, limits, frozenset(stop_ids), pad_id, seed)
    while True:
        # Neither context may stay open while the caller has the word.
        with torch.inference_mode(), decoder.packed.active():
            finished = decoder.advance()
        if not finished:
            return
        yield from finished


@dataclass
class _Prefilled:
    """Prompts that were run together: their cache (rows end together) and the logits at their ends."""

    cache: Any
    logits: Any


@dataclass
class _Waiting:
    """A sample whose prompt has been run."""

    prompt: int
    index: int
    source: _Prefilled
    row: int


@dataclass
class _Place:
    """A sample being decoded."""

    prompt: int
    index: int
    limit: int
    stream: np.ndarray
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class _Decoder:
    """One call of :func:`stream`."""

    def __init__(
        self,
        model: Any,
        cache: PlaceCache,
        prompts: Sequence[Sequence[int]],
        n: int,
        temperature: float,
        limits: Sequence[Sequence[int]],
        stops: frozenset[int],
        pad_id: int,
        seed: int,
    ) -> None:
        self.model, self.cache, self.prompts, self.n = model, cache, prompts, n
        self.temperature, self.limits, self.stops = temperature, limits, stops
        self.pad_id, self.seed = pad_id, seed
        self.packed = PackedLinears(model, sum(map(sum, limits)))
        self.shared = shareable(model, prompts)
        self.padding = takes_padding(model)
        self.head: Any = None
        self.queue = deque(sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i)))
        self.waiting: deque[_Waiting] = deque()
        self.halted: deque[_Place] = deque()
        self.rows: list[_Place | None] = []
        self.samples: dict[int, dict[int, Drawn]] = {}
        self.finished: list[tuple[int, list[Drawn]]] = []

    def advance(self) -> list[tuple[int, list[Drawn]]]:
        """Go on until a prompt's samples have all ended; an empty list when none is left."""
        while True:
            self._fill()
            if self.finished or not self.rows:
                finished, self.finished = self.finished, []
                return finished
            self._step()

    def _step(self) -> None:
        """One forward pass and one token for each place."""
        import torch

        device = self.model.device
        for _ in range(self.cache.surplus()):
            self._halt(self.cache.youngest())
        rows = [place for place in self.rows if place is not None]  # after filling there is no hole
        self.cache.next_column()
        mask, positions = self.cache.mask_and_positions(device)
        with self.cache.attending():
            logits = forward(
                self.model,
                self.cache,
                input_ids=torch.tensor([[place.ids[-1]] for place in rows], device=device),
                attention_mask=mask,
                position_ids=positions,
            )[:, -1]
        self.cache.end += 1
        for row, ended in enumerate(self._draw(logits, rows)):
            if ended:
                self.rows[row] = None
                self.cache.leave(row)

    def _draw(self, logits_BV: Any, places: Sequence[_Place]) -> list[bool]:
        """Draw a token for each place; returns which of them ended, their samples handed in."""
        import torch

        uniform = None
        if self.temperature:
            uniform = torch.tensor([place.stream[len(place.ids)] for place in places], dtype=torch.float64)
            uniform = uniform.to(logits_BV.device)
        tokens, logps = sample_tokens(logits_BV, self.temperature, uniform)
        ended = []
        for place, token, logp in zip(places, tokens.tolist(), logps.tolist(), strict=True):
            place.ids.append(token)
            place.logps.append(logp)
            ended.append(token in self.stops or len(place.ids) >= place.limit)
            if ended[-1]:
                group = self.samples.setdefault(place.prompt, {})
                group[place.index] = Drawn(place.ids, place.logps)
                if len(group) == self.n:
                    del self.samples[place.prompt]
                    self.finished.append((place.prompt, [group[j] for j in range(self.n)]))
        return ended

    def _fill(self) -> None:
        """Halted and waiting samples into free places; then no hole is left between the places in use."""
        while (free := self._free()) and (self.halted or self.waiting or self.queue):
            if self.halted:
                self._resume(free)
                continue
            if not self.waiting:
                self._prefill(len(free))
                free = self._free()  # the first prompts say how many places memory has room for
            self._seat(free)
        self._close_up()

    def _free(self) -> list[int]:
        free = [row for row, place in enumerate(self.rows) if place is None]
        return [*free, *range(len(self.rows), self.cache.places)]

    def _close_up(self) -> None:
        """Leave no hole between the places in use."""
        while None in self.rows:
            last = self.rows.pop()
            if last is not None:
                hole = self.rows.index(None)
                self.cache.move(len(self.rows), hole)
                self.rows[hole] = last
            self.cache.drop_last()

    def _seat(self, free: list[int]) -> None:
        """Draw the first token of as many waiting samples as there are free places, and seat those that go on."""
        import torch

        taken = [self.waiting.popleft() for _ in range(min(len(free), len(self.waiting)))]
        places = []
        for w in taken:
            limit = self.limits[w.prompt][w.index]
            length = limit if self.temperature else 0
            stream = uniforms(self.prompts[w.prompt], w.index, self.seed, length)
            places.append(_Place(w.prompt, w.index, limit, stream))
        ended = self._draw(torch.stack([w.source.logits[w.row] for w in taken]), places)
        going = [(w, place) for w, place, end in zip(taken, places, ended, strict=True) if not end]
        by_prompt: dict[int, tuple[_Waiting, list[int]]] = {}
        for row, (w, place) in zip(free, going, strict=False):
            by_prompt.setdefault(w.prompt, (w, []))[1].append(row)
            if row == len(self.rows):
                self.rows.append(None)
            self.rows[row] = place
        for prompt, (w, rows) in by_prompt.items():
            self.cache.seat(rows, prompt, w.source.cache, w.row, len(self.prompts[prompt]), self.shared)

    def _halt(self, row: int) -> None:
        """Put a sample back; its tokens stay, its keys and values do not."""
        place = self.rows[row]
        assert place is not None
        self.halted.append(place)
        self.rows[row] = None
        self.cache.leave(row)
        self._close_up()

    def _resume(self, free: list[int]) -> None:
        """Go on with halted samples: prompt and tokens so far are run again, and the next token drawn."""
        count = min(len(free), len(self.halted)) if self.padding else 1
        texts = [[*self.prompts[p.prompt], *p.ids] for p in self.halted]
        while count > 1 and count * max(map(len, texts[:count])) > self._most_tokens():
            count -= 1
        taken, texts = [self.halted.popleft() for _ in range(count)], texts[:count]
        own = [len(place.ids) for place in taken]
        cache, logits, _, _ = prefill_behind(self.model, self.head, self.shared, texts, self.pad_id)
        ended = self._draw(logits, taken)
        going = [k for k in range(count) if not ended[k]]
        for row, k in zip(free, going, strict=False):
            if row == len(self.rows):
                self.rows.append(None)
            self.rows[row] = taken[k]
            self.cache.seat([row], taken[k].prompt, cache, k, len(texts[k]), self.shared, own[k])

    def _most_tokens(self) -> int:
        return _MAX_PREFILL_TOKENS_CPU if self.model.device.type == "cpu" else _MAX_PREFILL_TOKENS

    def _prefill(self, free: int) -> None:
        """Run the next prompts: as many as fill the free places, and some more where they are short."""
        if self.head is None and self.shared:
            self.head = run_head(self.model, self.prompts[0][: self.shared])
        most = self._most_tokens()
        members: list[int] = []
        while self.queue and len(members) < self.cache.places:
            length = len(self.prompts[self.queue[0]])
            tokens = (len(members) + 1) * (length - self.shared)
            wanted = most if len(members) * self.n < free else _PREFILL_TOKENS
            if members and (tokens > wanted or not (self.padding or length == len(self.prompts[members[0]]))):
                break
            members.append(self.queue.popleft())
        cache, logits, _, _ = prefill_behind(
            self.model, self.head, self.shared, [self.prompts[i] for i in members], self.pad_id
        )
        if not self.cache.columns:
            self.cache.allocate(cache, max(map(len, self.prompts)), self.head, self.shared)
        source = _Prefilled(cache, logits)
        self.waiting.extend(_Waiting(i, j, source, row) for row, i in enumerate(members) for j in range(self.n))
