"""The settings of every routing policy, and what can be said of a policy without routing anything.

Sets are names. Two have a meaning to the shipped policies: ``sft`` and ``rl`` are what ``reversed`` swaps,
and ``drop`` is trained on by no phase. Imports no tables, so that recipes are checked fast.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dereason.errors import DereasonError
from dereason.settings import Settings

Need = Literal["judge", "pass_rate"]
SetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, le=1)]

SFT, RL, DROP = "sft", "rl", "drop"
SWAPPED = {SFT: RL, RL: SFT}


class Threshold(Settings):
    """DeReason's rule (arXiv 2603.11193): judge scores at or above a threshold go to RL, the rest to SFT."""

    policy: Literal["threshold"] = "threshold"
    """The name of this policy."""
    at: Annotated[float, Field(ge=1, le=5)] = 4
    """The lowest judge score that goes to rl; the paper's is 4."""
    score: Literal["mode", "expectation"] = "mode"
    """Which judge score is compared: its most probable integer, or its expectation over 1..5."""


class Quantile(Settings):
    """The hardest share goes to RL, the rest to SFT, whatever the scale of the scores."""

    policy: Literal["quantile"] = "quantile"
    """The name of this policy."""
    score: Literal["judge", "pass_rate"] = "judge"
    """What ranks problems: the judge's expectation (high: hard) or the student's pass rate (low: hard)."""
    rl_fraction: Share = 0.5
    """The share of the problems left after dropping that goes to rl, the hardest ones."""
    drop_hardest: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of all problems that is dropped from the hard end."""
    drop_easiest: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of all problems that is dropped from the easy end."""
    seed: int = 0
    """Orders problems whose scores are tied."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Quantile:
        if self.drop_hardest + self.drop_easiest >= 1:
            raise ValueError("drop_hardest and drop_easiest drop everything; make their sum less than 1")
        return self


class Random(Settings):
    """As many problems in each set as another policy puts there, drawn at random: the usual control."""

    policy: Literal["random"] = "random"
    """The name of this policy."""
    like: Policy | str
    """The policy whose set sizes are copied, or the name of the arm that has it."""
    seed: int = 0
    """Decides the draw."""


class Reversed(Settings):
    """Another policy with sft and rl swapped: hard to SFT, easy to RL."""

    policy: Literal["reversed"] = "reversed"
    """The name of this policy."""
    of: Policy | str
    """The policy that is reversed, or the name of the arm that has it."""


class DomainMatched(Settings):
    """Another policy applied inside each domain by itself: a split by difficulty but not by domain."""

    policy: Literal["domain_matched"] = "domain_matched"
    """The name of this policy."""
    rule: Policy | str
    """The policy applied in each domain, or the name of the arm that has it; quantile is the useful one."""


class PassRate(Settings):
    """Three tiers of the student's own correctness rate (arXiv 2606.04466).

    The paper trains SFT on the medium and hard tiers; whether simple problems join RL is not said there. That
    they go to RL by default is our choice.
    """

    policy: Literal["pass_rate"] = "pass_rate"
    """The name of this policy."""
    simple_at: Share = 0.75
    """The lowest pass rate of the simple tier."""
    hard_below: Share = 0.25
    """The pass rate below which a problem is in the hard tier; the medium tier is what lies between."""
    simple: SetName = RL
    """The set that the simple tier goes to (our choice: the paper leaves it open)."""
    medium: SetName = SFT
    """The set that the medium tier goes to."""
    hard: SetName = SFT
    """The set that the hard tier goes to."""

    @model_validator(mode="after")
    def _tiers_in_order(self) -> PassRate:
        if self.hard_below > self.simple_at:
            raise ValueError("hard_below is greater than simple_at; give hard_below the smaller value")
        return self


class All(Settings):
    """Everything to one set: SFT only, or RL only."""

    policy: Literal["all"] = "all"
    """The name of this policy."""
    set: SetName = SFT
    """The set that every problem goes to."""


Policy = Annotated[
    Threshold | Quantile | Random | Reversed | DomainMatched | PassRate | All, Field(discriminator="policy")
]
for _model in (Random, Reversed, DomainMatched):
    _model.model_rebuild()


def needs(policy: Policy) -> frozenset[Need]:
    """Which profiles a policy reads; a nested policy's too.

    Raises:
        DereasonError: the policy still holds an arm's name.
    """
    match policy:
        case Threshold():
            return frozenset({"judge"})
        case Quantile():
            return frozenset({policy.score})
        case PassRate():
            return frozenset({"pass_rate"})
        case All():
            return frozenset()
        case _:
            return needs(inner_policy(policy))


def sets(policy: Policy) -> frozenset[str]:
    """The names of the sets that a policy can produce.

    Raises:
        DereasonError: the policy still holds an arm's name.
    """
    match policy:
        case Threshold():
            return frozenset({SFT, RL})
        case Quantile():
            return frozenset({SFT, RL} | ({DROP} if policy.drop_hardest or policy.drop_easiest else set()))
        case PassRate():
            return frozenset({policy.simple, policy.medium, policy.hard})
        case All():
            return frozenset({policy.set})
        case Reversed():
            return frozenset(SWAPPED.get(name, name) for name in sets(inner_policy(policy)))
        case _:
            return sets(inner_policy(policy))


def describe(policy: Policy) -> str:
    """The policy as one sentence for people. Works with arms' names as well."""
    text = _clause(policy)
    return f"{text[0].upper()}{text[1:]}."


