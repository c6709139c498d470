"""What each kind of step does: folders in, files out. The recipe's run and the single commands both use these.

Each function takes the step's work folder and plain values, writes its outputs there, and returns the facts
that land in ``step.json``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from dereason.difficulty.judge import judge_scores
from dereason.difficulty.pass_rate import pass_rates
from dereason.difficulty.profiles import Profile, build_profiles
from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Evaluation, score
from dereason.lm.api.model import ApiModel
from dereason.lm.base import Progress, Sampling
from dereason.lm.load import load_model
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.prompts import Prompt, check_template
from dereason.lm.vllm import VllmModel
from dereason.pipeline import early_warning
from dereason.pipeline.progress import Screen
from dereason.pipeline.store import SCRATCH, Info, read_json
from dereason.problems.schema import frame, write_table
from dereason.routing.policies import describe, route, route_warnings
from dereason.training.early_warning import PROBE_FOLDER, reading_warnings
from dereason.training.joint.settings import Joint
from dereason.training.launch import Job, Launch, check_resume, launch_phase
from dereason.training.phase import PhaseResult, kept_models
from dereason.training.rewards.asked import unasked
from dereason.training.rl import RL, draw_warnings, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.sft import SFT, run_sft
from dereason.training.watch import phase_facts
from dereason.verify.confusion import confusion
from dereason.verify.samples import draw_samples, replaced_characters
from dereason.verify.verdict import VERIFIER_VERSION, verdict_counts
from dereason.verify.verifier import Verifier


@dataclass
class Context:
    """What steps share: prompt, screen, verifier, launch, and the model loaded last (loading takes seconds).

    ``calls`` is the folder where calls to endpoints are kept, for all steps; None keeps none. ``notes`` says how
    problems of a file were read, where they could be read in several ways.
    """

    prompt: Prompt
    screen: Screen
    label: str = ""
    verifier: Verifier = field(default_factory=Verifier)
    launch: Launch = field(default_factory=Launch)
    calls: Path | None = None
    notes: list[str] = field(default_factory=list)
    _loaded: tuple[str, LocalModel | VllmModel] | None = field(default=None, repr=False)
    _endpoints: dict[str, ApiModel] = field(default_factory=dict, repr=False)

    def progress(self) -> Progress:
        """A progress display under the current step's label."""
        return self.screen.step(self.label)

    def model(self, settings: ModelSettings, identity: str | None = None) -> LocalModel | VllmModel | ApiModel:
        """The model, loaded unless it was the last one asked for; an endpoint is kept, with what it has cost so far."""
        key = f"{settings.model_dump_json()} {identity}"
        if key in self._endpoints:
            return self._endpoints[key]
        if self._loaded is None or self._loaded[0] != key:
            if settings.backend != "api":
                self.release()  # free the old one before the new one is loaded
            kwargs, day = self.prompt.chat_template_kwargs, self.prompt.date
            model = load_model(settings, kwargs, identity=identity, store=self.calls, day=day)
            if isinstance(model, ApiModel):
                self._endpoints[key] = model
                return model
            self._loaded = (key, model)
        return self._loaded[1]

    def release(self) -> None:
        """Forget the loaded model."""
        if self._loaded is not None and isinstance(self._loaded[1], VllmModel):
            self._loaded[1].close()
        self._loaded = None


def do_judge(work: Path, problems: pl.DataFrame, profile: Profile, model: ModelSettings, ctx: Context) -> Info:
    """Write ``scores.parquet``."""
    lm = ctx.model(profile.judge.model or model)
    table = judge_scores(lm, problems, profile.judge, store=work / "batches", progress=ctx.progress())
    write_table(table, work / "scores.parquet")
    scores = table["judge_expectation"].to_numpy()
    return {
        SCRATCH: ["batches"],
        "judge_model": lm.identity,
        "template_hash": lm.template_hash(),
        "rubric": profile.judge.rubric_hash(),
        "words": f"{table.height} problems, mean score {scores.mean():.2f} ({scores.min():.2f} to {scores.max():.2f})",
    }


