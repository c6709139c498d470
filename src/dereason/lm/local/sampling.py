"""Tokens drawn from logits: inverse-CDF with one uniform number a token, from a stream that belongs to the sample.

A stream is a function of seed, prompt and the sample's index. So a sample does not depend on its neighbours in the
batch, on how many there are, or on which place it sits in, beyond floating point rounding.

Shape legend: B rows, V vocabulary, K blocks of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 256  # the inverse is searched among block sums first, then inside one block


@dataclass(frozen=True)
class Drawn:
    """One sample.

    Attributes:
        ids: generated token ids; the stop token is kept, nothing follows it.
        logps: log-probability (nats) of each under the distribution that it was drawn from: the softmax at the
            sampling temperature over the whole vocabulary; of a greedy sample, at temperature 1.
    """

    ids: list[int]
    logps: list[float]


def uniforms(prompt_ids: Sequence[int], index: int, seed: int, length: int) -> np.ndarray:
    """The sample's own stream of uniform numbers in [0, 1), shape (length,), float64."""
    digest = hashlib.sha256(np.asarray([seed, index, *prompt_ids], dtype=np.int64).tobytes()).digest()
    key = np.frombuffer(digest[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(length)


def sample_tokens(logits_BV: Tensor, temperature: float, uniform_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits_BV: overwritten where it is float32 or float64.
        temperature: 0 takes the most probable token.
        uniform_B: numbers in [0, 1), float64; not read at temperature 0.

    Returns:
        tokens (B,); their log-probabilities (B,), float32 (float64 where the logits are): see :class:`Drawn`.
    """
    import torch

    z_BV = logits_BV if logits_BV.dtype == torch.float64 else logits_BV.float()
    if temperature == 0:
        # transformers compares in float32, whatever the model's type: ties fall as they fall there
        picks = z_BV.float().argmax(-1, keepdim=True)
        return picks.squeeze(1), (z_BV.gather(1, picks).squeeze(1) - z_BV.logsumexp(-1))
    if temperature != 1:
        z_BV.div_(temperature)
    weights_BV = z_BV.sub_(z_BV.amax(-1, keepdim=True)).exp_()
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


def _invert(cdf_BK: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """First index (B, 1) whose cumulative weight exceeds the share ``uniform_B``; how far into it, in [0, 1)."""
    import torch

    total_B1 = cdf_BK[:, -1:].contiguous()
    target_B1 = uniform_B[:, None] * total_B1
    found_B1 = torch.searchsorted(cdf_BK, target_B1, right=True)
    # rounding may lift the target to the total: then the last index that has weight
    found_B1 = torch.minimum(found_B1, torch.searchsorted(cdf_BK, total_B1))
    below_B1 = torch.where(found_B1 > 0, cdf_BK.gather(1, (found_B1 - 1).clamp(min=0)), 0.0)
    inside_B1 = (target_B1 - below_B1) / (cdf_BK.gather(1, found_B1) - below_B1)
    return found_B1, inside_B1.squeeze(1).clamp(0, 1)
