"""The recipe: one YAML file that says what is compared, read strictly.

Unknown keys and bad values are refused before any model is loaded, each with its line and a mend.
"""

from __future__ import annotations

import difflib
import os
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from dereason.difficulty.profiles import Profile
from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Evaluation
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.pipeline.probe import ProbedAnalysis
from dereason.pipeline.reading import NESTED_POLICIES, apply_override, parse, path_parts, read_yaml
from dereason.pipeline.start import Start
from dereason.problems.sources import Source
from dereason.routing.policies import DomainMatched, Policy, Random, Reversed, needs, sets
from dereason.routing.settings import Need
from dereason.settings import Settings
from dereason.supervision.settings import (
    CritiqueTargets,
    DataTargets,
    SelfTargets,
    Targets,
    asked_models,
    reads_profile,
)
from dereason.training.joint.settings import Joint
from dereason.training.launch import Launch
from dereason.training.rewards.asked import refused
from dereason.training.rewards.settings import Judge
from dereason.training.rl import RL
from dereason.training.sft import SFT
from dereason.verify.verifier import VerifierSettings


def _trainable(model: ModelSettings) -> ModelSettings:
    if model.backend == "api":
        raise ValueError("the student is trained, so its weights have to be here: backend `api` is for teachers")
    return model


Student = Annotated[ModelSettings, AfterValidator(_trainable)]
"""A model that is trained."""


class Problems(Settings):
    """The pool that is routed and the held-out problems that are scored."""

    train: Source
    """The pool: profiled, routed, trained on."""
    test: Source
    """Held-out problems; pool problems with the same question are dropped from the pool."""
    drop_unanswered: bool = False
    """Drop (and count) problems without a reference answer; false refuses them by row number."""
    audit: int = Field(default=200, ge=0)
    """Problems of the pool, and as many held-out ones, drawn at random, whose references are audited before anything
    else (`dereason problems audit` audits all, and says more); what it finds are warnings. 0 audits none."""


def _names(sets: str | list[str]) -> list[str]:
    return [sets] if isinstance(sets, str) else sets


class Imitates(Settings):
    """What phases share that are given targets."""

    set: str | list[str] = "sft"
    """Which routed set, or sets, it trains on."""
    targets: list[Targets] = Field(default=[DataTargets()], min_length=1)
    """What is imitated: one entry or several, whose targets add up; each may name the sets that it covers."""

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = [value]
        # the one style without a model is the default one
        return (
            [{"style": "solution", **v} if isinstance(v, dict) else v for v in value]
            if isinstance(value, list)
            else value
        )

    @model_validator(mode="after")
    def _entries_inside(self) -> Self:
        for at, entry in enumerate(self.targets):
            outside = [name for name in entry.sets() or [] if name not in _names(self.set)]
            if outside:
                raise ValueError(
                    f"targets[{at}].set names {', '.join(map(repr, outside))}, and the phase trains on "
                    f"{', '.join(map(repr, _names(self.set)))}"
                )
        return self


class SFTPhase(Imitates, SFT):
    """A supervised phase on one set."""

    kind: Literal["sft"]
    """Names this kind of phase."""


class JointPhase(Imitates, Joint):
    """A phase that mixes SFT on demonstrations and RL in its updates."""

    kind: Literal["joint"]
    """Names this kind of phase."""
    set: str | list[str] = "rl"
    """Which routed set, or sets, it trains on; its targets are the demonstrations."""


class RLPhase(RL):
    """A reinforcement-learning phase on one set."""

    kind: Literal["rl"]
    """Names this kind of phase."""
    set: str | list[str] = "rl"
    """Which routed set, or sets, it trains on."""
    start: Start | None = None
    """Which of the models that the SFT phase before it kept it begins with; null takes the last."""


Phase = Annotated[SFTPhase | RLPhase | JointPhase, Field(discriminator="kind")]


def set_names(phase: Phase) -> list[str]:
    """The sets that a phase trains on."""
    return _names(phase.set)


