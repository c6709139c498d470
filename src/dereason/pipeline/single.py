"""One step at a time, over files: what ``dereason profile``, ``route``, ``supervise``, ``train`` and ``eval`` run.
(``analyze`` is in :mod:`dereason.pipeline.analyze`.)

The output folder behaves like a step of a run: it appears whole, an interrupted call is continued by the same
call, and a finished one is not done again. What an earlier call computed is never deleted unasked: ``overwrite`` gives
up a finished output, and only once the new one is finished; ``restart`` an unfinished one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dereason.content import file_digest
from dereason.errors import DereasonError
from dereason.lm.load import check_model
from dereason.lm.local.context import fetch_config
from dereason.lm.local.model import ModelSettings, model_identity, repositories, resolve_device
from dereason.lm.prompts import Prompt
from dereason.pipeline import actions
from dereason.pipeline.actions import Context
from dereason.pipeline.build import entry_key, model_key, phase_key, phase_notes
from dereason.pipeline.contexts import asks_of_job, check_contexts
from dereason.pipeline.dates import settled_date
from dereason.pipeline.differences import say_differences
from dereason.pipeline.jobs import EvalJob, JointJob, ProfileJob, RLJob, RouteJob, SFTJob, SuperviseJob
from dereason.pipeline.output import make_way, output_locked
from dereason.pipeline.pool import pool_of
from dereason.pipeline.progress import Screen
from dereason.pipeline.recipe import judges
from dereason.pipeline.store import Info, Log, Step, execute
from dereason.pipeline.targets import do_targets
from dereason.problems.schema import read_table
from dereason.settings import Settings
from dereason.supervision.settings import (
    CritiqueTargets,
    asked_models,
    needs_student,
    reads_profile,
)
from dereason.training.adapters import check_adapter
from dereason.training.joint.settings import check_processes_of
from dereason.training.launch import Launch, check_launch
from dereason.verify.verifier import Verifier

_ROOMS = (
    "problems",
    "lm",
    "verify",
    "difficulty",
    "routing",
    "supervision",
    "training",
    "evaluation",
    "pipeline/pool.py",
)


def _models(settings: Settings) -> list[ModelSettings]:
    """Every model that a job loads."""
    named: list[ModelSettings | None] = [getattr(settings, "model", None)]
    if isinstance(settings, ProfileJob):
        named.append(settings.profile.judge.model)
    if isinstance(settings, SuperviseJob):
        named = [settings.model] if needs_student(settings.targets) else []
        named += asked_models(settings.targets)
    if isinstance(settings, RLJob):
        named += judges(settings.phase)
    return [m for m in named if m is not None]


def run_single(
    kind: str,
    settings: Settings,
    files: Mapping[str, Path],
    out: Path,
    action: Callable[[Path, Context], Info],
    *,
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
    rooms: tuple[str, ...] = _ROOMS,
    instead: Mapping[str, Any] | None = None,
) -> Info:
    """Run one step into ``out`` and return its ``step.json``.

    Args:
        kind: name of the step.
        settings: everything that decides its output besides its input files.
        files: input files by role.
        out: output folder.
        action: does the work in the folder it is given.
        screen: where progress is shown; None shows none.
        overwrite: replace an output of the same command that came from other settings, when the new one is finished;
            anything else is never touched.
        restart: discard what an unfinished call left, and begin again.
        rooms: whose source code the step's key covers.
        instead: what stands in the key in place of the settings of the same name.

    Raises:
        DereasonError: an input is missing, or ``out`` holds the output of other settings, or something else, or a call
            with other settings was begun there and not finished.
    """
    for role, path in files.items():
        if not path.is_file():
            raise DereasonError(f"{path}: no such file ({role})", "check the path")
    config: dict[str, Any] = settings.model_dump(mode="json", exclude={"launch"}) | dict(instead or {})
    for name in ("device_memory", "config"):  # for plans: no output depends on them
        config.get("model", {}).pop(name, None)
    # names too: a pool's stem becomes its domain, and an ending says how a file is read
    config["files"] = {role: [path.name, file_digest(path)] for role, path in files.items()}
    for model in _models(settings):
        check_model(model)
        fetch_config(model)
        config.setdefault("models", []).append(model_key(model))
    check_contexts(asks_of_job(settings))
    launch = settings.launch if isinstance(settings, SFTJob | RLJob) else Launch()
    if isinstance(settings, SFTJob | RLJob):
        check_adapter(settings.phase.adapter, settings.model)
        device = resolve_device(settings.model.device)
        check_launch(launch, device)
        if isinstance(settings, RLJob):
            settled = settings.phase.settled(settings.model)
            settled.vllm.check(settled.rollouts, device)
        if isinstance(settings, JointJob):
            check_processes_of(settings.phase, launch.processes)
        config["phase"] = phase_key(settled if isinstance(settings, RLJob) else settings.phase)
    limits = getattr(settings, "verifier", None)
    if limits is not None:
        config["verifier"] = limits.key()
    verifier = Verifier(limits)
    prompt = getattr(settings, "prompt", Prompt())
    if isinstance(settings, SuperviseJob):
        config["targets"] = entry_key(settings.targets)
        if not needs_student(settings.targets):
            del config["model"]
    calls = out.parent / f"{out.name}.calls"
    ctx = Context(prompt, screen or Screen(quiet=True), label=kind, verifier=verifier, launch=launch, calls=calls)
    loaded = tuple(r for model in _models(settings) for r in repositories(model))
    notes = phase_notes(settings.phase, launch) if isinstance(settings, SFTJob | RLJob) else {}

    def act(work: Path, _: dict[str, Path]) -> Info:
        ctx.prompt = settled_date(prompt, _models(settings), work)
        return action(work, ctx) | {"reading": ctx.notes}

    step = Step(kind, config, {}, rooms, kind, act, loaded, notes)
    log = Log(out.parent / f"{out.name}.log.jsonl")
    with output_locked(out):
        make_way(out, step, overwrite=overwrite, restart=restart)
        say_differences([(step, out)], ctx.screen, log)
        try:
            record, cached = execute(out, step, {}, log, replace=overwrite)
        finally:
            ctx.screen.stop()
            verifier.close()
    words = record["info"].get("words", "")
    ctx.screen.end(kind, f"{'cached' if cached else str(round(record['seconds'])) + ' s':>7}  {words}")
    for note in record["info"]["reading"] if cached else []:
        ctx.screen.say(f"  {note}")
    ctx.screen.confusion(record["info"].get("confusion"))
    for warning in record["info"].get("warnings", []):
        ctx.screen.say(f"  warning: {warning}", style="yellow")
    return record


def profile(
    pool: Path,
    job: ProfileJob,
    out: Path,
    *,
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Info:
    """Profile the problems of a file: ``profiles.parquet``, and each profiler's own folder beside it."""

    def action(work: Path, ctx: Context) -> Info:
        problems = pool_of(pool, job.problems, ctx)
        info: Info = {}
        log = Log(out.parent / f"{out.name}.log.jsonl")

        def part(name: str, do: Callable[[Path], Info]) -> Info:
            """One profiler in a folder of its own: an interrupted profile keeps what is finished."""
            ctx.label = name
            record, _ = execute(work / name, Step(name, {}, {}, (), name, lambda folder, _: do(folder)), {}, log)
            ctx.screen.end(name, record["info"]["words"])
            return dict(record["info"])

        judge = work / "judge" if job.profile.judge.enabled is not False else None
        rates = work / "pass-rate" if job.profile.pass_rate.enabled is not False else None
        if judge is None and rates is None:
            raise DereasonError("both profilers are off", "enable profile.judge or profile.pass_rate")
        if judge is not None:
            part("judge", lambda w: actions.do_judge(w, problems, job.profile, job.model, ctx))
        if rates is not None:
            info = part("pass-rate", lambda w: actions.do_pass_rate(w, problems, job.profile, job.model, ctx))
        identity = model_identity(job.model)
        return info | actions.do_profile(work, problems, judge, rates, job.profile, job.prompt, identity)

    return run_single(
        "profile", job, {"problems": pool}, out, action, screen=screen, overwrite=overwrite, restart=restart
    )