def do_pass_rate(
    work: Path,
    problems: pl.DataFrame,
    profile: Profile,
    model: ModelSettings,
    ctx: Context,
    *,
    identity: str | None = None,
    expected_hash: str | None = None,
) -> Info:
    """Write ``samples.parquet`` (every response) and ``rates.parquet``.

    Raises:
        DereasonError: the model renders chats differently from the one that the run began with.
    """
    settings = profile.pass_rate
    lm = ctx.model(model, identity)
    check_template(lm.identity, lm.template_hash(), expected_hash)
    samples = draw_samples(
        lm,
        problems,
        ctx.prompt,
        n=settings.k,
        sampling=settings.sampling,
        seed=settings.seed,
        purpose="profile",
        store=work / "batches",
        verifier=ctx.verifier,
        progress=ctx.progress(),
    )
    write_table(samples, work / "samples.parquet")
    write_table(pass_rates(samples), work / "rates.parquet")
    verdicts = verdict_counts(samples["verdict"].to_list())
    strict = int(samples["strict"].sum())
    return {
        SCRATCH: ["batches"],
        "model": lm.identity,
        "template_hash": lm.template_hash(),
        "verifier": VERIFIER_VERSION,
        "checks": ctx.verifier.settings.key()["checks"],
        "verdicts": verdicts,
        "strict": strict,
        "confusion": confusion(samples),
        "tokens_generated": int(samples["tokens"].sum()),
        "words": f"{samples.height} responses, {shares(verdicts)}; {strictly(strict, verdicts)}",
    } | (replaced_characters(samples, lm.identity) if model.backend == "api" else {})


def shares(verdicts: dict[str, int]) -> str:
    """Verdict shares in words; every log line that counts verdicts says all of them that occur."""
    total = max(1, sum(verdicts.values()))
    return ", ".join(f"{100 * count / total:.0f} % {name}" for name, count in verdicts.items() if count)


def strictly(strict: int, verdicts: dict[str, int]) -> str:
    """The share of responses that are correct at a mark, in words; errors are left out, as everywhere."""
    n = sum(verdicts.values()) - verdicts["error"]
    return f"{100 * strict / max(1, n):.0f} % strictly correct"


def do_profile(
    work: Path,
    problems: pl.DataFrame,
    judge: Path | None,
    rates: Path | None,
    profile: Profile,
    prompt: Prompt,
    model: str,
) -> Info:
    """Write ``profiles.parquet`` from the folders of the judge and pass-rate steps, with where each number is from."""
    provenance: Info = {"model": model, "prompt": prompt.model_dump(mode="json")}
    if judge is not None:
        facts = read_json(judge / "step.json")["info"]
        provenance["judge"] = {k: facts[k] for k in ("judge_model", "template_hash", "rubric")}
    if rates is not None:
        facts = read_json(rates / "step.json")["info"]
        provenance["pass_rate"] = {k: facts[k] for k in ("template_hash", "verifier", "checks")}
        provenance["pass_rate"] |= profile.pass_rate.model_dump(mode="json", exclude={"enabled"})
    table = build_profiles(
        problems,
        model=model,
        scores=None if judge is None else pl.read_parquet(judge / "scores.parquet"),
        rates=None if rates is None else pl.read_parquet(rates / "rates.parquet"),
        judge_model=provenance.get("judge", {}).get("judge_model"),
        provenance=provenance,
    )
    write_table(table, work / "profiles.parquet")
    return {"words": f"{table.height} profiles"}


def measured(problems: pl.DataFrame, judge: Path | None, rates: Path | None) -> pl.DataFrame:
    """PROFILE table of what the judge and pass-rate steps of these folders found, without its provenance."""
    return build_profiles(
        problems,
        model="",
        scores=None if judge is None else pl.read_parquet(judge / "scores.parquet"),
        rates=None if rates is None else pl.read_parquet(rates / "rates.parquet"),
        judge_model=None,
        provenance={},
    )


def do_route(work: Path, problems: pl.DataFrame, profiles: pl.DataFrame | None, policy: Any) -> Info:
    """Write ``routes.parquet``."""
    routes = route(problems, profiles, policy)
    write_table(routes, work / "routes.parquet")
    sizes = dict(routes.group_by("set").len().sort("set").iter_rows())
    return {
        "policy": describe(policy),
        "sets": sizes,
        "warnings": route_warnings(routes, profiles, policy),
        "words": ", ".join(f"{count} → {name}" for name, count in sizes.items()),
    }


