"""What an SFT phase imitates: the settings of every way to get targets. Imports no tables.

An entry of ``targets`` names a style; several entries add up. To add a style, write its settings here (and its line in
``Targets``), a module beside this one that builds its candidates, and its line in :mod:`dereason.supervision.build`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dereason.lm.base import Sampling, check_draws
from dereason.lm.local.model import ModelSettings
from dereason.settings import Settings
from dereason.supervision.wording import BRIDGE, DIAGNOSIS, NEW_TRACE, REPAIR, STRAY, check_slots

Choice = Literal["first", "shortest", "likelihood", "diverse"]
"""How the best of several accepted candidates are found.

``first``: in the order they were drawn. ``shortest``: fewest tokens. ``likelihood``: lowest negative log-likelihood
per token under the student. ``diverse``: the shortest, then again and again the one least like those taken.
"""

CritiqueKind = Literal["diagnosis", "repair", "new_trace"]
"""``diagnosis``: where and why a failed attempt fails. ``repair``: a correct end to its correct beginning.
``new_trace``: a fresh correct solution."""


class TeacherSampling(Sampling):
    """How a teacher responds."""

    temperature: float | None = Field(default=0.7, ge=0)
    """Softmax temperature; 0 takes the most probable token (greedy), null leaves it to the endpoint
    (`backend: api` only)."""
    max_new_tokens: int = Field(default=4096, gt=0)
    """Length limit of a response, in tokens, the end token included."""


class CriticSampling(TeacherSampling):
    """How a critic responds."""

    temperature: float | None = Field(default=0.3, ge=0)
    """Softmax temperature; 0.3 is critique fine-tuning's (arXiv 2501.17703). 0 takes the most probable token (greedy),
    null leaves it to the endpoint (`backend: api` only)."""


class Entry(Settings):
    """What every entry of `targets` has."""

    set: str | list[str] | None = None
    """Which routed sets it covers; null covers all of the phase's."""
    student_nll: bool = False
    """Measure the student's likelihood of each target, for the report; styles that choose by it always do."""

    def sets(self) -> list[str] | None:
        """The sets by name; None for the phase's own."""
        return [self.set] if isinstance(self.set, str) else self.set


class DataTargets(Entry):
    """What the data itself carries; no model is asked."""

    style: Literal["solution", "steps", "answer"] = "solution"
    """The data's worked solution, steps derived from an arithmetic expression, or the bare answer."""
    keep: Literal["accepted", "all"] = "accepted"
    """Take targets that the verifier accepts, or all."""


class TeacherTargets(Entry):
    """Responses of another model."""

    style: Literal["teacher"]
    """Names this style."""
    teacher: ModelSettings
    """The teaching model."""
    n: int = Field(default=1, gt=0)
    """Responses drawn per problem."""
    choose: Choice = "first"
    """How the best of them are found: first, shortest, likelihood (under the student) or diverse."""
    per_problem: int = Field(default=1, gt=0)
    """Most targets of one problem."""
    keep: Literal["accepted", "all"] = "accepted"
    """Take responses that the verifier accepts, or all (DeReason's are unfiltered)."""
    thoughts: Literal["keep", "drop"] = "keep"
    """Whether what the teacher thinks aloud (`<think>...</think>`) is imitated too, or left out."""
    sampling: TeacherSampling = TeacherSampling()
    """How the teacher responds."""
    seed: int = 0
    """Seed of the sampling streams."""

    @model_validator(mode="after")
    def _enough(self) -> TeacherTargets:
        if self.per_problem > self.n:
            raise ValueError(f"per_problem is {self.per_problem}, and only n = {self.n} responses are drawn")
        check_draws(self.sampling, self.n, "n", endpoint=self.teacher.backend == "api")
        return self


class SelfTargets(Entry):
    """The student's own correct responses (rejection sampling)."""

    style: Literal["self"]
    """Names this style."""
    n: int = Field(default=4, ge=0)
    """Responses drawn per problem, besides those that the profile drew."""
    from_profile: bool = True
    """Whether correct responses that the profile drew from the same student are candidates too; they cost nothing."""
    choose: Choice = "shortest"
    """How the best of the correct ones are found: first, shortest, likelihood or diverse."""
    per_problem: int = Field(default=1, gt=0)
    """Most targets of one problem."""
    sampling: Sampling = Sampling()
    """How the student responds."""
    seed: int = 1
    """Seed of the sampling streams; another one than the profile's, or the same responses are drawn again."""

    @model_validator(mode="after")
    def _some(self) -> SelfTargets:
        if self.n == 0 and not self.from_profile:
            raise ValueError("n is 0 and from_profile is false: there would be no response to choose from")
        check_draws(self.sampling, self.n, "n", endpoint=False)
        return self


