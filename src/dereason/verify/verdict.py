"""From a response to a verdict: extraction, then comparison.

The rule for responses that were cut off: an answer that says it is one (a box, "final answer", ``####``, a
choice letter as the conclusion) counts whatever comes after it; a bare number in the middle of a cut-off
calculation is no answer. Truncation alone never makes a response wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dereason.problems.schema import Verdict
from dereason.verify.equivalence import equivalent, is_numeric
from dereason.verify.extract import extract

VERIFIER_VERSION = "1"
"""Changes whenever a verdict could; it stands in every profile's provenance."""

_HOW = {
    "boxed": "boxed",
    "final_answer": "stated as the answer",
    "hash": "after ####",
    "letter": "concluding letter",
    "number": "last number",
}


@dataclass(frozen=True)
class Judgement:
    """What the verifier says of one response."""

    verdict: Verdict
    extracted: str | None
    """The answer found, None where there is none (or where it does not count: see ``reason``)."""
    reason: str
    """Why, in words."""


def judge_response(response: str, hit_limit: bool, reference: str, options: Sequence[str] | None = None) -> Judgement:
    """Judge one response.

    Args:
        response: the generated text, without the prompt.
        hit_limit: whether generation stopped at the length limit.
        reference: the problem's answer.
        options: the choices of a multiple-choice problem, in order.

    Never raises: whatever goes wrong becomes the verdict ``error`` with its cause.
    """
    options = options or None
    try:
        found = extract(response, numeric=options is None and is_numeric(reference), options=options)
        if found is None or (found.how == "number" and hit_limit):
            if hit_limit:
                return Judgement(Verdict.TRUNCATED, None, "the length limit came before any answer")
            return Judgement(Verdict.UNPARSABLE, None, "no answer found")
        right, why = equivalent(found.text, reference, options)
    # A response is arbitrary text. Whatever it does to the verifier must cost one sample, not the run, and
    # must not count against the model.
    except Exception as exc:
        return Judgement(Verdict.ERROR, None, f"verifier failed: {type(exc).__name__}: {exc}")
    return Judgement(Verdict.CORRECT if right else Verdict.WRONG, found.text, f"{_HOW[found.how]}: {why}")


def verdict_counts(verdicts: Iterable[str]) -> dict[str, int]:
    """How many of each verdict, all five keys present.

    Raises:
        ValueError: a text that is no verdict.
    """
    counts = {verdict.value: 0 for verdict in Verdict}
    for verdict in verdicts:
        counts[Verdict(verdict).value] += 1
    return counts