class Arm(Settings):
    """A routing policy and the phases that follow it: what gets compared."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Letters, digits, dot, dash and underscore."""
    route: Policy
    """How problems are assigned to sets."""
    phases: list[Phase] = Field(min_length=1)
    """Training phases in order; any order and number."""
    rounds: int = Field(default=1, gt=0, le=1000)
    """How often the phases are gone through. From the second round on, the pool is profiled by the arm's current model
    and routed anew, and `critique` targets come from the RL phase before."""

    def unrolled(self) -> list[Phase]:
        """The phases of all rounds, in order: number n of the run is item n - 1."""
        return self.phases * self.rounds

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        if _unresolved(self.route):
            return self
        offered = sets(self.route)
        for at, phase in enumerate(self.phases):
            for name in set_names(phase):
                if name not in offered:
                    raise ValueError(
                        f"phases[{at}].set is {name!r}, which the policy {self.route.policy!r} never fills "
                        f"(it fills {', '.join(sorted(offered))})"
                    )
        return self

    @model_validator(mode="after")
    def _failures_to_learn_from(self) -> Self:
        rl = [at for at, phase in enumerate(self.phases) if isinstance(phase, RL)]  # joint ones too
        for at, phase in enumerate(self.phases):
            found = [e for e in phase.targets if isinstance(e, CritiqueTargets)] if isinstance(phase, Imitates) else []
            if found and not (rl and (self.rounds > 1 or rl[0] < at)):
                raise ValueError(
                    f"phases[{at}].targets has style 'critique', which learns from the failures of an RL phase before "
                    "it: put one before it, or set rounds to 2 or more"
                )
            if found and isinstance(phase, Imitates) and len(found) == len(phase.targets) and rl[0] > at:
                raise ValueError(
                    f"phases[{at}].targets has nothing but style 'critique', and in the first round no RL phase has "
                    "failed before it: add another entry, or put an RL phase first"
                )
        return self

    @model_validator(mode="after")
    def _own_responses(self) -> Self:
        for at, phase in enumerate(self.phases):
            if at and isinstance(phase, Imitates):
                for entry in phase.targets:
                    if isinstance(entry, SelfTargets) and entry.n == 0:
                        raise ValueError(
                            f"phases[{at}].targets takes `self` targets from the profile alone (n: 0), and the profile "
                            "is of the model before the phases of its round: set n"
                        )
        return self

    @model_validator(mode="after")
    def _whole_weights_to_quantise(self) -> Self:
        for at, (before, phase) in enumerate(pairwise(self.phases), 1):
            kept = before.adapter is not None and not before.adapter.merge
            if kept and phase.adapter is not None and phase.adapter.quantise != "none":
                raise ValueError(
                    f"phases[{at}].adapter.quantise needs whole weights, and phases[{at - 1}] keeps an adapter beside "
                    "its base: let that one merge it"
                )
        return self

    @model_validator(mode="after")
    def _starts_to_choose_from(self) -> Self:
        for at, phase in enumerate(self.phases):
            before = self.phases[at - 1] if at else None
            if not isinstance(phase, RLPhase) or phase.start is None:
                continue
            if not isinstance(before, SFTPhase) or before.keep_checkpoints < 2:
                raise ValueError(
                    f"phases[{at}].start chooses among models that the phase before it kept: that has to be an SFT "
                    "phase with keep_checkpoints of 2 or more"
                )
        return self


class Recipe(Settings):
    """One experiment: problems, profile, arms, seeds, evaluation."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the run directory; letters, digits, dot, dash and underscore."""
    description: str = ""
    """One or two sentences for the report."""
    tried: str | None = None
    """On what it has been run as it stands, for `dereason recipes`; `never`: on nothing, its plan alone is checked;
    null: not said."""
    model: Student = ModelSettings()
    """The student: the model that is profiled, trained and evaluated."""
    prompt: Prompt = Prompt()
    """How questions are put, in every phase and in evaluation."""
    problems: Problems
    """Pool and held-out problems."""
    profile: Profile = Profile()
    """What is measured of each problem before routing."""
    arms: list[Arm] = Field(min_length=1)
    """What gets compared."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Training seeds; every arm is trained once with each."""
    evaluation: Evaluation = Evaluation()
    """How base and trained models are scored on the held-out problems."""
    analysis: ProbedAnalysis | None = None
    """How training reshaped reasoning: many responses of every stage to a few held-out problems, compared; null: not
    asked."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier that judges every response: in profiles, targets, rollouts and evaluation."""
    launch: Launch = Launch()
    """In how many processes phases train."""

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands twice")
        return seeds

    @model_validator(mode="before")
    @classmethod
    def _resolve_arm_references(cls, data: Any) -> Any:
        """Replace `like: NAME` and `of: NAME` by the named arm's own policy."""
        if not isinstance(data, dict) or not isinstance(data.get("arms"), list):
            return data
        named = [a for a in data["arms"] if isinstance(a, dict) and isinstance(a.get("name"), str)]
        routes = {a["name"]: a.get("route") for a in named}
        arms = [
            {**a, "route": _resolved(a.get("route"), routes, (a.get("name"),))} if isinstance(a, dict) else a
            for a in data["arms"]
        ]
        return {**data, "arms": arms}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [a.name for a in self.arms]
        if len(set(names)) != len(names):
            raise ValueError("two arms have the same name")
        for where, draws in (("profile.pass_rate", self.profile.pass_rate), ("evaluation", self.evaluation)):
            if draws.sampling.temperature is None:
                raise ValueError(
                    f"{where}.sampling.temperature is null, which leaves it to an endpoint; the student needs a number"
                )
        for arm in self.arms:
            for need in sorted(needs(arm.route)):
                if self.profilers()[need] is False:
                    raise ValueError(f"arm {arm.name!r} routes by {need}, and profile.{need}.enabled is false")
            for entry in entries(arm):
                if isinstance(entry, SelfTargets) and entry.n == 0 and self.profile.pass_rate.enabled is False:
                    raise ValueError(
                        f"arm {arm.name!r} takes `self` targets from the profile alone (n: 0), and "
                        "profile.pass_rate.enabled is false"
                    )
        return self

    @model_validator(mode="after")
    def _marks_are_asked_for(self) -> Self:
        for arm in self.arms:
            for at, phase in enumerate(arm.phases):
                if isinstance(phase, RL) and (why := refused(phase.rewards, self.prompt)) is not None:
                    raise ValueError(f"arm {arm.name!r}, phases[{at}]: {why}")
        return self

    def models(self) -> list[ModelSettings]:
        """Every model that the recipe names: student, judge, teachers, judges of rewards."""
        named: list[ModelSettings | None] = [self.model, self.profile.judge.model]
        for phase in (p for arm in self.arms for p in arm.phases):
            if isinstance(phase, Imitates):
                named += [model for entry in phase.targets for model in asked_models(entry)]
            if isinstance(phase, RL):
                named += judges(phase)
        return [m for m in named if m is not None]

    def measured(self) -> frozenset[Need]:
        """What is measured of the pool by the base model: what an arm reads, and what is asked for by name."""
        read = frozenset[Need]().union(*map(reads, self.arms))
        return frozenset(need for need, on in self.profilers().items() if on or (on is None and need in read))

    def profilers(self) -> dict[Need, bool | None]:
        """Which profilers are switched on or off by name; null leaves it to what the arms read."""
        return {"judge": self.profile.judge.enabled, "pass_rate": self.profile.pass_rate.enabled}