class BridgeTargets(Entry):
    """Bridge: a worked trace of a hard problem, rewritten so that this student can learn it (arXiv 2606.04466).

    How the paper rewrites is not known to us; what is asked and how a rewrite is chosen are ours.
    """

    style: Literal["bridge"]
    """Names this style."""
    teacher: ModelSettings
    """The model that rewrites (and that writes the raw traces, with `traces: teacher`)."""
    traces: Literal["solution", "steps", "teacher"] = "solution"
    """The raw traces: the data's worked solutions, steps derived from an expression, or verified teacher responses."""
    n: int = Field(default=4, gt=0)
    """Rewrites drawn per problem."""
    trace_n: int = Field(default=4, gt=0)
    """Raw traces drawn per problem, with `traces: teacher`; the shortest correct one is rewritten."""
    instructions: str = BRIDGE
    """What the teacher is told; `{problem}`, `{trace}` and `{attempt}` are filled in."""
    min_words: int = Field(default=3, ge=0)
    """Fewest words before the final answer: a bare answer verifies too, and teaches no reasoning."""
    stray: list[str] = list(STRAY)
    """Phrases (lower case) that betray the rewriting and refuse a rewrite, unless its problem has them as well."""
    fallback: Literal["none", "raw"] = "none"
    """What a problem without an accepted rewrite gets: nothing, or its raw trace where that is correct."""
    sampling: TeacherSampling = TeacherSampling()
    """How the teacher responds."""
    seed: int = 0
    """Seed of the sampling streams."""

    @model_validator(mode="after")
    def _draws(self) -> BridgeTargets:
        endpoint = self.teacher.backend == "api"
        check_draws(self.sampling, self.n, "n", endpoint=endpoint)
        if self.traces == "teacher":
            check_draws(self.sampling, self.trace_n, "trace_n", endpoint=endpoint)
        return self

    @field_validator("instructions")
    @classmethod
    def _slots(cls, text: str) -> str:
        return check_slots(text, {"problem", "trace"}, {"attempt"})


class CritiqueTargets(Entry):
    """Targets from problems whose whole rollout group failed in the RL phase before (arXiv 2606.04466, 2501.17703)."""

    style: Literal["critique"]
    """Names this style."""
    critic: ModelSettings
    """The model that diagnoses, repairs and solves."""
    kinds: list[CritiqueKind] = Field(default=["diagnosis", "repair", "new_trace"], min_length=1)
    """Which targets are built; a repair needs a diagnosis, which is then asked for and not imitated."""
    n: int = Field(default=4, gt=0)
    """Candidates drawn per problem and kind."""
    max_problems: int | None = Field(default=None, gt=0)
    """Most failed problems taken, drawn at random; null takes all."""
    shown: Literal["none", "answer", "solution"] = "none"
    """What of the data the critic sees for repairs and new traces; never for a diagnosis, whose check would be void."""
    min_words: int = Field(default=3, ge=0)
    """Fewest words before the final answer (of a diagnosis: besides its closing lines); a bare one teaches nothing."""
    diagnosis: str = DIAGNOSIS
    """What the critic is asked for a diagnosis, and the student in training: `{problem}`, `{attempt}`."""
    repair: str = REPAIR
    """What the critic is told for a repair: `{problem}`, `{prefix}`, `{shown}`."""
    new_trace: str = NEW_TRACE
    """What the critic is told for a new trace: `{problem}`, `{shown}`."""
    sampling: CriticSampling = CriticSampling()
    """How the critic responds."""
    seed: int = 0
    """Seed of the sampling streams and of the draw of problems."""

    @model_validator(mode="after")
    def _draws(self) -> CritiqueTargets:
        check_draws(self.sampling, self.n, "n", endpoint=self.critic.backend == "api")
        return self

    @field_validator("diagnosis")
    @classmethod
    def _diagnosis_slots(cls, text: str) -> str:
        return check_slots(text, {"problem", "attempt"}, set())

    @field_validator("repair")
    @classmethod
    def _repair_slots(cls, text: str) -> str:
        return check_slots(text, {"problem", "prefix"}, {"shown"})

    @field_validator("new_trace")
    @classmethod
    def _new_trace_slots(cls, text: str) -> str:
        return check_slots(text, {"problem"}, {"shown"})


Targets = Annotated[
    DataTargets | TeacherTargets | SelfTargets | BridgeTargets | CritiqueTargets, Field(discriminator="style")
]


def asked_models(entry: Targets) -> list[ModelSettings]:
    """The models besides the student that an entry asks."""
    if isinstance(entry, TeacherTargets | BridgeTargets):
        return [entry.teacher]
    return [entry.critic] if isinstance(entry, CritiqueTargets) else []


def scores(entry: Targets) -> bool:
    """Whether the student's likelihood is measured for an entry, which needs its weights."""
    if entry.student_nll or isinstance(entry, BridgeTargets):
        return True
    if isinstance(entry, CritiqueTargets):  # repairs and new traces are chosen by likelihood
        return entry.kinds != ["diagnosis"]
    return isinstance(entry, TeacherTargets | SelfTargets) and entry.choose == "likelihood"


def needs_student(entry: Targets) -> bool:
    """Whether the student generates or scores for an entry."""
    return scores(entry) or isinstance(entry, SelfTargets)


def reads_profile(entry: Targets) -> bool:
    """Whether the profile's responses are read where there are some."""
    return isinstance(entry, BridgeTargets) or (isinstance(entry, SelfTargets) and entry.from_profile)


def responses_per_problem(entry: Targets) -> int:
    """How many responses an entry draws for a problem, at most."""
    match entry:
        case DataTargets():
            return 0
        case TeacherTargets() | SelfTargets():
            return entry.n
        case BridgeTargets():
            return entry.n + (entry.trace_n if entry.traces == "teacher" else 0)
        case CritiqueTargets():
            kinds = {*entry.kinds, *(["diagnosis"] if "repair" in entry.kinds else [])}
            return entry.n * len(kinds)
