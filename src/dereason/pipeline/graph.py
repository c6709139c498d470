"""The steps of a recipe, by content: which there are, which need which, in the order they run.

Keys come from settings alone, so the whole graph, and what of it is cached, is known before anything runs. The steps
themselves are made in :mod:`dereason.pipeline.build`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from dereason.pipeline.store import Step


@dataclass(frozen=True)
class Round:
    """One round of one arm: what its phases are routed by.

    Attributes:
        arm: name of the arm.
        seed: training seed.
        number: 1, 2, ...
        pass_rate: the current model's pass rates; None where nothing reads them.
        profile: profiles; None where nothing reads them.
        route: the step that assigns problems to sets.
    """

    arm: str
    seed: int
    number: int
    pass_rate: Step | None
    profile: Step | None
    route: Step


@dataclass(frozen=True)
class Stage:
    """A model that is evaluated: the base, or what one phase of one arm left behind.

    Attributes:
        arm: name of the arm.
        seed: training seed.
        name: ``base``, ``1-sft``, ``2-rl``, ...
        phase: 0 for the base, else the number of the phase, counted through all rounds.
        evaluation: the step that scores it.
        round: the round that the phase belongs to, 0 for the base.
        training: the step that made it, None for the base.
        targets: the targets that it was trained on, None for the base and for RL.
        probe: the step that draws its responses for the analysis, None without one.
    """

    arm: str
    seed: int
    name: str
    phase: int
    evaluation: Step
    round: int = 0
    training: Step | None = None
    targets: Step | None = None
    probe: Step | None = None


@dataclass(frozen=True)
class Graph:
    """All steps of a recipe.

    Attributes:
        problems: the pool and the held-out problems.
        audit: what a sample of the references is like; None where none is asked for.
        judge: judge scores of the pool; None where nothing reads them.
        rounds: every round of every arm and seed, in order.
        stages: every model that is evaluated, in order.
        analysis: the analysis of what their probes drew; None where the recipe asks for none.
    """

    problems: Step
    audit: Step | None
    judge: Step | None
    rounds: list[Round]
    stages: list[Stage]
    analysis: Step | None = None

    @cached_property
    def _first_rounds(self) -> dict[str, Round]:
        return {r.arm: r for r in reversed(self.rounds) if r.number == 1}

    def first_round(self, arm: str) -> Round:
        """The first round of an arm, which all seeds share."""
        return self._first_rounds[arm]

    @property
    def pass_rate(self) -> Step | None:
        """The base model's pass rates; None where nothing reads them."""
        return self.rounds[0].pass_rate

    @property
    def profile(self) -> Step | None:
        """The base model's profiles; None where nothing reads them."""
        return self.rounds[0].profile

    def steps(self) -> Iterator[Step]:
        """Every step once, each after its inputs; all routes of first rounds come before any training."""
        found: dict[str, Step] = {}

        def visit(*steps: Step | None) -> None:
            waiting = [step for step in reversed(steps) if step is not None]
            while waiting:  # no recursion: a line of many rounds is longer than Python's stack
                step = waiting[-1]
                needed = [s for s in step.inputs.values() if s.folder not in found]
                if needed and step.folder not in found:
                    waiting += reversed(needed)
                else:
                    found.setdefault(step.folder, step)
                    waiting.pop()

        visit(self.problems, self.audit, self.judge)
        for round_ in self.rounds:
            if round_.number == 1:
                visit(round_.pass_rate, round_.profile, round_.route)
        rounds = {(r.arm, r.seed, r.number): r for r in self.rounds}
        for stage in self.stages:
            # no phase need read a later round's profile, and the summary does
            if (its := rounds.get((stage.arm, stage.seed, stage.round))) is not None:
                visit(its.pass_rate, its.profile, its.route)
            visit(stage.evaluation, stage.probe)
        visit(self.analysis)
        yield from found.values()