def route(
    pool: Path,
    profiles: Path | None,
    job: RouteJob,
    out: Path,
    *,
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Info:
    """Route the problems of a file: ``routes.parquet``."""

    def action(work: Path, ctx: Context) -> Info:
        known = read_table("profile", profiles) if profiles else None
        return actions.do_route(work, pool_of(pool, job.problems, ctx), known, job.route)

    files = {"problems": pool} | ({"profiles": profiles} if profiles else {})
    return run_single("route", job, files, out, action, screen=screen, overwrite=overwrite, restart=restart)


def supervise(
    pool: Path,
    routes: Path | None,
    set_name: str,
    job: SuperviseJob,
    out: Path,
    *,
    attempts: Path | None = None,
    rollouts: Path | None = None,
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Info:
    """Build targets for one routed set (all problems where no routes are given): ``targets.parquet``.

    Args:
        pool: problems.
        routes: a ROUTE table, or None.
        set_name: which set.
        job: settings.
        out: output folder.
        attempts: the student's responses from its profile, a SAMPLE table: `self` and `bridge` read them.
        rollouts: the rollouts of an RL phase, a SAMPLE table: `critique` needs them.
        screen: where progress is shown; None shows none.
        overwrite: replace an output that came from other settings.
        restart: discard what an unfinished call left.

    Raises:
        DereasonError: `critique` without rollouts, or no target came out.
    """
    if isinstance(job.targets, CritiqueTargets) and rollouts is None:
        raise DereasonError(
            "targets of style critique come from an RL phase's failures",
            "give --rollouts samples.parquet of that phase",
        )

    if attempts is not None and not reads_profile(job.targets):
        raise DereasonError(f"targets of style {job.targets.style} read no --attempts", "leave it out")
    if rollouts is not None and not isinstance(job.targets, CritiqueTargets):
        raise DereasonError(f"targets of style {job.targets.style} read no --rollouts", "leave it out")
    if routes is None and job.targets.sets() is not None:
        raise DereasonError("targets.set names routed sets, and there are no routes", "give --routes, or leave it out")

    def action(work: Path, ctx: Context) -> Info:
        known = None if routes is None else read_table("route", routes)
        if rollouts is not None and read_table("sample", rollouts)["step"].null_count():
            raise DereasonError(
                f"{rollouts}: these are no rollouts: they have no optimiser step", "give samples.parquet of an RL phase"
            )
        whose = set() if attempts is None else set(read_table("sample", attempts)["model"])
        if whose - {model_identity(job.model)}:
            others = ", ".join(sorted(whose))
            ctx.screen.say(
                f"  warning: {attempts} holds responses of {others}, and the student is {model_identity(job.model)}",
                style="yellow",
            )
        return do_targets(
            work,
            pool_of(pool, job.problems, ctx),
            known,
            [set_name],
            [job.targets],
            student=(job.model, None),
            attempts=attempts,
            rollouts=rollouts,
            ctx=ctx,
        )

    files = {"problems": pool} | ({"routes": routes} if routes else {})
    files |= ({"attempts": attempts} if attempts else {}) | ({"rollouts": rollouts} if rollouts else {})
    rooms = (*_ROOMS, "pipeline/targets.py")
    kind = f"targets-{set_name}"
    return run_single(kind, job, files, out, action, screen=screen, overwrite=overwrite, restart=restart, rooms=rooms)


def train_sft(
    pool: Path,
    targets: Path,
    job: SFTJob,
    out: Path,
    *,
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Info:
    """Train on targets: ``model/`` and ``metrics.jsonl``."""

    def action(work: Path, ctx: Context) -> Info:
        return actions.do_train_sft(
            work,
            pool_of(pool, job.problems, ctx),
            read_table("target", targets),
            job.phase,
            job.model,
            seed=job.seed,
            expected_hash=None,
            ctx=ctx,
        )

    files = {"problems": pool, "targets": targets}
    return run_single("train-sft", job, files, out, action, screen=screen, overwrite=overwrite, restart=restart)


def train_rl(
    pool: Path,
    routes: Path | None,
    job: RLJob,
    out: Path,
    *,
    targets: Path | None = None,
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Info:
    """Train by RL on one routed set: ``model/``, ``metrics.jsonl`` and every rollout in ``samples.parquet``.

    With ``targets``, a TARGET table, and a :class:`JointJob`, by a method that mixes SFT on them with RL.
    """

    def action(work: Path, ctx: Context) -> Info:
        return actions.do_train_rl(
            work,
            _chosen(pool_of(pool, job.problems, ctx), routes, job.set),
            job.phase,
            job.model,
            identity=out.name,
            seed=job.seed,
            expected_hash=None,
            demonstrations=None if targets is None else read_table("target", targets),
            ctx=ctx,
        )

    files = {"problems": pool} | ({"routes": routes} if routes else {}) | ({"targets": targets} if targets else {})
    kind = "train-rl" if targets is None else "train-joint"
    return run_single(kind, job, files, out, action, screen=screen, overwrite=overwrite, restart=restart)


def evaluate(
    pool: Path, job: EvalJob, out: Path, *, screen: Screen | None = None, overwrite: bool = False, restart: bool = False
) -> Info:
    """Score a model on the problems of a file: ``samples.parquet``, the score in ``step.json``."""

    def action(work: Path, ctx: Context) -> Info:
        return actions.do_eval(
            work,
            pool_of(pool, job.problems, ctx),
            job.evaluation,
            job.model,
            identity=None,
            expected_hash=None,
            ctx=ctx,
        )

    return run_single("eval", job, {"problems": pool}, out, action, screen=screen, overwrite=overwrite, restart=restart)


def _chosen(problems: pl.DataFrame, routes: Path | None, set_name: str) -> pl.DataFrame:
    return problems if routes is None else actions.select_set(problems, read_table("route", routes), [set_name])
