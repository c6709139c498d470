"""From a recipe to its steps: what each step reads, what decides its output, and what it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dereason.lm.base import Sampling
from dereason.lm.local.model import ModelSettings, model_identity
from dereason.pipeline import actions
from dereason.pipeline.actions import Context
from dereason.pipeline.graph import Graph, Round, Stage
from dereason.pipeline.pool import do_problems
from dereason.pipeline.probe import do_probe
from dereason.pipeline.reasoning import analyse_step
from dereason.pipeline.recipe import Arm, JointPhase, Phase, Recipe, RLPhase, SFTPhase, entries, judges, set_names
from dereason.pipeline.start import Start, do_choose_start
from dereason.pipeline.store import Info, Step, read_json
from dereason.pipeline.targets import do_targets
from dereason.problems.schema import read_table
from dereason.problems.sources import fingerprint
from dereason.routing.policies import needs
from dereason.supervision.settings import CritiqueTargets, Targets, asked_models, needs_student, reads_profile
from dereason.training.rl import RL
from dereason.training.sft import SFT

_LM = ("lm", "problems/schema.py")
_SAMPLING = (*_LM, "verify")
_TRAINING = (*_SAMPLING, "training")


def build(recipe: Recipe, base: Path, ctx: Context) -> Graph:
    """The steps of a recipe.

    Args:
        recipe: the recipe.
        base: folder that relative paths in it start from.
        ctx: what the steps share when they run.
    """
    return _Builder(recipe, base, ctx).graph()


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


def phase_key(phase: SFT | RL) -> Info:
    """A phase's settings for its key: without what changes how it is computed and not what it learns."""
    without = {"targets", "start", "rollout_batch", "stops", "report_to", "run_name", "early_warning"}
    settings = phase.model_dump(mode="json", exclude=without)
    for name in ("checkpoint_every", "micro_batch", "gradient_checkpointing"):
        del settings["optimiser"][name]
    return settings


def entry_key(entry: Targets) -> Info:
    """An entry of targets for a key: the models that it asks by what decides their answers."""
    settings = entry.model_dump(mode="json", exclude={"teacher", "critic"})
    return settings | {"asked": [{"model": model_identity(m), **m.numerics()} for m in asked_models(entry)]}


def _given(**steps: Step | None) -> dict[str, Step]:
    """The inputs of a step by role, without those that are not there."""
    return {role: step for role, step in steps.items() if step is not None}