def reads(arm: Arm) -> frozenset[Need]:
    """What of the profile of its round an arm reads: its policy, and the targets of the first phase.

    In a later phase of the round the profile's responses are of a model before the one that is trained.
    """
    first = arm.phases[0]
    own = isinstance(first, Imitates) and any(map(reads_profile, first.targets))
    return needs(arm.route) | (frozenset[Need]({"pass_rate"}) if own else frozenset())


def entries(arm: Arm) -> list[Targets]:
    """The entries of the targets of all supervised phases of an arm."""
    return [entry for phase in arm.phases if isinstance(phase, Imitates) for entry in phase.targets]


def judges(phase: RL) -> list[ModelSettings]:
    """The models that judge answers for a phase's rewards."""
    return [reward.model for reward in phase.rewards.of if isinstance(reward, Judge)]


def _unresolved(policy: BaseModel) -> bool:
    if isinstance(policy, Random | Reversed | DomainMatched):
        inner = (
            policy.like if isinstance(policy, Random) else policy.of if isinstance(policy, Reversed) else policy.rule
        )
        return isinstance(inner, str) or _unresolved(inner)
    return False


FURTHEST = 20
"""Over how many other arms one may refer to another's policy."""


def _resolved(route: Any, routes: dict[Any, Any], trail: tuple[Any, ...]) -> Any:
    if not isinstance(route, dict):
        return route
    out = dict(route)
    for key in NESTED_POLICIES:
        inner = out.get(key)
        if isinstance(inner, str):
            if inner in trail:
                raise ValueError(f"arms refer to each other in a circle: {' -> '.join([*map(str, trail), inner])}")
            if len(trail) > FURTHEST:
                raise ValueError(f"arms refer to each other over more than {FURTHEST} others, from {trail[0]!r} on")
            if inner not in routes:
                raise ValueError(f"`{key}: {inner}` names no arm (arms: {', '.join(map(str, routes))})")
            out[key] = _resolved(routes[inner], routes, (*trail, inner))
        elif isinstance(inner, dict):
            out[key] = _resolved(inner, routes, trail)
    return out


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("dereason") / "recipes"))
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe by path, or a shipped one by name.

    Raises:
        DereasonError: there is none.
    """
    if os.path.isfile(name):
        return Path(name)
    if name in shipped():
        return shipped()[name]
    close = difflib.get_close_matches(name, shipped(), 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DereasonError(f"no recipe {name!r}", f"{hint}give a YAML file, or one of: {', '.join(shipped())}")


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` strings, values parsed as YAML; list items by number (``arms.0.name=x``).

    Raises:
        DereasonError: not YAML, an unknown key, a bad value; names the file and the line.
    """
    data, lines = read_yaml(path)
    for text in overrides or []:
        apply_override(data, text)
        lines[tuple(path_parts(text.split("=", 1)[0]))] = f"--set {text}"
    return parse(Recipe, data, str(path), lines)


def resolved_yaml(recipe: Recipe, base: Path | None = None) -> str:
    """The recipe with every default written out, as YAML; with ``base``, relative file paths made absolute."""
    data = recipe.model_dump(mode="json")
    for source in data["problems"].values():
        if base is not None and isinstance(source, dict) and source["source"] == "file":
            source["path"] = str((base / source["path"]).resolve())
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
