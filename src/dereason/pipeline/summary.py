"""``summary.json``: the run for machines, a versioned contract (docs/reference/summary.md).

Results are read from finished steps, so it can be written again at any time; the environment is the present one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from dereason.evaluation.evaluate import compare
from dereason.evaluation.statistics import spearman
from dereason.lm import embedded
from dereason.lm.local.model import load_tokenizer, model_identity, model_path, resolve_device
from dereason.lm.prompts import template_hash
from dereason.lm.rendering import chat_text
from dereason.pipeline.environment import environment
from dereason.pipeline.graph import Graph, Round, Stage
from dereason.pipeline.pool import domains
from dereason.pipeline.recipe import Arm, Recipe, set_names
from dereason.pipeline.store import Info, Step, finished
from dereason.problems.schema import read_table

SCHEMA_VERSION = 4


def summarise(recipe: Recipe, graph: Graph, run_dir: Path, cached: dict[str, bool], peak_memory: int) -> Info:
    """Build the summary of a complete run.

    Args:
        recipe: the recipe.
        graph: its steps, all finished.
        run_dir: the run directory.
        cached: by step folder: was it there before this run?
        peak_memory: largest resident size in bytes, over all runs of this directory.
    """
    steps = run_dir / "steps"

    def facts(step: Step) -> Info:
        record = finished(steps / step.folder)
        assert record is not None, step.folder  # the run has just finished it
        return dict(record["info"])

    pool = read_table("problem", steps / graph.problems.folder / "train.parquet")
    profiles = None
    if graph.profile is not None:
        profiles = read_table("profile", steps / graph.profile.folder / "profiles.parquet")
    records = [(s, finished(steps / s.folder) or {}) for s in graph.steps()]
    results = [
        {"arm": s.arm, "seed": s.seed, "stage": s.name, "phase": s.phase}
        | facts(s.evaluation)["result"]
        | {"rollouts": facts(s.training).get("confusion") if s.training is not None else None}
        for s in graph.stages
    ]
    profile = None if profiles is None else _profile(recipe, graph, profiles, facts)
    routed = {r.route.folder: r for r in reversed(graph.rounds)}
    warnings = list(facts(graph.problems)["warnings"])
    if graph.audit is not None:
        warnings += facts(graph.audit)["warnings"]
    warnings += [
        f"arm {r.arm}{f', seed {r.seed}, round {r.number}' if r.number > 1 else ''}: {w}"
        for r in reversed(routed.values())
        for w in facts(r.route)["warnings"]
    ]
    made = {s.folder: stage for stage in graph.stages for s in (stage.targets, stage.training) if s is not None}
    for folder, stage in made.items():
        where = f"arm {stage.arm}, seed {stage.seed}, {stage.name}"
        step = stage.targets if stage.targets is not None and stage.targets.folder == folder else stage.training
        assert step is not None  # it stands under its folder
        warnings += [f"{where}: {w}" for w in facts(step).get("warnings", [])]
    if graph.analysis is not None:
        warnings += [f"analysis: {w}" for w in facts(graph.analysis)["warnings"]]
    warnings += moved_rules(results)
    model = _model(recipe)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": recipe.name,
        "description": recipe.description,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(sum(r["seconds"] for _, r in records), 1),
        "model": model,
        "prompt": _prompt(recipe, pool),
        "problems": {k: facts(graph.problems)[k] for k in ("train", "test", "reading")},
        "profile": profile,
        "arms": [_arm(arm, graph, run_dir, pool, facts) for arm in recipe.arms],
        "results": results,
        "comparisons": _comparisons(recipe, graph, steps),
        "arm_comparisons": _arm_comparisons(recipe, graph, steps),
        "reasoning": _reasoning(graph, facts),
        "budgets": _budgets(recipe, graph, steps, model["parameters"], facts),
        "steps": [
            {
                "name": s.label,
                "kind": s.kind,
                "key": s.key,
                "seconds": r["seconds"],
                "cached": cached.get(s.folder, True),
                "path": f"steps/{s.folder}",
                "peak_memory_bytes": r["info"].get("peak_memory_bytes"),
                "tokens_per_second": r["info"].get("tokens_per_second"),
            }
            for s, r in records
        ],
        "tokens": {
            "generated": sum(int(r["info"].get("tokens_generated", 0)) for _, r in records),
            "trained": sum(int(r["info"].get("tokens_trained", 0)) for _, r in records),
        },
        "peak_memory_bytes": peak_memory,
        "environment": environment(resolve_device(recipe.model.device)),
        "warnings": warnings,
        "artifacts": _artifacts(graph),
    }


def _model(recipe: Recipe) -> Info:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_path(recipe.model), revision=recipe.model.revision or "main")
    with torch.device("meta"):  # counts parameters without memory
        parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    return {
        "name": recipe.model.name,
        "identity": model_identity(recipe.model),
        "note": embedded.NOTE if recipe.model.name == embedded.NAME else "",
        "parameters": parameters,
    }


def _prompt(recipe: Recipe, pool: pl.DataFrame) -> Info:
    tokenizer = load_tokenizer(recipe.model, recipe.prompt.date)
    kwargs = dict(recipe.prompt.chat_template_kwargs)
    first = pool.row(0, named=True)
    chat = recipe.prompt.messages(first["question"], first["options"])
    return {
        "template_hash": template_hash(tokenizer, kwargs),
        "system": recipe.prompt.system,
        "suffix": recipe.prompt.suffix,
        "date": recipe.prompt.date,
        "example": chat_text(tokenizer, chat, kwargs),
    }


def _profile(recipe: Recipe, graph: Graph, profiles: pl.DataFrame, facts: Any) -> Info:
    settings = recipe.profile.pass_rate
    both = profiles.filter(pl.col("judge_expectation").is_not_null() & pl.col("pass_rate").is_not_null())
    level = recipe.evaluation.level
    found = spearman(both["judge_expectation"].to_list(), both["pass_rate"].to_list(), level=level)
    agreement = None
    if found is not None:
        agreement = {
            "value": found.estimate,
            "low": found.low,
            "high": found.high,
            "level": level,
            "n": both.height,
        }
    return {
        "k": settings.k if graph.pass_rate else None,
        "sampling": settings.sampling.model_dump(mode="json") if graph.pass_rate else None,
        "spearman": agreement,
        "verdicts": facts(graph.pass_rate)["verdicts"] if graph.pass_rate else None,
        "strict": facts(graph.pass_rate)["strict"] if graph.pass_rate else None,
        "confusion": facts(graph.pass_rate)["confusion"] if graph.pass_rate else None,
        "warnings": judge_warnings(profiles, agreement),
    }


MOVED = 0.1
"""Two stages found their answers by other rules where at least this share of them would have to change its rule."""


def moved_rules(results: list[Info]) -> list[str]:
    """Says where a stage's answers stand elsewhere than the base's: their accuracies then differ by that as well."""
    base = {(row["arm"], row["seed"]): row["found_by"] for row in results if row["stage"] == "base"}
    out = []
    for row in results:
        before, after = base.get((row["arm"], row["seed"])), row["found_by"]
        if not before or not after:
            continue
        moved = sum(abs(before.get(rule, 0.0) - after.get(rule, 0.0)) for rule in before | after) / 2
        if moved >= MOVED:
            most = [f"{rule} ({100 * share:.0f} %)" for rule, share in (next(iter(r.items())) for r in (before, after))]
            out.append(
                f"arm {row['arm']}, seed {row['seed']}, {row['stage']}: {100 * moved:.0f} % of its answers were found "
                f"by other rules than the base's, whose most frequent was {most[0]}, here {most[1]}: a part of the "
                "difference in accuracy is how answers are marked; compare the strict ones too"
            )
    return out


def judge_warnings(profiles: pl.DataFrame, agreement: Info | None) -> list[str]:
    """What a reader should know before trusting judge scores: too narrow, or unrelated to the pass rate.

    Args:
        profiles: PROFILE table.
        agreement: Spearman correlation of judge expectation and pass rate (``value, low, high``), or None.
    """
    warnings = []
    scores = profiles["judge_expectation"].drop_nulls()
    if len(scores) and (spread := scores.quantile(0.95) - scores.quantile(0.05)) < 1:  # type: ignore[operator]
        warnings.append(
            f"the judge puts 90 % of the problems within {spread:.2f} points of each other: the level of its scores "
            "says little, so route by rank (quantile), not by a threshold"
        )
    if agreement is not None and agreement["high"] > -0.1:
        warnings.append(
            f"the judge's score says little about this model's pass rate (Spearman {agreement['value']:+.2f} "
            f"[{agreement['low']:+.2f}, {agreement['high']:+.2f}]; a good judge is clearly negative): routing by it is "
            "close to chance here; the quantile policy with `score: pass_rate` routes by the measured pass rate"
        )
    return warnings


def _arm(arm: Arm, graph: Graph, run_dir: Path, pool: pl.DataFrame, facts: Any) -> Info:
    phases = []
    for at, phase in enumerate(arm.unrolled(), 1):
        stage = next(s for s in graph.stages if s.arm == arm.name and s.phase == at)
        targets = None
        if stage.targets is not None:
            found = facts(stage.targets)
            targets = {k: found[k] for k in ("n", "built", "accepted", "origins", "notes", "sources")}
            targets["confusion"] = found.get("confusion")
        entry = {"index": at, "kind": phase.kind, "round": stage.round, "sets": set_names(phase), "targets": targets}
        phases.append(entry)
    rounds = [_round(r, run_dir, pool, facts) for r in graph.rounds if r.arm == arm.name]
    policy = facts(graph.first_round(arm.name).route)["policy"]
    return {"name": arm.name, "policy": policy, "sets": rounds[0]["sets"], "phases": phases, "rounds": rounds}


def _round(round_: Round, run_dir: Path, pool: pl.DataFrame, facts: Any) -> Info:
    """The sets of one round, and the pass rate of the model that it was routed by."""
    routes = read_table("route", run_dir / "steps" / round_.route.folder / "routes.parquet")
    profiles = None
    if round_.profile is not None:
        profiles = read_table("profile", run_dir / "steps" / round_.profile.folder / "profiles.parquet")
    sets: Info = {}
    for name in sorted(set(routes["set"])):
        ids = routes.filter(pl.col("set") == name)["problem_id"].implode()
        members = pool.filter(pl.col("id").is_in(ids))
        known = profiles.filter(pl.col("problem_id").is_in(ids)) if profiles is not None else None
        sets[name] = {
            "n": members.height,
            "domains": domains(members),
            "mean_pass_rate": known["pass_rate"].mean() if known is not None else None,
            "mean_judge": known["judge_expectation"].mean() if known is not None else None,
        }
    rate = None if profiles is None else profiles["pass_rate"].mean()
    return {"seed": round_.seed, "round": round_.number, "sets": sets, "pass_rate": rate}


def _line(graph: Graph, arm: str, seed: int) -> list[Stage]:
    """The stages of one arm and seed, base first."""
    return [s for s in graph.stages if s.arm == arm and s.seed == seed]


def _compare(recipe: Recipe, steps: Path, before: Stage, after: Stage) -> Info:
    samples = [read_table("sample", steps / s.evaluation.folder / "samples.parquet") for s in (before, after)]
    return compare(samples[0], samples[1], recipe.evaluation)


def _comparisons(recipe: Recipe, graph: Graph, steps: Path) -> list[Info]:
    """Each stage against the one before it, and the last against the base."""
    out = []
    for arm in recipe.arms:
        for seed in recipe.seeds:
            line = _line(graph, arm.name, seed)
            pairs = list(pairwise(line))
            if len(line) > 2:
                pairs.append((line[0], line[-1]))
            for before, after in pairs:
                names = {"arm": arm.name, "seed": seed, "from": before.name, "to": after.name}
                out.append(names | _compare(recipe, steps, before, after))
    return out


def _arm_comparisons(recipe: Recipe, graph: Graph, steps: Path) -> list[Info]:
    """Each other arm's last stage against the first arm's: did the routing decision help?"""
    first, *others = recipe.arms
    out = []
    for seed in recipe.seeds:
        reference = _line(graph, first.name, seed)[-1]
        for arm in others:
            last = _line(graph, arm.name, seed)[-1]
            names = {"seed": seed, "from": first.name, "to": arm.name}
            names |= {"stage_from": reference.name, "stage_to": last.name}
            out.append(names | _compare(recipe, steps, reference, last))
    return out


def _reasoning(graph: Graph, facts: Any) -> Info | None:
    """Where the analysis is and what it says over all problems; None where the recipe asks for none."""
    if graph.analysis is None:
        return None
    found = facts(graph.analysis)
    return {
        "path": f"steps/{graph.analysis.folder}",
        **{k: found[k] for k in ("problems", "responses", "level", "models", "verdicts")},
    }


def _budgets(recipe: Recipe, graph: Graph, steps: Path, parameters: int, facts: Any) -> list[Info]:
    """What each arm's training used: problems, tokens, and operations (6 N a trained token, 2 N a generated one)."""
    out = []
    for arm in recipe.arms:
        for seed in recipe.seeds:
            problems: set[str] = set()
            trained = generated = asked = 0
            for stage in _line(graph, arm.name, seed):
                for step, name in ((stage.targets, "targets.parquet"), (stage.training, "samples.parquet")):
                    path = None if step is None else steps / step.folder / name
                    if path is not None and path.is_file():
                        problems |= set(pl.read_parquet(path, columns=["problem_id"])["problem_id"])
                if stage.training is not None:
                    found = facts(stage.training)
                    trained += int(found["tokens_trained"])
                    generated += int(found["tokens_generated"])
                if stage.targets is not None:
                    asked += int(facts(stage.targets)["tokens_generated"])
            out.append(
                {
                    "arm": arm.name,
                    "seed": seed,
                    "problems": len(problems),
                    "tokens_trained": trained,
                    "tokens_generated": generated,
                    "tokens_of_targets": asked,
                    "flops": 6 * parameters * trained + 2 * parameters * generated,
                }
            )
    return out


