"""Which rows go through the model together: those that carry a gradient, sorted by length, without padding columns.

A row whose advantage is zero has no gradient where the loss has no KL term, and every token of it that is computed
is waste; on hard problems most groups are such. The loss keeps its normaliser, so leaving them out changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_PROMPT = ("prompt_ids", "prompt_mask")


def plan_micro_batches(
    prompts: Sequence[int], completions: Sequence[int], active: Sequence[bool], *, rows: int
) -> list[list[int]]:
    """The active rows in micro-batches of similar length.

    A micro-batch takes no more padded tokens, and no more padded completion tokens (whose logits cost memory), than
    ``rows`` rows of the longest lengths would: the memory that ``rows`` stands for is never exceeded, and short rows
    travel in larger company. There are never more micro-batches than ``ceil(active rows / rows)``.

    Args:
        prompts: prompt tokens of each row.
        completions: completion tokens of each row.
        active: whether the row has a gradient.
        rows: rows of a micro-batch of the longest rows.

    Returns:
        indices of rows, longest first.
    """
    order = sorted(
        (i for i, on in enumerate(active) if on), key=lambda i: (prompts[i] + completions[i], completions[i], i)
    )
    budget = rows * (max(prompts, default=0) + max(completions, default=0))
    completion_budget = rows * max(completions, default=0)
    batches: list[list[int]] = []
    widest = (0, 0)
    for i in reversed(order):
        wider = max(widest[0], prompts[i]), max(widest[1], completions[i])
        size = len(batches[-1]) + 1 if batches else 1
        if batches and size * sum(wider) <= budget and size * wider[1] <= completion_budget:
            batches[-1].append(i)
            widest = wider
        else:
            batches.append([i])
            widest = prompts[i], completions[i]
    return batches


def take_rows(batch: dict[str, Tensor], members: Sequence[int]) -> dict[str, Tensor]:
    """Some rows of a padded batch, columns that are padding in all of them removed.

    Args:
        batch: prompts padded on the left (``prompt_ids``, ``prompt_mask``), everything else of two dimensions on the
            right (``completion_mask`` among them), or one number a row.
        members: indices of rows.
    """
    import torch

    at = torch.tensor(list(members), device=batch["prompt_mask"].device)
    some = {name: value[at] for name, value in batch.items()}
    width = some["prompt_mask"].size(1)
    first = width - int(some["prompt_mask"].sum(1).max())
    length = int(some["completion_mask"].sum(1).max())
    return {
        name: value if value.ndim < 2 else value[:, first:] if name in _PROMPT else value[:, :length]
        for name, value in some.items()
    }
