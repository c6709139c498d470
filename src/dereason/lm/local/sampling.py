"""Tokens drawn from logits: inverse-CDF with one uniform number a token, from a stream that belongs to the sample.

A stream is a function of seed, prompt and the sample's index, and of which it is of several prompts with the same
tokens. So a sample does not depend on its neighbours in the
batch, on how many there are, or on which place it sits in, beyond floating point rounding.

Shape legend: B rows, V vocabulary, K blocks of the vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dereason.errors import DereasonError
from dereason.lm.base import Filters

if TYPE_CHECKING:
    from torch import Tensor

ALL = Filters()
"""Every token may be drawn."""

_LIKELIEST = 1024  # so many tokens are sorted first to find the nucleus
_BLOCK = 256  # the inverse is searched among block sums first, then inside one block


@dataclass(frozen=True)
class Drawn:
    """One sample.

    Attributes:
        ids: generated token ids; the stop token is kept, nothing follows it.
        logps: log-probability (nats) of each under the distribution that it was drawn from: the softmax at the
            sampling temperature over the tokens that filters leave; of a greedy sample, at temperature 1.
    """

    ids: list[int]
    logps: list[float]


def uniforms(prompt_ids: Sequence[int], index: int, seed: int, length: int, twin: int = 0) -> np.ndarray:
    """The sample's own stream of uniform numbers in [0, 1), shape (length,), float64.

    Args:
        prompt_ids: of its prompt.
        index: which of the prompt's samples it is.
        seed: of the call.
        length: how many numbers.
        twin: tells prompts apart that have the same tokens, as two problems with one text have.
    """
    name = [seed, index, *prompt_ids, *([-twin] if twin else [])]  # no token has a negative number
    digest = hashlib.sha256(np.asarray(name, dtype=np.int64).tobytes()).digest()
    key = np.frombuffer(digest[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(length)


def twins(prompts: Iterable[Hashable]) -> list[int]:
    """Of each prompt, how many before it are the same: what tells it apart from those."""
    seen: Counter[Hashable] = Counter()
    found = []
    for prompt in prompts:
        found.append(seen[prompt])
        seen[prompt] += 1
    return found


@dataclass(frozen=True)
class Draw:
    """How the tokens of one call are drawn.

    Attributes:
        prompts: token ids.
        temperature: 0 takes the most probable token.
        filters: which tokens may be drawn.
        seed: of the streams.
        twin: of each prompt, what tells it apart from others with the same tokens.
    """

    prompts: Sequence[Sequence[int]]
    temperature: float
    filters: Filters
    seed: int
    twin: Sequence[int]

    def stream(self, prompt: int, index: int, length: int) -> np.ndarray:
        """The numbers that a sample is drawn by, shape (length,); none where it is greedy."""
        wanted = length if self.temperature else 0
        return uniforms(self.prompts[prompt], index, self.seed, wanted, self.twin[prompt])

    def tokens(self, logits_BV: Tensor, numbers_B: Sequence[float]) -> tuple[list[int], list[float]]:
        """Draw one token a row, by one number of its stream each: tokens and log-probabilities.

        Raises:
            DereasonError: see :func:`check_drawn`.
        """
        import torch

        if logits_BV.device.type == "mps":  # it has no float64
            logits_BV = logits_BV.cpu()
        uniform_B = torch.tensor(numbers_B, dtype=torch.float64, device=logits_BV.device)
        tokens, logps = (t.tolist() for t in sample_tokens(logits_BV, self.temperature, uniform_B, self.filters))
        check_drawn(logps)
        return tokens, logps


def sample_tokens(
    logits_BV: Tensor, temperature: float, uniform_B: Tensor | None, filters: Filters = ALL
) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits_BV: overwritten where it is float32 or float64.
        temperature: 0 takes the most probable token.
        uniform_B: numbers in [0, 1), float64; not read at temperature 0.
        filters: which tokens may be drawn.

    Returns:
        tokens (B,); their log-probabilities (B,), float32 (float64 where the logits are): see :class:`Drawn`. A
        log-probability that is not finite says that the row's logits are none to draw from: see :func:`check_drawn`.
    """
    import torch

    z_BV = logits_BV if logits_BV.dtype == torch.float64 else logits_BV.float()
    if temperature == 0:
        # transformers compares in float32, whatever the model's type: ties fall as they fall there
        picks = z_BV.float().argmax(-1, keepdim=True)
        return picks.squeeze(1), (z_BV.gather(1, picks).squeeze(1) - z_BV.logsumexp(-1))
    weights_BV = _weights(z_BV, temperature, filters)
    if spare := -weights_BV.size(1) % _BLOCK:
        weights_BV = torch.nn.functional.pad(weights_BV, (0, spare))
    blocks_BKV = weights_BV.view(len(weights_BV), -1, _BLOCK)
    assert uniform_B is not None
    cdf_BK = blocks_BKV.sum(-1).double().cumsum(-1)
    block_B1, inside_B = _invert(cdf_BK, uniform_B)
    chosen_BV = blocks_BKV.gather(1, block_B1[:, :, None].expand(-1, 1, _BLOCK)).squeeze(1)
    place_B1, _ = _invert(chosen_BV.double().cumsum(-1), inside_B)
    weight_B = chosen_BV.gather(1, place_B1).squeeze(1)
    logps = (weight_B.double() / cdf_BK[:, -1]).log().to(z_BV.dtype)
    return (block_B1 * _BLOCK + place_B1).squeeze(1), logps


