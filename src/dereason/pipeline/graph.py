"""From a recipe to its steps: which exist, what each reads, in the order they run.

Keys come from settings alone, so the whole graph, and what of it is cached, is known before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dereason.lm.base import Sampling
from dereason.lm.local.model import ModelSettings, model_identity
from dereason.pipeline import actions
from dereason.pipeline.actions import Context
from dereason.pipeline.recipe import Arm, Recipe, RLPhase, SFTPhase, judges
from dereason.pipeline.start import Start, do_choose_start
from dereason.pipeline.store import Info, Step, read_json
from dereason.problems.schema import read_table
from dereason.problems.sources import fingerprint
from dereason.training.rl import RL
from dereason.training.sft import SFT


@dataclass(frozen=True)
class Stage:
    """A model that is evaluated: the base, or what one phase of one arm left behind.

    Attributes:
        arm: name of the arm.
        seed: training seed.
        name: ``base``, ``1-sft``, ``2-rl``, ...
        phase: 0 for the base, else the number of the phase.
        evaluation: the step that scores it.
        training: the step that made it, None for the base.
        targets: the targets that it was trained on, None for the base and for RL.
    """

    arm: str
    seed: int
    name: str
    phase: int
    evaluation: Step
    training: Step | None = None
    targets: Step | None = None


@dataclass(frozen=True)
class Graph:
    """All steps of a recipe.

    Attributes:
        problems, judge, pass_rate, profile: shared steps; None where no arm needs them.
        routes: by arm.
        stages: every model that is evaluated, in order.
    """

    problems: Step
    judge: Step | None
    pass_rate: Step | None
    profile: Step | None
    routes: dict[str, Step]
    stages: list[Stage]

    def steps(self) -> Iterator[Step]:
        """Every step once, each after its inputs; all routes come before any training."""
        seen: set[str] = set()

        def visit(step: Step | None) -> Iterator[Step]:
            if step is None or step.folder in seen:
                return
            seen.add(step.folder)
            for needed in step.inputs.values():
                yield from visit(needed)
            yield step

        yield from visit(self.problems)
        yield from visit(self.judge)
        yield from visit(self.pass_rate)
        yield from visit(self.profile)
        for step in self.routes.values():
            yield from visit(step)
        for stage in self.stages:
            yield from visit(stage.evaluation)


_LM = ("lm", "problems/schema.py")
_SAMPLING = (*_LM, "verify")


def build(recipe: Recipe, base: Path, ctx: Context) -> Graph:
    """The steps of a recipe.

    Args:
        recipe: the recipe.
        base: folder that relative paths in it start from.
        ctx: what the steps share when they run.
    """
    student: Info = {"model": model_identity(recipe.model), "prompt": recipe.prompt.model_dump(mode="json")}
    precision = recipe.model.numerics()
    verifier = {"verifier": recipe.verifier.key()}
    problems = _problems(recipe, base)
    needs = recipe.needs()
    profile = recipe.profile
    judge = pass_rate = profiles = None
    if needs and profile.judge.enabled:
        judge = _judge(recipe, problems, ctx)
    if needs and profile.pass_rate.enabled:
        pass_rate = Step(
            kind="pass-rate",
            config={**student, **precision, **verifier, "pass_rate": profile.pass_rate.model_dump(mode="json")},
            inputs={"problems": problems},
            rooms=(*_SAMPLING, "difficulty"),
            label=f"pass rate, {profile.pass_rate.k} responses each",
            action=lambda work, at: actions.do_pass_rate(
                work, read_table("problem", at["problems"] / "train.parquet"), profile, recipe.model, ctx
            ),
        )
    if judge or pass_rate:
        profiles = _profiles(recipe, problems, judge, pass_rate, student["model"])
    routes = {arm.name: _route(arm, problems, profiles) for arm in recipe.arms}
    evaluation = recipe.evaluation.model_dump(mode="json")

    def evaluate(training: Step | None, label: str) -> Step:
        inputs = {"problems": problems} | ({"training": training} if training else {})

        def action(work: Path, at: dict[str, Path]) -> Info:
            model, identity, expected = starting_model(recipe.model, at.get("training"))
            return actions.do_eval(
                work,
                read_table("problem", at["problems"] / "test.parquet"),
                recipe.evaluation,
                model,
                identity=identity,
                expected_hash=expected,
                ctx=ctx,
            )

        config = {**student, **precision, **verifier, "evaluation": evaluation}
        return Step("eval", config, inputs, (*_SAMPLING, "evaluation"), label, action)

    stages: list[Stage] = []
    base_eval = evaluate(None, "evaluate base")
    for arm in recipe.arms:
        for seed in recipe.seeds:
            stages.append(Stage(arm.name, seed, "base", 0, base_eval))
            before: Step | None = None
            for number, phase in enumerate(arm.phases, 1):
                words = f"{arm.name}, seed {seed}, {number}-{phase.kind}"
                targets = None
                if isinstance(phase, SFTPhase):
                    targets = _targets(recipe, arm, number, phase, student, problems, routes[arm.name], ctx)
                    training = _train_sft(recipe, phase, seed, problems, targets, before, student, words, ctx)
                else:
                    chosen = None
                    if phase.start is not None and before is not None:
                        common = {**student, **precision, **verifier}
                        label = f"choose start, {words}"
                        chosen = _choose_start(
                            recipe, phase, phase.start, problems, routes[arm.name], before, common, label, ctx
                        )
                    training = _train_rl(
                        recipe, phase, seed, problems, routes[arm.name], before, chosen, student, words, ctx
                    )
                scored = evaluate(training, f"evaluate {words}")
                stages.append(Stage(arm.name, seed, f"{number}-{phase.kind}", number, scored, training, targets))
                before = training
    return Graph(problems, judge, pass_rate, profiles, routes, stages)


def starting_model(
    model: ModelSettings, training: Path | None, choice: Path | None = None
) -> tuple[ModelSettings, str | None, str | None]:
    """The model that a step begins with, its name, and the template hash that it must have.

    Args:
        model: the recipe's.
        training: folder of the phase before, if there is one.
        choice: folder of the step that chose among its models, if there is one.
    """
    if training is None:
        return model, None, None
    facts = read_json(training / "step.json")["info"]
    name = facts["model"] if choice is None else read_json(choice / "step.json")["info"]["chosen"]
    started = model.model_copy(update={"name": str(training / name), "revision": None})
    return started, training.name, facts["template_hash"]


def _problems(recipe: Recipe, base: Path) -> Step:
    spec = recipe.problems
    return Step(
        kind="problems",
        config={
            "train": fingerprint(spec.train, base),
            "test": fingerprint(spec.test, base),
            "drop_unanswered": spec.drop_unanswered,
        },
        inputs={},
        rooms=("problems",),
        label="problems",
        action=lambda work, at: actions.do_problems(work, spec.train, spec.test, base, spec.drop_unanswered),
    )


def _judge(recipe: Recipe, problems: Step, ctx: Context) -> Step:
    judge = recipe.profile.judge
    model = judge.model or recipe.model
    return Step(
        kind="judge",
        config={
            "model": model_identity(model),
            **model.numerics(),
            "kwargs": recipe.prompt.chat_template_kwargs,
            "judge": judge.model_dump(mode="json", exclude={"model"}),
        },
        inputs={"problems": problems},
        rooms=(*_LM, "difficulty"),
        label="judge, reasoning intensity 1-5",
        action=lambda work, at: actions.do_judge(
            work, read_table("problem", at["problems"] / "train.parquet"), recipe.profile, recipe.model, ctx
        ),
    )


def _profiles(recipe: Recipe, problems: Step, judge: Step | None, pass_rate: Step | None, model: str) -> Step:
    inputs = {"problems": problems}
    inputs |= {"judge": judge} if judge else {}
    inputs |= {"pass_rate": pass_rate} if pass_rate else {}

    def action(work: Path, at: dict[str, Path]) -> Info:
        pool = read_table("problem", at["problems"] / "train.parquet")
        return actions.do_profile(
            work, pool, at.get("judge"), at.get("pass_rate"), recipe.profile, recipe.prompt, model
        )

    return Step("profile", {"model": model}, inputs, ("difficulty", "problems/schema.py"), "profiles", action)


def _route(arm: Arm, problems: Step, profiles: Step | None) -> Step:
    inputs = {"problems": problems} | ({"profiles": profiles} if profiles else {})

    def action(work: Path, at: dict[str, Path]) -> Info:
        pool = read_table("problem", at["problems"] / "train.parquet")
        known = read_table("profile", at["profiles"] / "profiles.parquet") if "profiles" in at else None
        return actions.do_route(work, pool, known, arm.route)

    config = {"policy": arm.route.model_dump(mode="json")}
    return Step("route", config, inputs, ("routing", "problems/schema.py"), f"route, {arm.name}", action)


def _targets(
    recipe: Recipe,
    arm: Arm,
    number: int,
    phase: SFTPhase,
    student: Info,
    problems: Step,
    routes: Step,
    ctx: Context,
) -> Step:
    def action(work: Path, at: dict[str, Path]) -> Info:
        pool = read_table("problem", at["problems"] / "train.parquet")
        chosen = actions.select_set(pool, read_table("route", at["routes"] / "routes.parquet"), phase.set)
        return actions.do_targets(work, chosen, phase.targets, ctx)

    unused = {"sampling", "seed"} if phase.targets.teacher is None else set()
    config: Info = {"set": phase.set, "targets": phase.targets.model_dump(mode="json", exclude=unused)}
    config["verifier"] = recipe.verifier.key()
    if phase.targets.teacher is not None:
        config |= {"teacher": model_identity(phase.targets.teacher), "prompt": student["prompt"]}
    inputs = {"problems": problems, "routes": routes}
    return Step("targets", config, inputs, (*_SAMPLING, "supervision"), f"targets, {arm.name} {number}", action)


def _phase_config(recipe: Recipe, phase: SFTPhase | RLPhase, seed: int, student: Info) -> Info:
    frozen = {"dtype": recipe.model.dtype} if phase.adapter is not None else {}  # other weights are always float32
    return {**student, **frozen, "device": recipe.model.device, "seed": seed, "phase": phase_key(phase)}


def phase_key(phase: SFT | RL) -> Info:
    """A phase's settings for its key: without what changes how it is computed and not what it learns."""
    settings = phase.model_dump(
        mode="json", exclude={"targets", "start", "rollout_batch", "stops", "report_to", "run_name"}
    )
    for name in ("checkpoint_every", "micro_batch", "gradient_checkpointing"):
        del settings["optimiser"][name]
    return settings