def select_set(
    problems: pl.DataFrame, routes: pl.DataFrame, names: Sequence[str], *, may_be_empty: bool = False
) -> pl.DataFrame:
    """The problems routed to some sets, in pool order.

    Raises:
        DereasonError: there are none, unless that may be.
    """
    ids = routes.filter(pl.col("set").is_in(list(names)))["problem_id"]
    table = problems.filter(pl.col("id").is_in(ids.implode()))
    if table.is_empty() and not may_be_empty:
        filled = ", ".join(f"{s} ({n})" for s, n in routes.group_by("set").len().sort("set").iter_rows())
        raise DereasonError(
            f"no problem was routed to the set {' or '.join(map(repr, names))} (sets: {filled})",
            "use the quantile policy, or other thresholds",
        )
    return table


def hand_on(work: Path, before: Path, why: str) -> Info:
    """End a phase of a later round that has nothing to train on: its model is that of the phase before.

    Args:
        work: the phase's folder.
        before: folder of the phase before.
        why: what is lacking.
    """
    facts = read_json(before / "step.json")["info"]
    shutil.rmtree(work / "model", ignore_errors=True)  # of an attempt that was killed
    try:
        # Links in place of copies: models are large, and a finished step's files are never written again.
        shutil.copytree(before / facts["model"], work / "model", copy_function=os.link)
    except OSError:  # a file system without links
        shutil.copytree(before / facts["model"], work / "model", dirs_exist_ok=True)
    (work / "metrics.jsonl").touch()
    write_table(frame("sample", []), work / "samples.parquet")
    result = PhaseResult(work / "model", 0, 0, 0, facts["template_hash"])
    warning = f"nothing was trained: {why}; the model is that of the phase before"
    empty = {"verdicts": verdict_counts([]), "confusion": None, "warnings": [warning], "kept": ["model"]}
    return training_facts(work, result, f"skipped, {why}") | empty


def training_facts(work: Path, result: PhaseResult, words: str, *scratch: str) -> Info:
    """The facts of a phase; ``scratch`` names what only a resume needs besides its checkpoints."""
    facts = asdict(result) | {"model": result.model.name} | phase_facts(work)
    return facts | {"words": words, SCRATCH: ["checkpoints", *scratch]}


def do_train_sft(
    work: Path,
    problems: pl.DataFrame,
    targets: pl.DataFrame,
    settings: Any,
    model: ModelSettings,
    *,
    seed: int,
    expected_hash: str | None,
    ctx: Context,
) -> Info:
    """Write ``model/`` (and the other models that it keeps) and ``metrics.jsonl`` of a supervised phase."""
    ctx.release()
    check_resume(ctx.launch, work)
    if ctx.launch.processes > 1:
        job = Job(
            processes=ctx.launch.processes,
            kind="sft",
            work=work.resolve(),
            model=model,
            prompt=ctx.prompt,
            sft=SFT.model_validate(settings.model_dump(include=set(SFT.model_fields))),
            seed=seed,
            expected_hash=expected_hash,
        )
        result = launch_phase(ctx.launch, job, problems, targets, progress=ctx.progress(), say=ctx.screen.say)
    else:
        result = run_sft(
            model,
            ctx.prompt,
            problems,
            targets,
            settings,
            out=work / "model",
            work=work,
            seed=seed,
            expected_hash=expected_hash,
            progress=ctx.progress(),
        )
    words = f"{result.steps} steps, {result.tokens_trained:,} tokens trained"
    limit = f"{result.longest} tokens ({'its context' if settings.max_length is None else 'max_length'})"
    long = f"{result.left_out} of {targets.height} targets are longer with their prompts than {limit}"
    warnings = [f"{long}: they were left out"] if result.left_out else []
    return training_facts(work, result, words) | {"kept": kept_models(work), "warnings": warnings}


