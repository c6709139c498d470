"""Verdicts: what the verifier says of one response, and the process-wide verifier behind ``judge_response``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dereason.problems.schema import Verdict
from dereason.verify.span import MARKS

VERIFIER_VERSION = "4"
"""Changes whenever a verdict could; it stands in every profile's provenance."""


@dataclass(frozen=True)
class Judgement:
    """What the verifier says of one response."""

    verdict: Verdict
    extracted: str | None
    """The answer found, None where there is none (or where it does not count: see ``reason``)."""
    reason: str
    """Why, in words. For the verdict ``error``: the cause."""
    kind: str | None = None
    """The reference's kind, which decides how answers are compared; None where the reference is unusable."""
    how: str | None = None
    """The rule that found the answer, None where there is none."""
    start: int | None = None
    """Where the answer begins in the response (character offset), None where there is none."""
    end: int | None = None
    """Where it ends, exclusive."""

    @property
    def strict(self) -> bool:
        """Whether the answer is correct and was found at a mark (one of ``MARKS``)."""
        return self.verdict is Verdict.CORRECT and self.how in MARKS

    def columns(self) -> dict[str, object]:
        """Its columns of the SAMPLE table."""
        return {
            "verdict": str(self.verdict),
            "strict": self.strict,
            "extracted": self.extracted,
            "reason": self.reason,
            "kind": self.kind,
            "how": self.how,
        }


def judge_response(response: str, hit_limit: bool, reference: str, options: Sequence[str] | None = None) -> Judgement:
    """Judge one response with the process-wide verifier; see :meth:`dereason.verify.verifier.Verifier.judge`."""
    from dereason.verify.verifier import default_verifier

    return default_verifier().judge(response, hit_limit, reference, options)


def verdict_counts(verdicts: Iterable[str]) -> dict[str, int]:
    """How many of each verdict, all five keys present.

    Raises:
        ValueError: a text that is no verdict.
    """
    counts = {verdict.value: 0 for verdict in Verdict}
    for verdict in verdicts:
        counts[Verdict(verdict).value] += 1
    return counts
