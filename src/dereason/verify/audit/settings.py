"""What an audit looks at, and which of its shares are too large. The thresholds are ours."""

from __future__ import annotations

from pydantic import Field

from dereason.settings import Settings


class Limits(Settings):
    """Shares of the audited problems above which an audit fails (exit code 1). Ours."""

    unmet: float | None = Field(default=0.0, ge=0, le=1)
    """Most references that nothing can meet, or that no response ever will; null: any."""
    missed: float | None = Field(default=0.05, ge=0, le=1)
    """Most references of which a rewriting that says the same is not found correct; null: any."""
    loose: float | None = Field(default=0.01, ge=0, le=1)
    """Most references that something else meets: a near miss, another problem's answer, a list; null: any."""
    doubted: float | None = Field(default=0.05, ge=0, le=1)
    """Most references that the samples speak against; null: any."""


class Evidence(Settings):
    """When samples speak against a reference. Ours."""

    strong: float = Field(default=0.5, ge=0, le=1)
    """A model is strong where so large a share of its samples is correct, over all problems that it answered."""
    models: int = Field(default=2, gt=0)
    """So many strong models have to agree on another answer, each with more than half of its answers to the problem."""
    share: float = Field(default=0.5, ge=0, le=1)
    """More than this share of the strong models that answered the problem has to agree on it."""
    samples: int = Field(default=8, gt=0)
    """Where there is one strong model: so many answers to the problem it has to have given ..."""
    one_model: float = Field(default=0.75, ge=0.5, le=1)
    """... and so large a share of them has to be the same other answer, none the reference."""
    gap: float = Field(default=0.2, gt=0, le=1)
    """A model is weaker than another where its share of correct samples is so much smaller."""
    solved: int = Field(default=1, gt=0)
    """So many correct samples of a weaker model solve a problem ..."""
    never: int = Field(default=4, gt=0)
    """... that the stronger ones never do: so many samples of theirs, none correct."""


class AuditSettings(Settings):
    """What is audited."""

    size: int = Field(default=20_000, ge=0)
    """Problems that are audited, drawn at random from a larger pool; 0 for all."""
    seed: int = 0
    """Seed of that draw, and of the answers of other problems."""
    others: int = Field(default=2, ge=0)
    """Answers of other problems that are tried on each reference."""
    opinions: int = Field(default=200, ge=0)
    """Pairs at most of which math-verify is asked for a second opinion, and as many of those that failed; 0: none."""
    long_words: int = Field(default=25, gt=0)
    """A reference in words with more of them is one that no response will say. Ours."""
    shown: int = Field(default=20, gt=0)
    """Findings of each kind that text and page list; JSON has them all."""
    limits: Limits = Limits()
    """Shares that are too large."""
    evidence: Evidence = Evidence()
    """When samples speak against a reference."""