class _Builder:
    def __init__(self, recipe: Recipe, base: Path, ctx: Context) -> None:
        self.recipe = recipe
        self.base = base
        self.ctx = ctx
        self.student: Info = {"model": model_identity(recipe.model), "prompt": recipe.prompt.model_dump(mode="json")}
        self.sampled: Info = {**self.student, **recipe.model.numerics(), "verifier": recipe.verifier.key()}
        self.problems = self._problems()
        self.judge = self._judge() if recipe.profiled() and recipe.profile.judge.enabled else None
        self.rounds: list[Round] = []
        self.stages: list[Stage] = []

    def graph(self) -> Graph:
        base, probe = self._evaluate(None, "evaluate base"), self._probe(None, "base")
        for arm in self.recipe.arms:
            for seed in self.recipe.seeds:
                self.stages.append(Stage(arm.name, seed, "base", 0, base, probe=probe))
                self._line(arm, seed)
        settings, analysis = self.recipe.analysis, None
        if settings is not None:
            analysis = analyse_step(settings, self.stages, self.problems, self.ctx)
        return Graph(self.problems, self.judge, self.rounds, self.stages, analysis)

    def _line(self, arm: Arm, seed: int) -> None:
        """All rounds and phases of one arm and seed."""
        before: Step | None = None
        failures: Step | None = None  # the RL phase before
        round_: Round | None = None
        for number in range(1, arm.rounds + 1):
            round_ = self._round(arm, seed, number, before, round_)
            self.rounds.append(round_)
            started = before
            for at, phase in enumerate(arm.phases, 1 + (number - 1) * len(arm.phases)):
                words = f"{arm.name}, seed {seed}, {at}-{phase.kind}"
                targets = None
                if isinstance(phase, SFTPhase | JointPhase):
                    targets = self._targets(phase, round_, started, before, failures, words)
                if isinstance(phase, SFTPhase):
                    assert targets is not None  # just made
                    training = self._train_sft(phase, round_, targets, before, words)
                else:
                    training = failures = self._train_rl(phase, round_, targets, before, words)
                scored = self._evaluate(training, f"evaluate {words}")
                probe = self._probe(training, words)
                name = f"{at}-{phase.kind}"
                self.stages.append(Stage(arm.name, seed, name, at, scored, number, training, targets, probe))
                before = training

    def _round(self, arm: Arm, seed: int, number: int, before: Step | None, last: Round | None) -> Round:
        """What a round is routed by: profiled anew where anything in the arm reads the student's pass rate."""
        recipe = self.recipe
        read = "pass_rate" in needs(arm.route) or any(map(reads_profile, entries(arm)))
        if last is not None and not (read and recipe.profile.pass_rate.enabled):
            return Round(arm.name, seed, number, last.pass_rate, last.profile, last.route)
        words = "" if number == 1 else f", {arm.name}, seed {seed}, round {number}"
        rates = None
        if recipe.profiled() and recipe.profile.pass_rate.enabled:
            rates = self._pass_rate(before, f"pass rate, {recipe.profile.pass_rate.k} responses each{words}")
        profile = self._profile(rates, before, f"profiles{words}") if self.judge or rates else None
        route = self._route(arm, profile, f"route, {arm.name}" if number == 1 else f"route{words}")
        return Round(arm.name, seed, number, rates, profile, route)

    def _problems(self) -> Step:
        spec, base = self.recipe.problems, self.base
        return Step(
            kind="problems",
            config={
                "train": fingerprint(spec.train, base),
                "test": fingerprint(spec.test, base),
                "drop_unanswered": spec.drop_unanswered,
            },
            inputs={},
            rooms=("problems", "pipeline/pool.py"),
            label="problems",
            action=lambda work, at: do_problems(work, spec.train, spec.test, base, spec.drop_unanswered),
        )

    def _judge(self) -> Step:
        recipe, ctx = self.recipe, self.ctx
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
            inputs={"problems": self.problems},
            rooms=(*_LM, "difficulty"),
            label="judge, reasoning intensity 1-5",
            action=lambda work, at: actions.do_judge(
                work, read_table("problem", at["problems"] / "train.parquet"), recipe.profile, recipe.model, ctx
            ),
        )

    def _pass_rate(self, before: Step | None, label: str) -> Step:
        recipe, ctx = self.recipe, self.ctx

        def action(work: Path, at: dict[str, Path]) -> Info:
            model, identity, expected = starting_model(recipe.model, at.get("training"))
            return actions.do_pass_rate(
                work,
                read_table("problem", at["problems"] / "train.parquet"),
                recipe.profile,
                model,
                ctx,
                identity=identity,
                expected_hash=expected,
            )

        config = {**self.sampled, "pass_rate": recipe.profile.pass_rate.model_dump(mode="json")}
        inputs = _given(problems=self.problems, training=before)
        return Step("pass-rate", config, inputs, (*_SAMPLING, "difficulty"), label, action)

    def _profile(self, rates: Step | None, before: Step | None, label: str) -> Step:
        recipe = self.recipe
        model = self.student["model"] if before is None else before.folder

        def action(work: Path, at: dict[str, Path]) -> Info:
            pool = read_table("problem", at["problems"] / "train.parquet")
            return actions.do_profile(
                work, pool, at.get("judge"), at.get("pass_rate"), recipe.profile, recipe.prompt, model
            )

        inputs = _given(problems=self.problems, judge=self.judge, pass_rate=rates)
        return Step("profile", {"model": model}, inputs, ("difficulty", "problems/schema.py"), label, action)

    def _route(self, arm: Arm, profiles: Step | None, label: str) -> Step:
        def action(work: Path, at: dict[str, Path]) -> Info:
            pool = read_table("problem", at["problems"] / "train.parquet")
            known = read_table("profile", at["profiles"] / "profiles.parquet") if "profiles" in at else None
            return actions.do_route(work, pool, known, arm.route)

        config = {"policy": arm.route.model_dump(mode="json")}
        inputs = _given(problems=self.problems, profiles=profiles if needs(arm.route) else None)
        return Step("route", config, inputs, ("routing", "problems/schema.py"), label, action)

    def _evaluate(self, training: Step | None, label: str) -> Step:
        recipe, ctx = self.recipe, self.ctx

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

        config = {**self.sampled, "evaluation": recipe.evaluation.model_dump(mode="json")}
        inputs = _given(problems=self.problems, training=training)
        return Step("eval", config, inputs, (*_SAMPLING, "evaluation"), label, action)

    def _probe(self, training: Step | None, words: str) -> Step | None:
        """The responses that the analysis compares."""
        recipe, ctx, settings = self.recipe, self.ctx, self.recipe.analysis
        if settings is None:
            return None

        def action(work: Path, at: dict[str, Path]) -> Info:
            model, identity, expected = starting_model(recipe.model, at.get("training"))
            held_out = read_table("problem", at["problems"] / "test.parquet")
            return do_probe(work, held_out, settings, model, identity=identity, expected_hash=expected, ctx=ctx)

        config = {**self.sampled, "probe": settings.asked()}
        inputs = _given(problems=self.problems, training=training)
        return Step("probe", config, inputs, (*_SAMPLING, "pipeline/probe.py"), f"probe {words}", action)

    def _targets(
        self,
        phase: SFTPhase | JointPhase,
        round_: Round,
        started: Step | None,
        before: Step | None,
        failures: Step | None,
        words: str,
    ) -> Step:
        recipe, ctx = self.recipe, self.ctx
        names = set_names(phase)

        def action(work: Path, at: dict[str, Path]) -> Info:
            student, identity, _ = starting_model(recipe.model, at.get("before"))
            return do_targets(
                work,
                read_table("problem", at["problems"] / "train.parquet"),
                read_table("route", at["routes"] / "routes.parquet"),
                names,
                phase.targets,
                student=(student, identity),
                attempts=at["profile"] / "samples.parquet" if "profile" in at else None,
                rollouts=at["failures"] / "samples.parquet" if "failures" in at else None,
                may_be_empty=round_.number > 1,
                ctx=ctx,
            )

        config: Info = {"sets": names, "targets": [entry_key(e) for e in phase.targets]}
        config["verifier"] = recipe.verifier.key()
        if any(map(needs_student, phase.targets)):
            config |= self.sampled
        elif any(map(asked_models, phase.targets)):
            config["prompt"] = self.student["prompt"]
        inputs = _given(
            problems=self.problems,
            routes=round_.route,
            before=before if any(map(needs_student, phase.targets)) else None,
            # only where it is of the model that this phase trains, and not of one before that
            profile=round_.pass_rate if before is started and any(map(reads_profile, phase.targets)) else None,
            failures=failures if any(isinstance(e, CritiqueTargets) for e in phase.targets) else None,
        )
        rooms = (*_SAMPLING, "supervision", "pipeline/targets.py")
        return Step("targets", config, inputs, rooms, f"targets, {words}", action)

    def _phase_config(self, phase: Phase, seed: int) -> Info:
        model = self.recipe.model
        frozen = {"dtype": model.dtype} if phase.adapter is not None else {}  # other weights are always float32
        return {**self.student, **frozen, "device": model.device, "seed": seed, "phase": phase_key(phase)}

    def _train_sft(self, phase: SFTPhase, round_: Round, targets: Step, before: Step | None, words: str) -> Step:
        recipe, ctx = self.recipe, self.ctx

        def action(work: Path, at: dict[str, Path]) -> Info:
            imitated = read_table("target", at["targets"] / "targets.parquet")
            if imitated.is_empty() and "before" in at:  # only a later round's targets may be empty
                return actions.hand_on(work, at["before"], "no problem got a target")
            model, _, expected = starting_model(recipe.model, at.get("before"))
            return actions.do_train_sft(
                work,
                read_table("problem", at["problems"] / "train.parquet"),
                imitated,
                phase,
                model,
                seed=round_.seed,
                expected_hash=expected,
                ctx=ctx,
            )

        inputs = _given(problems=self.problems, targets=targets, before=before)
        return Step("train-sft", self._phase_config(phase, round_.seed), inputs, _TRAINING, f"train {words}", action)

    def _train_rl(
        self, phase: RLPhase | JointPhase, round_: Round, targets: Step | None, before: Step | None, words: str
    ) -> Step:
        """RL, with demonstrations where the phase is a joint one."""
        recipe, ctx = self.recipe, self.ctx
        names = set_names(phase)
        chosen = None
        if isinstance(phase, RLPhase) and phase.start is not None and before is not None:
            chosen = self._choose_start(phase, phase.start, round_, before, names, f"choose start, {words}")

        def action(work: Path, at: dict[str, Path]) -> Info:
            model, _, expected = starting_model(recipe.model, at.get("before"), at.get("start"))
            pool = read_table("problem", at["problems"] / "train.parquet")
            routes = read_table("route", at["routes"] / "routes.parquet")
            members = actions.select_set(pool, routes, names, may_be_empty=round_.number > 1)
            if round_.number > 1 and members.height < phase.prompts_per_generation:
                few = f"{members.height} problems are left, fewer than prompts_per_generation"
                return actions.hand_on(work, at["before"], few)
            shown = read_table("target", at["targets"] / "targets.parquet") if "targets" in at else None
            if shown is not None and shown.is_empty():  # only a later round's targets may be empty
                return actions.hand_on(work, at["before"], "no problem has a demonstration")
            return actions.do_train_rl(
                work,
                members,
                phase,
                model,
                identity=work.name.removesuffix(".partial"),
                seed=round_.seed,
                expected_hash=expected,
                demonstrations=shown,
                ctx=ctx,
            )

        inputs = _given(problems=self.problems, routes=round_.route, targets=targets, before=before, start=chosen)
        config = self._phase_config(phase, round_.seed) | {"verifier": recipe.verifier.key()}
        config["judges"] = [model_identity(model) for model in judges(phase)]
        return Step(f"train-{phase.kind}", config, inputs, _TRAINING, f"train {words}", action)

    def _choose_start(
        self, phase: RLPhase, start: Start, round_: Round, before: Step, names: Sequence[str], label: str
    ) -> Step:
        recipe, ctx = self.recipe, self.ctx
        sampling = start.sampling or Sampling(temperature=phase.temperature, max_new_tokens=phase.max_new_tokens)

        def action(work: Path, at: dict[str, Path]) -> Info:
            last, identity, expected = starting_model(recipe.model, at["before"])
            kept: list[str] = read_json(at["before"] / "step.json")["info"]["kept"]
            pool = read_table("problem", at["problems"] / "train.parquet")
            routes = read_table("route", at["routes"] / "routes.parquet")
            members = actions.select_set(pool, routes, names, may_be_empty=round_.number > 1)
            if members.height < phase.prompts_per_generation and round_.number > 1:  # the phase will be skipped
                return {"chosen": kept[-1], "candidates": [], "words": "too few problems are left to train on"}
            return do_choose_start(
                work,
                members,
                {name: last.model_copy(update={"name": str(at["before"] / name)}) for name in kept},
                start,
                sampling,
                identity=identity or "",
                expected_hash=expected,
                ctx=ctx,
            )

        settings: dict[str, Any] = start.model_dump(mode="json") | {"sampling": sampling.model_dump(mode="json")}
        inputs = _given(problems=self.problems, routes=round_.route, before=before)
        rooms = (*_SAMPLING, "evaluation", "pipeline/start.py")
        config = {**self.sampled, "set": list(names), "start": settings}
        return Step("choose-start", config, inputs, rooms, label, action)