_TRAINING = (*_SAMPLING, "training")


def _train_sft(
    recipe: Recipe,
    phase: SFTPhase,
    seed: int,
    problems: Step,
    targets: Step,
    before: Step | None,
    student: Info,
    words: str,
    ctx: Context,
) -> Step:
    def action(work: Path, at: dict[str, Path]) -> Info:
        model, _, expected = starting_model(recipe.model, at.get("before"))
        return actions.do_train_sft(
            work,
            read_table("problem", at["problems"] / "train.parquet"),
            read_table("target", at["targets"] / "targets.parquet"),
            phase,
            model,
            seed=seed,
            expected_hash=expected,
            ctx=ctx,
        )

    inputs = {"problems": problems, "targets": targets} | ({"before": before} if before else {})
    return Step("train-sft", _phase_config(recipe, phase, seed, student), inputs, _TRAINING, f"train {words}", action)


def _choose_start(
    recipe: Recipe,
    phase: RLPhase,
    start: Start,
    problems: Step,
    routes: Step,
    before: Step,
    common: Info,
    label: str,
    ctx: Context,
) -> Step:
    sampling = start.sampling or Sampling(temperature=phase.temperature, max_new_tokens=phase.max_new_tokens)

    def action(work: Path, at: dict[str, Path]) -> Info:
        last, identity, expected = starting_model(recipe.model, at["before"])
        pool = read_table("problem", at["problems"] / "train.parquet")
        kept = read_json(at["before"] / "step.json")["info"]["kept"]
        return do_choose_start(
            work,
            actions.select_set(pool, read_table("route", at["routes"] / "routes.parquet"), phase.set),
            {name: last.model_copy(update={"name": str(at["before"] / name)}) for name in kept},
            start,
            sampling,
            identity=identity or "",
            expected_hash=expected,
            ctx=ctx,
        )

    settings = start.model_dump(mode="json") | {"sampling": sampling.model_dump(mode="json")}
    inputs = {"problems": problems, "routes": routes, "before": before}
    rooms = (*_SAMPLING, "evaluation", "pipeline/start.py")
    return Step("choose-start", {**common, "set": phase.set, "start": settings}, inputs, rooms, label, action)


def _train_rl(
    recipe: Recipe,
    phase: RLPhase,
    seed: int,
    problems: Step,
    routes: Step,
    before: Step | None,
    chosen: Step | None,
    student: Info,
    words: str,
    ctx: Context,
) -> Step:
    def action(work: Path, at: dict[str, Path]) -> Info:
        model, _, expected = starting_model(recipe.model, at.get("before"), at.get("start"))
        pool = read_table("problem", at["problems"] / "train.parquet")
        members = actions.select_set(pool, read_table("route", at["routes"] / "routes.parquet"), phase.set)
        name = work.name.removesuffix(".partial")
        return actions.do_train_rl(
            work, members, phase, model, identity=name, seed=seed, expected_hash=expected, ctx=ctx
        )

    inputs: dict[str, Any] = {"problems": problems, "routes": routes} | ({"before": before} if before else {})
    inputs |= {"start": chosen} if chosen else {}
    config = _phase_config(recipe, phase, seed, student) | {"verifier": recipe.verifier.key()}
    config["judges"] = [model_identity(model) for model in judges(phase)]
    return Step("train-rl", config, inputs, _TRAINING, f"train {words}", action)
