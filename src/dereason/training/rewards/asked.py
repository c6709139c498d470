"""Whether a prompt asks for the marks that its rewards count: a policy cannot be paid for what nobody told it to do."""

from __future__ import annotations

import re

from dereason.lm.prompts import Prompt
from dereason.training.rewards.settings import Rewards
from dereason.verify.span import MARKS, Mark
from dereason.verify.stated import NOUNS

_ASKS: dict[Mark, re.Pattern[str]] = {
    "tag": re.compile(r"<(?:answer|final_answer|choice|option|final)>", re.IGNORECASE),
    "boxed": re.compile(r"\\f?box(?:ed)?\b|\bboxed\b|\bin an? box\b", re.IGNORECASE),
    "final_answer": re.compile(
        rf"\banswers?\W{{0,4}}\s*(?:is|are)\b|\banswer[\"'*_`\s]{{0,4}}[:=\uff1a]|(?<!\w)(?:{NOUNS})(?!\w)",
        re.IGNORECASE,
    ),
    "hash": re.compile(r"####"),
    "letter": re.compile(r"\bletters?\b|\([A-D]\)|\b(?:option|choice)s?\b|\bA, B\b", re.IGNORECASE),
}


def asked_marks(prompt: Prompt) -> tuple[Mark, ...]:
    """The marks that the system message or the suffix mentions."""
    text = f"{prompt.system or ''}\n{prompt.suffix}"
    return tuple(mark for mark in MARKS if _ASKS[mark].search(text))


def refused(rewards: Rewards, prompt: Prompt) -> str | None:
    """Why marks that were chosen one by one cannot be earned under a prompt, with the mend; None where they can."""
    if isinstance(rewards.marks, str) or set(rewards.marks) & set(asked_marks(prompt)):
        return None
    return (
        f"rewards.marks is {', '.join(rewards.marks)}, and the prompt asks for no such mark: say in prompt.suffix or "
        "prompt.system how the answer is to be marked, as in 'put your final answer within \\boxed{}'"
    )


def unasked(rewards: Rewards, prompt: Prompt) -> list[str]:
    """A warning where rewards count marked answers and the prompt asks for no mark at all; else nothing.

    No error: many models mark their answers unasked, and the problems themselves may ask for it.
    """
    if rewards.counted is None or asked_marks(prompt):
        return []
    return [
        "rewards pay marked answers alone (rewards.marks), and neither prompt.suffix nor prompt.system asks for a "
        "mark: ask for one, as in 'put your final answer within \\boxed{}', or set rewards.marks to any, which "
        "pays the last number too"
    ]