def check_drawn(logps: Sequence[float]) -> None:
    """Refuse what was drawn from logits that are no numbers.

    Raises:
        DereasonError: a log-probability is not finite.
    """
    if not all(map(math.isfinite, logps)):
        raise DereasonError(
            "the model's logits are NaN or infinite, and no token can be drawn from them",
            "set dtype to float32 or bfloat16 if it is float16, which overflows; else the weights are broken, by a "
            "training that diverged or in their file",
        )


def filtered_logps(logits_NV: Tensor, tokens_N: Tensor, temperature: float, filters: Filters) -> Tensor:
    """Log-probabilities (N,) that tokens had when they were drawn; NaN of one that could not have been (rounding)."""
    import torch

    z_NV = logits_NV.clone() if logits_NV.dtype == torch.float64 else logits_NV.float().clone()
    weights_NV = _weights(z_NV, temperature, filters)
    weight_N = weights_NV.gather(1, tokens_N[:, None])[:, 0]
    logps = (weight_N.double() / weights_NV.sum(-1, dtype=torch.float64)).log().to(z_NV.dtype)
    return torch.where(weight_N > 0, logps, torch.nan)


def _weights(z_BV: Tensor, temperature: float, filters: Filters) -> Tensor:
    """Weights (B, V) in proportion to the probabilities, 1 the highest of each row; ``z_BV`` is overwritten."""
    if temperature != 1:
        z_BV.div_(temperature)
    weights_BV = z_BV.sub_(z_BV.amax(-1, keepdim=True)).exp_()
    if 0 < filters.top_k < weights_BV.size(1):
        weights_BV.masked_fill_(weights_BV < weights_BV.topk(filters.top_k).values[:, -1:], 0.0)
    if filters.top_p < 1:
        weights_BV.masked_fill_(weights_BV < _nucleus_edge(weights_BV, filters.top_p), 0.0)
    if filters.min_p:
        weights_BV.masked_fill_(weights_BV < filters.min_p, 0.0)
    return weights_BV


def _nucleus_edge(weights_BV: Tensor, top_p: float) -> Tensor:
    """The least weight (B, 1) in the nucleus: a token belongs to it where those above it hold less than ``top_p``."""
    import torch

    wanted_B1 = top_p * weights_BV.sum(-1, keepdim=True, dtype=torch.float64)
    size = weights_BV.size(1)
    count = min(_LIKELIEST, size)
    while True:  # as a rule a few tokens hold nearly all: sorting the others would take longer than the model
        likeliest_BC = weights_BV.topk(count).values
        reach_BC = likeliest_BC.double().cumsum(-1)
        if count == size or bool((reach_BC[:, -1:] >= wanted_B1).all()):
            break
        count = min(8 * count, size)
    kept_B1 = (reach_BC - likeliest_BC < wanted_B1).sum(-1, keepdim=True)
    return likeliest_BC.gather(1, (kept_B1 - 1).clamp(min=0))


def _invert(cdf_BK: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """First index (B, 1) whose cumulative weight exceeds the share ``uniform_B``; how far into it, in [0, 1)."""
    import torch

    total_B1 = cdf_BK[:, -1:].contiguous()
    target_B1 = uniform_B[:, None] * total_B1
    found_B1 = torch.searchsorted(cdf_BK, target_B1, right=True)
    # rounding may lift the target to the total: then the last index that has weight; nothing is found among NaN
    found_B1 = torch.minimum(found_B1, torch.searchsorted(cdf_BK, total_B1)).clamp(max=cdf_BK.size(1) - 1)
    below_B1 = torch.where(found_B1 > 0, cdf_BK.gather(1, (found_B1 - 1).clamp(min=0)), 0.0)
    inside_B1 = (target_B1 - below_B1) / (cdf_BK.gather(1, found_B1) - below_B1)
    return found_B1, inside_B1.squeeze(1).clamp(0, 1)
