"""From targets to demonstrations: which target of a problem a joint method is shown, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from dereason.errors import DereasonError
from dereason.lm.prompts import Prompt, encode_reply

if TYPE_CHECKING:
    from dereason.training.rewards.rules import Combined
    from dereason.training.rl import RL


def encode_demonstrations(
    tokenizer: Any, problems: pl.DataFrame, targets: pl.DataFrame, prompt: Prompt, settings: RL, longest: int
) -> dict[str, list[int]]:
    """Each problem's demonstration: its first target (ours: no paper says which of several).

    Args:
        tokenizer: of the student.
        problems: PROBLEM table: the set.
        targets: TARGET table; problems outside the set are passed over.
        prompt: how questions are put.
        settings: of the phase; where rollouts continue demonstrations, its ``max_new_tokens`` bounds them.
        longest: tokens of prompt and demonstration, at most.

    Returns:
        token ids of the reply (its end token included) by problem id.

    Raises:
        DereasonError: a target with a message or a beginning of its own, which is no reply to the problem; one that
            is too long; none at all.
    """
    own = targets.filter(pl.col("prompt").is_not_null() | pl.col("prefix").is_not_null())
    if not own.is_empty():
        raise DereasonError(
            f"the target of problem {own['problem_id'][0]!r} is a {own['origin'][0]}, no reply to the problem itself",
            "give joint phases targets of other styles (critique: kinds: [new_trace])",
        )
    first = targets.unique("problem_id", keep="first", maintain_order=True)
    rows = problems.join(first, left_on="id", right_on="problem_id", maintain_order="left")
    if rows.is_empty():
        raise DereasonError("no problem of the set has a demonstration", "build targets for the sets of the phase")
    continued = bool(getattr(getattr(settings, "method", None), "prefixes", False))
    out = {}
    for row in rows.iter_rows(named=True):
        chat = prompt.messages(row["question"], row["options"])
        try:
            head, tail = encode_reply(tokenizer, chat, row["response"], prompt.chat_template_kwargs)
        except DereasonError as exc:
            raise DereasonError(f"the demonstration of problem {row['id']!r}: {exc.cause}", exc.mend) from exc
        if len(head) + len(tail) > longest:
            raise DereasonError(
                f"the demonstration of problem {row['id']!r} is {len(head) + len(tail)} tokens long with its prompt, "
                f"over max_length {longest}",
                "raise max_length as far as the model's context allows, or drop the target",
            )
        if continued and len(tail) > settings.max_new_tokens:
            raise DereasonError(
                f"the demonstration of problem {row['id']!r} is {len(tail)} tokens long, and a rollout that continues "
                f"it has {settings.max_new_tokens} with what it continues",
                "raise max_new_tokens or drop the target",
            )
        out[row["id"]] = tail
    return out


def worth_of(
    shown: dict[str, list[int]], rows: Sequence[dict[str, Any]], reward: Combined, tokenizer: Any
) -> dict[str, float]:
    """What the phase's rewards pay for each demonstration, taken as correct.

    Args:
        shown: problem id -> token ids of the demonstration.
        rows: of the data set.
        reward: the phase's.
        tokenizer: of the student.
    """
    members = [row for row in rows if row["problem_id"] in shown]
    ids = [shown[row["problem_id"]] for row in members]
    paid = reward.worth(members, tokenizer.batch_decode(ids, skip_special_tokens=True), ids)
    return {row["problem_id"]: value for row, value in zip(members, paid, strict=True)}