def do_train_rl(
    work: Path,
    problems: pl.DataFrame,
    settings: Any,
    model: ModelSettings,
    *,
    identity: str,
    seed: int,
    expected_hash: str | None,
    demonstrations: pl.DataFrame | None = None,
    ctx: Context,
) -> Info:
    """Write ``model/``, ``metrics.jsonl`` and ``samples.parquet`` (every rollout) of an RL phase, or of a joint one."""
    ctx.release()
    check_resume(ctx.launch, work)
    if ctx.launch.processes > 1:
        mine = RL if demonstrations is None else Joint
        job = Job(
            processes=ctx.launch.processes,
            kind="rl" if demonstrations is None else "joint",
            work=work.resolve(),
            model=model,
            prompt=ctx.prompt,
            rl=mine.model_validate(settings.model_dump(include=set(mine.model_fields))),
            seed=seed,
            expected_hash=expected_hash,
            identity=identity,
            verifier=ctx.verifier.settings,
            measures=early_warning.NAME if settings.early_warning else None,
        )
        result = launch_phase(ctx.launch, job, problems, demonstrations, progress=ctx.progress(), say=ctx.screen.say)
    else:
        result = run_rl(
            model,
            ctx.prompt,
            problems,
            settings,
            identity=identity,
            out=work / "model",
            work=work,
            seed=seed,
            expected_hash=expected_hash,
            verifier=ctx.verifier,
            progress=ctx.progress(),
            demonstrations=demonstrations,
            measures=early_warning.MEASURES,
        )
    rollouts = rollout_table(work)
    write_table(rollouts, work / "samples.parquet")
    verdicts = verdict_counts(rollouts["verdict"].to_list())
    marked = strictly(int(rollouts["strict"].sum()), verdicts)
    words = f"{result.steps} steps, {rollouts.height} rollouts, {shares(verdicts)}; {marked}"
    facts: Info = {"verdicts": verdicts, "confusion": confusion(rollouts)}
    warnings = [
        *unasked(settings.rewards, ctx.prompt),
        *draw_warnings(work, settings, joint=demonstrations is not None),
        *reading_warnings(work, settings.early_warning),
    ]
    facts |= early_warning.facts(work) | {"warnings": warnings}
    return training_facts(work, result, words, "rollouts", PROBE_FOLDER) | facts


def drawn(
    work: Path,
    problems: pl.DataFrame,
    model: ModelSettings,
    *,
    n: int,
    sampling: Sampling,
    seed: int,
    purpose: str,
    identity: str | None,
    expected_hash: str | None,
    ctx: Context,
) -> tuple[pl.DataFrame, Info]:
    """Draw and judge n responses to each problem and write ``samples.parquet``.

    Returns:
        SAMPLE table; what ``step.json`` says of the model and of the responses.

    Raises:
        DereasonError: the model renders chats differently from the one that the run began with.
    """
    lm = ctx.model(model, identity)
    found = lm.template_hash()
    check_template(lm.identity, found, expected_hash)
    samples = draw_samples(
        lm,
        problems,
        ctx.prompt,
        n=n,
        sampling=sampling,
        seed=seed,
        purpose=purpose,
        store=work / "batches",
        verifier=ctx.verifier,
        progress=ctx.progress(),
    )
    write_table(samples, work / "samples.parquet")
    return samples, {
        SCRATCH: ["batches"],
        "model": lm.identity,
        "template_hash": found,
        "tokens_generated": int(samples["tokens"].sum()),
    } | (replaced_characters(samples, lm.identity) if model.backend == "api" else {})


def do_eval(
    work: Path,
    problems: pl.DataFrame,
    settings: Evaluation,
    model: ModelSettings,
    *,
    identity: str | None,
    expected_hash: str | None,
    ctx: Context,
) -> Info:
    """Write ``samples.parquet`` of a model on held-out problems; the score goes to ``step.json``.

    Raises:
        DereasonError: as :func:`drawn`.
    """
    samples, info = drawn(
        work,
        problems,
        model,
        n=settings.samples,
        sampling=settings.sampling,
        seed=settings.seed,
        purpose="eval",
        identity=identity,
        expected_hash=expected_hash,
        ctx=ctx,
    )
    result = score(samples, problems, settings)
    words = f"{percent(result)}; {shares(result['verdicts'])}"
    return info | {"result": result, "confusion": result["confusion"], "words": words}


def percent(result: Info) -> str:
    """An accuracy with its interval, and the strict one, in words."""

    def shown(of: Info) -> str:
        return f"{100 * of['accuracy']:.1f} % [{100 * of['low']:.1f}, {100 * of['high']:.1f}]"

    return f"{shown(result)} of {result['n_problems']} problems, strict {shown(result['strict'])}"