def _artifacts(graph: Graph) -> Info:
    def at(step: Step, file: str) -> str:
        return f"steps/{step.folder}/{file}"

    trained = [s for s in graph.stages if s.training is not None]
    return {
        "train_problems": at(graph.problems, "train.parquet"),
        "test_problems": at(graph.problems, "test.parquet"),
        "profiles": at(graph.profile, "profiles.parquet") if graph.profile else None,
        "routes": {r.arm: at(r.route, "routes.parquet") for r in reversed(graph.rounds) if r.number == 1},
        "targets": [
            {
                "arm": s.arm,
                "seed": s.seed,
                "phase": s.phase,
                "path": at(s.targets, "targets.parquet"),
                "candidates": at(s.targets, "candidates.parquet"),
                "coverage": at(s.targets, "coverage.parquet"),
            }
            for s in trained
            if s.targets is not None
        ],
        "curves": [
            {
                "arm": s.arm,
                "seed": s.seed,
                "phase": s.phase,
                "kind": s.name.split("-", 1)[1],
                "path": at(s.training, "metrics.jsonl"),
            }
            for s in trained
            if s.training is not None
        ],
        "models": [
            {"arm": s.arm, "seed": s.seed, "stage": s.name, "path": at(s.training, "model")}
            for s in trained
            if s.training is not None
        ],
        "samples": [
            {"arm": s.arm, "seed": s.seed, "stage": s.name, "path": at(s.evaluation, "samples.parquet")}
            for s in graph.stages
        ],
        "probes": [
            {"arm": s.arm, "seed": s.seed, "stage": s.name, "path": at(s.probe, "samples.parquet")}
            for s in graph.stages
            if s.probe is not None
        ],
    }
