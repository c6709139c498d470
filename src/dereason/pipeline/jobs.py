"""Settings of single commands: sections of a recipe, and how their files are read."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from dereason.analysis.settings import Analysis
from dereason.difficulty.profiles import Profile
from dereason.evaluation.evaluate import Evaluation
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.pipeline.recipe import Student
from dereason.pipeline.responses import SampleFields
from dereason.problems.sources import ProblemFile
from dereason.routing.policies import Policy
from dereason.settings import Settings
from dereason.supervision.settings import DataTargets, Targets, scores
from dereason.training.joint.settings import Joint
from dereason.training.launch import Launch
from dereason.training.rewards.asked import refused
from dereason.training.rl import RL
from dereason.training.sft import SFT
from dereason.verify.verifier import VerifierSettings


class OverProblems(Settings):
    """What the settings of all single commands share."""

    problems: ProblemFile = ProblemFile()
    """How their problems are read."""


class ProfileJob(OverProblems):
    """Settings of ``dereason profile``."""

    model: ModelSettings = ModelSettings()
    """The student."""
    prompt: Prompt = Prompt()
    """How questions are put."""
    profile: Profile = Profile()
    """What is measured."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier."""


class RouteJob(OverProblems):
    """Settings of ``dereason route``."""

    route: Policy
    """The routing policy."""


class SuperviseJob(OverProblems):
    """Settings of ``dereason supervise``."""

    model: ModelSettings = ModelSettings()
    """The student that will imitate them; loaded only where it responds or scores."""
    prompt: Prompt = Prompt()
    """How questions are put."""
    targets: Targets = DataTargets()
    """What targets are built."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier."""

    @model_validator(mode="after")
    def _weights_to_score(self) -> Self:
        if self.model.backend == "api" and scores(self.targets):
            raise ValueError(
                "these targets are measured by the student's likelihood, which needs its weights: model.backend `api` "
                "has none"
            )
        return self


class SFTJob(OverProblems):
    """Settings of ``dereason train sft``."""

    model: Student = ModelSettings()
    """Where training starts."""
    prompt: Prompt = Prompt()
    """How questions are put."""
    phase: SFT = SFT()
    """The phase."""
    seed: int = 0
    """Training seed."""
    launch: Launch = Launch()
    """In how many processes it trains."""


class RLJob(OverProblems):
    """Settings of ``dereason train rl``."""

    model: Student = ModelSettings()
    """Where training starts."""
    prompt: Prompt = Prompt()
    """How questions are put."""
    set: str = "rl"
    """Which routed set it trains on, where routes are given."""
    phase: RL = RL()
    """The phase."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier."""
    seed: int = 0
    """Training seed."""
    launch: Launch = Launch()
    """In how many processes it trains."""

    @model_validator(mode="after")
    def _marks_are_asked_for(self) -> Self:
        if (why := refused(self.phase.rewards, self.prompt)) is not None:
            raise ValueError(f"phase.{why}")
        return self


class JointJob(RLJob):
    """Settings of ``dereason train joint``."""

    phase: Joint = Joint()
    """The phase."""


class ExportJob(RLJob):
    """Settings of ``dereason export`` over files."""

    held_out: ProblemFile | None = None
    """How the file of `--test` is read; null: as the problems are."""


class EvalJob(OverProblems):
    """Settings of ``dereason eval``."""

    model: ModelSettings = ModelSettings()
    """The model that is scored."""
    prompt: Prompt = Prompt()
    """How questions are put."""
    evaluation: Evaluation = Evaluation()
    """How it is scored."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier."""


class AnalyzeJob(OverProblems):
    """Settings of ``dereason analyze``."""

    samples: SampleFields = SampleFields()
    """Which fields of the samples hold what."""
    analysis: Analysis = Analysis()
    """What is measured."""
    base: str | None = None
    """The model that others are compared with; null takes the first."""
    compare: list[str] = []
    """What is compared: BEFORE:AFTER, or BEFORE:AFTER:PHASE (sft, rl, joint); empty: every model with the base."""
    pool: bool = False
    """Whether all samples are taken for samples of one model."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier, where it judges."""


JOBS: dict[
    Literal["profile", "route", "supervise", "sft", "rl", "joint", "export", "eval", "analyze"], type[Settings]
] = {
    "profile": ProfileJob,
    "route": RouteJob,
    "supervise": SuperviseJob,
    "sft": SFTJob,
    "rl": RLJob,
    "joint": JointJob,
    "export": ExportJob,
    "eval": EvalJob,
    "analyze": AnalyzeJob,
}
