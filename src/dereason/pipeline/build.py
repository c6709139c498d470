"""From a recipe to its steps: what each step reads, what decides its output, and what it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dereason.content import file_digest
from dereason.lm.base import Sampling
from dereason.lm.local.model import ModelSettings, model_identity, repositories
from dereason.pipeline import actions
from dereason.pipeline.actions import Context
from dereason.pipeline.audit import do_audit
from dereason.pipeline.graph import Graph, Round, Stage
from dereason.pipeline.pool import do_problems
from dereason.pipeline.probe import do_probe
from dereason.pipeline.reasoning import analyse_step
from dereason.pipeline.recipe import Arm, JointPhase, Phase, Recipe, RLPhase, SFTPhase, judges, reads, set_names
from dereason.pipeline.start import Start, do_choose_start
from dereason.pipeline.store import Info, Step, read_json
from dereason.pipeline.targets import do_targets
from dereason.problems import sources
from dereason.problems.schema import read_table
from dereason.problems.sources import fingerprint
from dereason.routing.policies import needs
from dereason.supervision.settings import CritiqueTargets, Targets, asked_models, needs_student, reads_profile
from dereason.training.launch import Launch, find_config, shipped_configs
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
    without = {"targets", "start", "rollout_batch", "stops", "report_to", "run_name", "early_warning", "drift"}
    settings = phase.model_dump(mode="json", exclude=without)
    for reward in settings.get("rewards", {}).get("of", []):
        reward.pop("model", None)  # the judges of a phase stand in the key by what decides their answers
    for name in ("checkpoint_every", "micro_batch", "gradient_checkpointing"):
        del settings["optimiser"][name]
    return settings


def phase_notes(phase: SFT | RL, launch: Launch) -> dict[str, str]:
    """What :func:`phase_key` leaves out and rounding depends on: what is computed together.

    Raises:
        DereasonError: the configuration of several processes is not there.
    """
    notes = {"optimiser.micro_batch": str(phase.optimiser.micro_batch), "launch": "1 process"}
    if isinstance(phase, RL):
        notes["rollout_batch"] = str(phase.rollout_batch)
    if launch.processes > 1:
        config = find_config(launch.config)
        content = "" if launch.config in shipped_configs() else f" {file_digest(config)[:12]}"
        notes["launch"] = f"{launch.processes} processes ({launch.config}{content})"
    return notes


def model_key(model: ModelSettings) -> Info:
    """A model for a key: its identity, and what besides the weights decides its answers."""
    return {"model": model_identity(model), **model.numerics()}


def entry_key(entry: Targets, key: Callable[[ModelSettings], Info] = model_key) -> Info:
    """An entry of targets for a key: the models that it asks by what decides their answers."""
    settings = entry.model_dump(mode="json", exclude={"teacher", "critic"})
    return settings | {"asked": [key(m) for m in asked_models(entry)]}


def _given(**steps: Step | None) -> dict[str, Step]:
    """The inputs of a step by role, without those that are not there."""
    return {role: step for role, step in steps.items() if step is not None}


class _Builder:
    def __init__(self, recipe: Recipe, base: Path, ctx: Context) -> None:
        self.recipe = recipe
        self.base = base
        self.ctx = ctx
        self.keys: dict[str, Info] = {}
        prompt = recipe.prompt.model_dump(mode="json")
        self.student: Info = {"model": self._model_key(recipe.model)["model"], "prompt": prompt}
        self.sampled: Info = {**self._model_key(recipe.model), "prompt": prompt, "verifier": recipe.verifier.key()}
        self.of_student = tuple(repositories(recipe.model))
        self.problems = self._problems()
        self.audit = self._audit() if recipe.problems.audit else None
        measured = recipe.measured()
        self.judge = self._judge() if "judge" in measured else None
        words = f"pass rate, {recipe.profile.pass_rate.k} responses each"
        self.rates = self._pass_rate(None, words) if "pass_rate" in measured else None
        self.profile = self._profile(self.rates, None, "profiles") if measured else None
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
        return Graph(self.problems, self.audit, self.judge, self.rounds, self.stages, analysis)

    def _model_key(self, model: ModelSettings) -> Info:
        """:func:`model_key`, found once for each model: a hundred arms may ask one teacher."""
        settings = model.model_dump_json()
        if settings not in self.keys:
            self.keys[settings] = model_key(model)
        return self.keys[settings]

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
        """What a round is routed by: profiled anew where the arm reads its student's pass rate."""
        if last is None:
            route = self._route(arm, self.rates, f"route, {arm.name}")
            return Round(arm.name, seed, number, self.rates, self.profile, route)
        if self.rates is None or "pass_rate" not in reads(arm):
            return Round(arm.name, seed, number, last.pass_rate, last.profile, last.route)
        words = f", {arm.name}, seed {seed}, round {number}"
        rates = self._pass_rate(before, f"pass rate, {self.recipe.profile.pass_rate.k} responses each{words}")
        profile = self._profile(rates, before, f"profiles{words}")
        return Round(arm.name, seed, number, rates, profile, self._route(arm, rates, f"route{words}"))

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
            repositories=(*sources.repositories(spec.train), *sources.repositories(spec.test)),
        )

    def _audit(self) -> Step:
        size, ctx = self.recipe.problems.audit, self.ctx
        return Step(
            kind="audit",
            config={"size": size, "verifier": self.recipe.verifier.key()},
            inputs={"problems": self.problems},
            rooms=("problems", "verify", "pipeline/audit.py"),
            label="references",
            action=lambda work, at: do_audit(at["problems"], size, ctx),
        )

    def _judge(self) -> Step:
        recipe, ctx = self.recipe, self.ctx
        judge = recipe.profile.judge
        model = judge.model or recipe.model
        return Step(
            kind="judge",
            config={
                **self._model_key(model),
                "kwargs": recipe.prompt.chat_template_kwargs,
                "date": self.student["prompt"]["date"],
                "judge": judge.model_dump(mode="json", exclude={"model", "enabled"}),
            },
            inputs={"problems": self.problems},
            rooms=(*_LM, "difficulty"),
            label="judge, reasoning intensity 1-5",
            action=lambda work, at: actions.do_judge(
                work, read_table("problem", at["problems"] / "train.parquet"), recipe.profile, recipe.model, ctx
            ),
            repositories=tuple(repositories(model)),
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

        config = {**self.sampled, "pass_rate": recipe.profile.pass_rate.model_dump(mode="json", exclude={"enabled"})}
        inputs = _given(problems=self.problems, training=before)
        return Step("pass-rate", config, inputs, (*_SAMPLING, "difficulty"), label, action, self.of_student)

    def _profile(self, rates: Step | None, before: Step | None, label: str) -> Step:
        recipe = self.recipe
        model = self.student["model"] if before is None else before.folder

        def action(work: Path, at: dict[str, Path]) -> Info:
            pool = read_table("problem", at["problems"] / "train.parquet")
            return actions.do_profile(
                work, pool, at.get("judge"), at.get("pass_rate"), recipe.profile, recipe.prompt, model
            )

        inputs = _given(problems=self.problems, judge=self.judge, pass_rate=rates)
        config = {"model": model, "prompt": self.student["prompt"]}
        return Step("profile", config, inputs, ("difficulty", "problems/schema.py"), label, action)

    def _route(self, arm: Arm, rates: Step | None, label: str) -> Step:
        """A route reads what its policy needs and nothing else, so that another arm's needs change none of its keys."""
        needed = needs(arm.route)

        def action(work: Path, at: dict[str, Path]) -> Info:
            pool = read_table("problem", at["problems"] / "train.parquet")
            known = actions.measured(pool, at.get("judge"), at.get("pass_rate")) if needed else None
            return actions.do_route(work, pool, known, arm.route)

        inputs = _given(
            problems=self.problems,
            judge=self.judge if "judge" in needed else None,
            pass_rate=rates if "pass_rate" in needed else None,
        )
        rooms = ("routing", "difficulty", "problems/schema.py")
        return Step("route", {"policy": arm.route.model_dump(mode="json")}, inputs, rooms, label, action)

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
        return Step("eval", config, inputs, (*_SAMPLING, "evaluation"), label, action, self.of_student)

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
        rooms = (*_SAMPLING, "pipeline/probe.py")
        return Step("probe", config, inputs, rooms, f"probe {words}", action, self.of_student)

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

        config: Info = {"sets": names, "targets": [entry_key(e, self._model_key) for e in phase.targets]}
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
        asked = [r for entry in phase.targets for model in asked_models(entry) for r in repositories(model)]
        loaded = (*asked, *(self.of_student if any(map(needs_student, phase.targets)) else ()))
        return Step("targets", config, inputs, rooms, f"targets, {words}", action, loaded)

    def _phase_config(self, phase: Phase, seed: int) -> Info:
        model = self.recipe.model
        phase = phase.settled(model) if isinstance(phase, RL) else phase
        # Weights that learn are always float32; those below an adapter, and vLLM's copy of them, are not.
        drawn = isinstance(phase, RL) and phase.rollouts == "vllm-colocate"
        frozen: Info = {"dtype": model.dtype} if phase.adapter is not None or drawn else {}
        if model.attention != "auto":
            frozen["attention"] = model.attention
        if model.max_positions is not None:  # it decides which targets fit
            frozen["max_positions"] = model.max_positions
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
        config = self._phase_config(phase, round_.seed)
        notes = phase_notes(phase, recipe.launch)
        return Step("train-sft", config, inputs, _TRAINING, f"train {words}", action, self.of_student, notes)

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
        config["judges"] = [self._model_key(model) for model in judges(phase)]
        loaded = (*self.of_student, *(r for model in judges(phase) for r in repositories(model)))
        notes = phase_notes(phase, recipe.launch)
        return Step(f"train-{phase.kind}", config, inputs, _TRAINING, f"train {words}", action, loaded, notes)

    def _choose_start(
        self, phase: RLPhase, start: Start, round_: Round, before: Step, names: Sequence[str], label: str
    ) -> Step:
        recipe, ctx = self.recipe, self.ctx
        sampling = start.sampling or Sampling(
            temperature=phase.temperature, max_new_tokens=phase.max_new_tokens, **phase.filters
        )

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
                marks=phase.rewards.counted,
                identity=identity or "",
                expected_hash=expected,
                ctx=ctx,
            )

        settings: dict[str, Any] = start.model_dump(mode="json") | {"sampling": sampling.model_dump(mode="json")}
        inputs = _given(problems=self.problems, routes=round_.route, before=before)
        rooms = (*_SAMPLING, "evaluation", "pipeline/start.py")
        config = {**self.sampled, "set": list(names), "start": settings, "marks": phase.rewards.marks}
        if round_.number > 1:  # with fewer problems, nothing is chosen
            config["fewest"] = phase.prompts_per_generation
        return Step("choose-start", config, inputs, rooms, label, action, self.of_student)
