"""Whether what is asked of each model fits its context, by configurations alone: before anything is loaded or drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from dereason.difficulty.judge import Judge as JudgeProfiler
from dereason.lm.base import Message
from dereason.lm.local.context import Context, context_of
from dereason.lm.local.lengths import longest_prompt
from dereason.lm.local.model import ModelSettings, VllmSettings
from dereason.lm.local.room import check_length
from dereason.lm.local.shape import shape_of
from dereason.lm.prompts import Prompt
from dereason.pipeline.jobs import EvalJob, ProfileJob, RLJob, SFTJob, SuperviseJob
from dereason.pipeline.recipe import Imitates, Recipe, RLPhase
from dereason.problems.schema import read_table
from dereason.settings import Settings
from dereason.supervision.settings import (
    BridgeTargets,
    CritiqueTargets,
    DataTargets,
    SelfTargets,
    Targets,
    TeacherTargets,
)
from dereason.training.joint.settings import Joint
from dereason.training.rewards.settings import Judge
from dereason.training.rl import RL
from dereason.training.sft import SFT

Whose = Literal["train", "test"]


@dataclass(frozen=True)
class Ask:
    """Something that is asked of a model.

    Attributes:
        model: which.
        setting: the setting that bounds the new tokens, or the whole text.
        new_tokens: tokens that may follow the prompt; 0 where nothing is generated.
        whole: tokens of the longest text, where the setting bounds prompt and response together.
        problems: whose prompts they are; None where the prompts are not the problems' own.
        judge: where the judge profiler words them.
    """

    model: ModelSettings
    setting: str
    new_tokens: int = 0
    whole: int | None = None
    problems: Whose | None = None
    judge: JudgeProfiler | None = None


def context_of_model(model: ModelSettings) -> Context | None:
    """The room that a model has, by its configuration; None where it has no end, or the file is not on this machine."""
    shape = shape_of(model)
    return context_of(model, None) if shape is None else shape.context(model)


def check_contexts(asks: Sequence[Ask], longest: Callable[[Ask], int | None] = lambda ask: None) -> None:
    """Refuse what does not fit a model's context.

    Args:
        asks: what is asked.
        longest: tokens of the longest prompt of an ask; None where it is not known.

    Raises:
        DereasonError: something does not fit.
    """
    for ask in asks:
        room = context_of_model(ask.model)
        if room is None:
            continue
        if ask.whole is not None:
            check_length(ask.model.name, room, ask.whole, 0, ask.setting, ask.setting)
            continue
        if ask.new_tokens:
            check_length(ask.model.name, room, None, ask.new_tokens, ask.setting, ask.setting)
        if (prompt := longest(ask)) is not None:
            setting = ask.setting if ask.new_tokens else None
            check_length(ask.model.name, room, prompt, ask.new_tokens, setting, ask.setting)


def unknown_contexts(asks: Sequence[Ask]) -> list[str]:
    """Of which models the context could not be looked up, in words, each once, with how to have it looked up."""
    names = {
        ask.model.name: ask.model.revision
        for ask in asks
        if ask.model.backend != "api" and shape_of(ask.model) is None and ask.model.max_positions is None
    }
    return [
        f"the configuration of {name} is not on this machine: its context and memory are not checked; have it by `hf "
        f"download {name} config.json{'' if revision is None else f' --revision {revision}'}`, name a folder that has "
        "it, or write its sizes into model.config"
        for name, revision in names.items()
    ]


@dataclass(frozen=True)
class Pool:
    """Problems at hand.

    Attributes:
        name: tells them from all others.
        load: gives the PROBLEM table.
    """

    name: str
    load: Callable[[], pl.DataFrame]


def pools_in(folder: Path) -> dict[Whose, Pool]:
    """The problems of a finished step that loaded them, by its folder, whose name is the step's key."""

    def pool(whose: Whose) -> Pool:
        return Pool(f"{folder.name} {whose}", lambda: read_table("problem", folder / f"{whose}.parquet"))

    sides: tuple[Whose, ...] = ("train", "test")
    return {whose: pool(whose) for whose in sides if (folder / f"{whose}.parquet").is_file()}


class Prompts:
    """The longest prompts of some problems."""

    def __init__(self, prompt: Prompt, pools: Mapping[Whose, Pool]) -> None:
        """Keep the prompt's settings and the problems by whose they are, as far as they are at hand."""
        self.prompt, self.pools = prompt, pools
        self._found: dict[str, int | None] = {}

    def longest(self, ask: Ask) -> int | None:
        """Tokens of the longest prompt of an ask; None without the problems or the model's tokenizer.

        Raises:
            DereasonError: the tokenizer or its template cannot be used.
        """
        pool = None if ask.problems is None else self.pools.get(ask.problems)
        if pool is None:
            return None
        word: Callable[[str, list[str] | None], list[Message]] = self.prompt.messages
        worded = self.prompt.model_dump_json()
        if ask.judge is not None:
            word, worded = ask.judge.messages, ask.judge.rubric

        def make() -> list[list[Message]]:
            return [word(question, options) for question, options in pool.load().select("question", "options").rows()]

        return self._longest(ask.model, f"{worded} {pool.name}", make)

    def longest_solution(self, model: ModelSettings) -> int | None:
        """Tokens of the longest solution in the pool, with a template around it; None where it is not known."""
        pool = self.pools.get("train")
        if pool is None:
            return None

        def make() -> list[list[Message]]:
            return [[{"role": "user", "content": text}] for text in pool.load()["solution"].drop_nulls()]

        return self._longest(model, f"solutions {pool.name}", make)

    def _longest(self, model: ModelSettings, name: str, make: Callable[[], list[list[Message]]]) -> int | None:
        key = f"{model.name} {model.revision} {name}"
        if key not in self._found:
            self._found[key] = longest_prompt(model, name, make, self.prompt.chat_template_kwargs)
        return self._found[key]


