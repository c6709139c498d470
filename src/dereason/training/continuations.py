"""Rollouts that begin with given tokens: the beginning of a demonstration, which the policy goes on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dereason.lm.local.sampling import Drawn

Decode = Callable[[list[list[int]], int, list[list[int]], list[int]], list[list[Drawn]]]
"""``(prompts, n, limits, places)``: n continuations of each prompt, each of so many tokens at most, and which problem
each prompt is of: [prompt][sample]."""


def continue_prefixes(
    decode: Decode, prompts: Sequence[Sequence[int]], prefixes: Sequence[Sequence[Sequence[int]]], max_new_tokens: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Rollouts of some problems, each behind its prefix.

    Those of a problem that have the same prefix are samples of one prompt, so that a sample's random stream belongs to
    problem, prefix and its number among them, as it does without prefixes.

    Args:
        decode: the engine.
        prompts: token ids of each problem's prompt.
        prefixes: [problem][rollout] token ids, fewer than ``max_new_tokens``.
        max_new_tokens: bounds prefix and continuation together.

    Returns:
        of each rollout, problem by problem: token ids, the prefix among them; their log-probabilities by the engine,
        NaN for the prefix.
    """
    places: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for k, of_problem in enumerate(prefixes):
        for i, prefix in enumerate(of_problem):
            places.setdefault((k, tuple(prefix)), []).append(i)
    responses: list[list[list[int]]] = [[[] for _ in of_problem] for of_problem in prefixes]
    logps: list[list[list[float]]] = [[[] for _ in of_problem] for of_problem in prefixes]
    for n in sorted({len(members) for members in places.values()}):
        chosen = [(k, prefix, members) for (k, prefix), members in places.items() if len(members) == n]
        drawn = decode(
            [[*prompts[k], *prefix] for k, prefix, _ in chosen],
            n,
            [[max_new_tokens - len(prefix)] * n for _, prefix, _ in chosen],
            [k for k, _, _ in chosen],
        )
        for (k, prefix, members), samples in zip(chosen, drawn, strict=True):
            for i, sample in zip(members, samples, strict=True):
                responses[k][i] = [*prefix, *sample.ids]
                logps[k][i] = [*[math.nan] * len(prefix), *sample.logps]
    return [r for group in responses for r in group], [v for group in logps for v in group]