def inner_policy(policy: Random | Reversed | DomainMatched) -> Policy:
    """The nested policy.

    Raises:
        DereasonError: it is still an arm's name.
    """
    nested = _nested(policy)
    if isinstance(nested, str):
        raise DereasonError(
            f"the {policy.policy} policy refers to the arm {nested!r}, which has not been resolved",
            "put that arm's policy in its place, or run the recipe that has the arm",
        )
    return nested


def _nested(policy: Random | Reversed | DomainMatched) -> Policy | str:
    match policy:
        case Random():
            return policy.like
        case Reversed():
            return policy.of
        case DomainMatched():
            return policy.rule


def innermost_policy(policy: Policy) -> tuple[Threshold | Quantile | PassRate | All, list[str]]:
    """The policy that nests no other, and the names of those around it, outermost first."""
    around: list[str] = []
    while isinstance(policy, Random | Reversed | DomainMatched):
        around.append(policy.policy)
        policy = inner_policy(policy)
    return policy, around


def label(policy: Policy) -> str:
    """The policy's name with the names of those inside it, as in ``random(quantile)``."""
    if isinstance(policy, Random | Reversed | DomainMatched):
        return f"{policy.policy}({label(inner_policy(policy))})"
    return policy.policy


def _clause(policy: Policy | str) -> str:
    match policy:
        case str():
            return f"the policy of arm {policy}"
        case Threshold():
            what = "most probable score" if policy.score == "mode" else "expected score"
            return f"problems whose {what} by the judge is {policy.at:g} or more go to rl, the others to sft"
        case Quantile():
            by = "by the judge's expected score" if policy.score == "judge" else "by the student's pass rate"
            drops = [f"the hardest {_percent(policy.drop_hardest)}"] * bool(policy.drop_hardest)
            drops += [f"the easiest {_percent(policy.drop_easiest)}"] * bool(policy.drop_easiest)
            left = f" left after dropping {' and '.join(drops)}" if drops else ""
            return f"the hardest {_percent(policy.rl_fraction)} {by}{left} go to rl, the rest to sft"
        case Random():
            return f"a random split (seed {policy.seed}) with the same set sizes as: {_clause(policy.like)}"
        case Reversed():
            return f"with sft and rl swapped: {_clause(policy.of)}"
        case DomainMatched():
            return f"inside each domain by itself: {_clause(policy.rule)}"
        case PassRate():
            return (
                f"by the student's pass rate: simple ({policy.simple_at:g} or more) to {policy.simple}, "
                f"medium to {policy.medium}, hard (below {policy.hard_below:g}) to {policy.hard}"
            )
        case All():
            return f"every problem goes to {policy.set}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