def asks_of(recipe: Recipe) -> list[Ask]:
    """Everything that a recipe asks of models."""
    model, found = recipe.model, list[Ask]()
    evaluation = recipe.evaluation.sampling.max_new_tokens
    found.append(Ask(model, "evaluation.sampling.max_new_tokens", evaluation, problems="test"))
    measured = recipe.measured()
    if "judge" in measured:
        judge = recipe.profile.judge
        found.append(Ask(judge.model or model, "profile.judge", problems="train", judge=judge))
    if "pass_rate" in measured:
        tokens = recipe.profile.pass_rate.sampling.max_new_tokens
        found.append(Ask(model, "profile.pass_rate.sampling.max_new_tokens", tokens, problems="train"))
    if recipe.analysis is not None:
        tokens = recipe.analysis.sampling.max_new_tokens
        found.append(Ask(model, "analysis.sampling.max_new_tokens", tokens, problems="test"))
    for a, arm in enumerate(recipe.arms):
        attempt = max((p.max_new_tokens for p in arm.phases if isinstance(p, RL)), default=0)
        for p, phase in enumerate(arm.phases):
            where = f"arms.{a}.phases.{p}"
            found += _of_phase(phase, model, where)
            if isinstance(phase, RLPhase) and phase.start is not None and phase.start.sampling is not None:
                tokens = phase.start.sampling.max_new_tokens
                found.append(Ask(model, f"{where}.start.sampling.max_new_tokens", tokens, problems="train"))
            for t, entry in enumerate(phase.targets if isinstance(phase, Imitates) else ()):
                found += _of_targets(entry, model, f"{where}.targets.{t}", attempt)
    return found


def asks_of_job(job: Settings) -> list[Ask]:
    """What a single command asks of models."""
    if isinstance(job, EvalJob):
        return [Ask(job.model, "evaluation.sampling.max_new_tokens", job.evaluation.sampling.max_new_tokens)]
    if isinstance(job, ProfileJob) and job.profile.pass_rate.enabled is not False:
        tokens = job.profile.pass_rate.sampling.max_new_tokens
        return [Ask(job.model, "profile.pass_rate.sampling.max_new_tokens", tokens)]
    if isinstance(job, SuperviseJob):
        return list(_of_targets(job.targets, job.model, "targets", 0))
    return list(_of_phase(job.phase, job.model, "phase")) if isinstance(job, SFTJob | RLJob) else []


def _of_phase(phase: SFT | RL, model: ModelSettings, where: str) -> Iterator[Ask]:
    if isinstance(phase, SFT | Joint) and phase.max_length is not None:
        yield Ask(model, f"{where}.max_length", whole=phase.max_length)
    if not isinstance(phase, RL):
        return
    rollouts = Ask(model, f"{where}.max_new_tokens", phase.max_new_tokens, problems="train")
    yield rollouts
    if phase.rollouts.startswith("vllm") and phase.vllm.max_length is not None:
        yield Ask(model, f"{where}.vllm.max_length", whole=phase.vllm.max_length)
        served = {"backend": "vllm", "vllm": VllmSettings(max_length=phase.vllm.max_length)}
        yield replace(rollouts, model=model.model_copy(update=served))
    for r, reward in enumerate(phase.rewards.of):
        if isinstance(reward, Judge):
            yield Ask(reward.model, f"{where}.rewards.of.{r}.prompt.max_new_tokens", reward.prompt.max_new_tokens)


def _of_targets(entry: Targets, student: ModelSettings, where: str, attempt: int) -> Iterator[Ask]:
    """What building targets asks; ``attempt``: tokens of the longest rollout that a critic may be shown."""
    setting = f"{where}.sampling.max_new_tokens"
    match entry:
        case SelfTargets():
            yield Ask(student, setting, entry.sampling.max_new_tokens, problems="train")
        case TeacherTargets() | BridgeTargets():
            yield Ask(entry.teacher, setting, entry.sampling.max_new_tokens, problems="train")
        case CritiqueTargets():
            shown = attempt if entry.kinds != ["new_trace"] else 0
            yield Ask(entry.critic, setting, shown + entry.sampling.max_new_tokens, problems="train")
        case DataTargets():
            return
