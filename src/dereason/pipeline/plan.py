"""``--dry-run``: what a recipe would do and what memory it would take, without loading a model or touching the network.

Sizes are exact where the step is cached or the recipe decides them; otherwise they are upper bounds, marked
``known after`` the step that decides them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dereason.lm.local.footprint import device_bytes, planned_device
from dereason.lm.local.model import WITHOUT_VLLM, has_vllm, on_cuda, resolve_backend
from dereason.lm.local.shape import shape_of
from dereason.pipeline.actions import Context
from dereason.pipeline.audit import planned_warnings
from dereason.pipeline.build import build
from dereason.pipeline.contexts import (
    Ask,
    Pool,
    Whose,
    asks_of,
    check_contexts,
    context_of_model,
    pools_in,
    unknown_contexts,
)
from dereason.pipeline.dates import recorded_date
from dereason.pipeline.differences import differences
from dereason.pipeline.estimates import Estimates, refuse
from dereason.pipeline.graph import Graph, Stage
from dereason.pipeline.pool import load_problems
from dereason.pipeline.progress import Screen
from dereason.pipeline.recipe import Arm, Imitates, Phase, Recipe, SFTPhase, set_names
from dereason.pipeline.store import Info, Step, finished
from dereason.problems.schema import read_table
from dereason.problems.sources import FileSource, GymSource, Source, fingerprint
from dereason.routing.policies import decided_sizes, needs, sets
from dereason.supervision.settings import CritiqueTargets, DataTargets, asked_models, responses_per_problem
from dereason.training.joint.bread import BREAD
from dereason.training.joint.settings import Joint
from dereason.training.rewards.asked import unasked
from dereason.training.rl import RL

MADE_AT_MOST = 5000
"""Procedural problems that a plan makes to see how long they are, once; of more, nothing is known."""


@dataclass(frozen=True)
class Count:
    """A number that may not be known yet.

    Attributes:
        value: the number or its upper bound; None where nothing is known.
        known_after: the step that decides it; empty where it is exact.
    """

    value: int | None
    known_after: str = ""

    def times(self, factor: int) -> Count:
        """This many times a factor."""
        return Count(None if self.value is None else self.value * factor, self.known_after)

    def words(self) -> str:
        """For people."""
        if self.value is None:
            return f"known after {self.known_after}"
        return f"≤ {self.value:,} (known after {self.known_after})" if self.known_after else f"{self.value:,}"

    def json(self) -> Info:
        """For machines."""
        return {"value": self.value, "exact": not self.known_after, "known_after": self.known_after or None}


def make_plan(recipe: Recipe, run_dir: Path, base: Path) -> Info:
    """The resolved plan: pool, set sizes, steps with sizes and token bounds, what is cached.

    Args:
        recipe: the recipe.
        run_dir: its run directory; need not exist.
        base: folder that relative paths in the recipe start from.
    """
    recipe = recipe.model_copy(update={"prompt": recorded_date(recipe.prompt, run_dir)})
    graph = build(recipe, base, Context(recipe.prompt, Screen(quiet=True)))  # steps that a plan never runs
    steps = run_dir / "steps"
    drop = recipe.problems.drop_unanswered
    pools: dict[Whose, Pool] = {}
    pool, pool_note = _size(recipe.problems.train, base, "train", drop, pools, ["duplicates are dropped"])
    test, test_note = _size(recipe.problems.test, base, "test", drop, pools)
    if (record := finished(steps / graph.problems.folder)) is not None:
        pool, test = Count(record["info"]["train"]["n"]), Count(record["info"]["test"]["n"])
        pool_note = test_note = "cached"
        pools = pools_in(steps / graph.problems.folder)
    asks, estimates = asks_of(recipe), Estimates(recipe, pools)
    check_contexts(asks, estimates.prompts.longest)
    set_sizes = {arm.name: _set_sizes(arm, graph, steps, pool) for arm in recipe.arms}
    phases = phases_of(recipe, graph)
    planned = list(graph.steps())
    rows = [_row(s, recipe, graph, steps, pool, test, set_sizes, phases.get(s.folder)) for s in planned]
    for step, row in zip(planned, rows, strict=True):
        found = phases.get(step.folder)
        row["memory"] = estimates.of(step.kind, None if found is None else found[1])
    return {
        "name": recipe.name,
        "run_dir": str(run_dir),
        "model": recipe.model.name,
        "pool": pool.json() | {"words": pool.words(), "note": pool_note},
        "test": test.json() | {"words": test.words(), "note": test_note},
        "sets": {
            arm: {name: count.json() | {"words": count.words()} for name, count in sizes.items()}
            for arm, sizes in set_sizes.items()
        },
        "steps": rows,
        "cached": sum(r["cached"] for r in rows),
        "tried": recipe.tried,
        "context": _context(recipe),
        "unknown": _unknown(recipe, asks),
        "left_out": _left_out(recipe),
        "warnings": [
            *_references(recipe, graph, steps, base),
            *(
                f"arm {arm.name}, phases[{at}]: {warning}"
                for arm in recipe.arms
                for at, phase in enumerate(arm.phases)
                if isinstance(phase, RL)
                for warning in unasked(phase.rewards, recipe.prompt)
            ),
        ],
        "slow": _slow(recipe),
        "differs": [d.words() for d in differences((s, steps / s.folder) for s in planned)],
    }


def _references(recipe: Recipe, graph: Graph, steps: Path, base: Path) -> list[str]:
    """What an audit of a sample of the references warns of."""
    if graph.audit is None:
        return []
    if (record := finished(steps / graph.audit.folder)) is not None:
        return list(record["info"]["warnings"])
    made = steps / graph.problems.folder
    return planned_warnings(recipe.problems, base, made if finished(made) else None, recipe.verifier)


def check_memory(plan: Info) -> None:
    """Refuse a plan with a step that the named device has not the memory for.

    Raises:
        DereasonError: there is one among those that are still to do.
    """
    for row in plan["steps"]:
        if row["memory"] is not None and not row["cached"]:
            refuse(row["name"], row["memory"])


def _context(recipe: Recipe) -> Info:
    """The room that the student has for a text."""
    room = context_of_model(recipe.model)
    return {"tokens": None if room is None else room.tokens, "words": None if room is None else room.words}


def _unknown(recipe: Recipe, asks: Sequence[Ask]) -> list[str]:
    """What could not be checked, and how to have it checked."""
    found = unknown_contexts(asks)
    device = planned_device(recipe.model)
    if shape_of(recipe.model) is not None and device_bytes(recipe.model, device) is None:
        found.append(
            f"no {device} device is here: whether its memory suffices is not checked; set model.device_memory to that "
            "of one in GiB"
        )
    return found


def _slow(recipe: Recipe) -> list[str]:
    """What a GPU would do faster than this plan."""
    sampled = [recipe.model, *recipe.models()]
    engine = [
        f"arm {arm.name}: rollouts by {phase.settled(recipe.model).rollouts}"
        for arm in recipe.arms
        for phase in arm.phases
        if isinstance(phase, RL) and not phase.settled(recipe.model).rollouts.startswith("vllm")
    ]
    local = [f"{model.name}: responses by the local backend" for model in sampled if resolve_backend(model) == "local"]
    if not (engine or local) or not on_cuda(recipe.model.device):
        return []
    mend = "set rollouts and backend" if has_vllm() else "pip install 'dereason[vllm]'"
    return [f"{'; '.join(dict.fromkeys([*local, *engine]))}: {WITHOUT_VLLM}; {mend}"]


def _left_out(recipe: Recipe) -> list[str]:
    """The profilers that do not run because nothing reads them."""
    words = {"judge": "judge scores", "pass_rate": "pass rates"}
    measured = recipe.measured()
    return [
        f"{words[need]}: no arm reads them; profile.{need}.enabled=true has them measured for the report"
        for need, on in recipe.profilers().items()
        if on is None and need not in measured
    ]


def _size(
    source: Source,
    base: Path,
    whose: Whose,
    drop: bool,
    pools: dict[Whose, Pool],
    dropped: Sequence[str] = (),
) -> tuple[Count, str]:
    """How many problems, and a note; ``dropped`` says what the step drops of them besides. What is at hand goes into
    ``pools``; files are read as by the step."""
    name = f"{fingerprint(source, base)} {drop}"
    if isinstance(source, GymSource):
        total = sum(f.size for f in source.families)
        if total <= MADE_AT_MOST:
            pools[whose] = Pool(name, lambda: load_problems(source, base, f"problems.{whose}", drop)[0])
        return Count(total, "problems"), "; ".join(["made by reasoning-gym, each once", *dropped])
    if isinstance(source, FileSource):
        table, _, notes = load_problems(source, base, f"problems.{whose}", drop)
        pools[whose] = Pool(name, lambda: table)
        return Count(table.height, "problems"), "; ".join([source.path, *dropped, *notes])
    from datasets import config

    folder = source.name.replace("/", "___")
    there = any(os.path.isdir(os.path.join(config.HF_DATASETS_CACHE, name)) for name in (folder, folder.lower()))
    note = f"hub data set {source.name}, split {source.split}: " + ("in the cache" if there else "not downloaded")
    return Count(source.limit, "problems"), note


def _set_sizes(arm: Arm, graph: Graph, steps: Path, pool: Count) -> dict[str, Count]:
    folder = steps / graph.first_round(arm.name).route.folder
    names = sorted(sets(arm.route))
    if (folder / "step.json").is_file():
        counts = dict(read_table("route", folder / "routes.parquet").group_by("set").len().iter_rows())
        return {name: Count(counts.get(name, 0)) for name in names}
    if len(names) == 1:
        return {names[0]: pool}
    if not pool.known_after and pool.value and (decided := decided_sizes(arm.route, pool.value)) is not None:
        return {name: Count(decided.get(name, 0)) for name in names}
    after = "profile" if needs(arm.route) else "route"
    return {name: Count(pool.value, after) for name in names}


def _row(
    step: Step,
    recipe: Recipe,
    graph: Graph,
    steps: Path,
    pool: Count,
    test: Count,
    set_sizes: dict[str, dict[str, Count]],
    phase: tuple[Stage, Phase] | None,
) -> Info:
    record = finished(steps / step.folder)
    partial = (steps / (step.folder + ".partial")).is_dir()
    row: Info = {
        "name": step.label,
        "kind": step.kind,
        "key": step.key,
        "cached": record is not None,
        "state": "cached" if record else "interrupted, will be continued" if partial else "to do",
    }
    return row | _work(step, recipe, graph, pool, test, set_sizes, phase)


def _work(
    step: Step,
    recipe: Recipe,
    graph: Graph,
    pool: Count,
    test: Count,
    set_sizes: dict[str, dict[str, Count]],
    found: tuple[Stage, Phase] | None,
) -> Info:
    """Problems and tokens of one step, in words."""
    if step is graph.audit:
        return {"work": f"references of {recipe.problems.audit:,} problems of the pool and of the test set, at most"}
    if step is graph.judge:
        return {
            "work": f"{pool.words()} problems, one forward pass each",
            "tokens_generated": Count(0).json(),
        }
    if step.kind == "pass-rate":
        settings = recipe.profile.pass_rate
        responses = pool.times(settings.k)
        return _generation(responses, settings.sampling.max_new_tokens)
    if step.kind == "eval":
        responses = test.times(recipe.evaluation.samples)
        return _generation(responses, recipe.evaluation.sampling.max_new_tokens)
    if step.kind == "probe":
        assert recipe.analysis is not None  # no other recipe has such a step
        return _generation(
            _probed(recipe, test).times(recipe.analysis.samples), recipe.analysis.sampling.max_new_tokens
        )
    if step is graph.analysis:
        assert recipe.analysis is not None
        models = len(step.inputs) - 1
        graphs = "trajectories" if recipe.analysis.steps is None else "trajectories and reasoning graphs"
        return {"work": f"{graphs} of {models} models, {_probed(recipe, test).words()} problems"}
    if step.kind == "choose-start":
        start, kept = step.config["start"], step.inputs["before"].config["phase"]["keep_checkpoints"]
        return _generation(
            Count(kept * start["problems"] * start["samples"], "training"), start["sampling"]["max_new_tokens"]
        )
    if found is None:
        return {"work": ""}
    stage, phase = found
    size = _size_of(set_names(phase), stage, set_sizes, pool)
    names = " + ".join(set_names(phase))
    if step.kind == "targets":
        assert isinstance(phase, Imitates)  # no other phase has such a step
        return _supervision(phase, stage, set_sizes, pool)
    if isinstance(phase, RL):
        generations = -(-phase.steps // (phase.updates_per_generation * phase.iterations))
        draws = phase.redraws.max_draws if phase.redraws else 1
        if isinstance(phase, Joint) and isinstance(phase.method, BREAD):
            draws *= 1 + phase.method.searches
        rollouts = generations * phase.prompts_per_generation * phase.group_size * draws
        tokens = rollouts * phase.max_new_tokens
        return {
            "work": f"set {names}: {size.words()} problems; {phase.steps} optimiser steps, "
            f"{'≤ ' if draws > 1 else ''}{rollouts:,} rollouts, ≤ {tokens:,} tokens generated, trained on with their "
            "prompts",
            "tokens_generated": Count(tokens, step.label).json(),
        }
    assert isinstance(phase, SFTPhase)  # what else there is
    return {
        "work": f"set {names}: targets of {size.words()} problems × {phase.epochs:g} epochs, batch {phase.batch}, "
        "tokens known after targets"
    }


def _probed(recipe: Recipe, test: Count) -> Count:
    """How many held-out problems the analysis asks."""
    most = recipe.analysis.problems if recipe.analysis is not None else None
    bounds = [n for n in (most, test.value) if n is not None]
    return Count(min(bounds, default=None), test.known_after)


def _size_of(names: Sequence[str], stage: Stage, set_sizes: dict[str, dict[str, Count]], pool: Count) -> Count:
    """Problems in some sets together; in a later round any share of the pool."""
    if stage.round > 1:
        return Count(pool.value, f"round {stage.round}'s profile")
    sizes = [set_sizes[stage.arm].get(name, Count(0)) for name in names]
    after = next((s.known_after for s in sizes if s.known_after), "")
    if any(s.value is None for s in sizes):
        return Count(None, after)
    total = sum(s.value or 0 for s in sizes)
    # upper bounds of sets that share a pool: together they are no more than the pool
    return Count(total if pool.value is None else min(total, pool.value), after)


def _supervision(phase: Imitates, stage: Stage, set_sizes: dict[str, dict[str, Count]], pool: Count) -> Info:
    """What building targets asks, entry by entry."""
    words, tokens = [], Count(0)
    for entry in phase.targets:
        names = entry.sets() or ([phase.set] if isinstance(phase.set, str) else phase.set)
        size = _size_of(names, stage, set_sizes, pool)
        if isinstance(entry, CritiqueTargets):
            bound = min((n for n in (pool.value, entry.max_problems) if n is not None), default=None)
            size = Count(bound if stage.phase > 1 else 0, "RL" if stage.phase > 1 else "")
        each = responses_per_problem(entry)
        about = "failures of RL" if isinstance(entry, CritiqueTargets) else " + ".join(names)
        words.append(f"{entry.style} for {about}: {size.words()} problems")
        if each:
            asked = size.times(each)
            words[-1] += f", {each} responses each"
            limit = 0 if isinstance(entry, DataTargets) else entry.sampling.max_new_tokens
            total = asked.times(limit)
            words[-1] += f", ≤ {total.value:,} tokens generated" if total.value is not None else ""
            for model in asked_models(entry):
                price = None if total.value is None else model.api.price(0, total.value)
                words[-1] += f" for ≤ ${price:,.2f} at {model.name}, prompts besides" if price is not None else ""
            known = None if total.value is None or tokens.value is None else tokens.value + total.value
            tokens = Count(known, "it ran")
    return {"work": "; ".join(words), "tokens_generated": tokens.json()}


def _generation(responses: Count, limit: int) -> Info:
    tokens = responses.times(limit)
    bound = f"≤ {tokens.value:,} tokens" if tokens.value is not None else "tokens unknown"
    return {
        "work": f"{responses.words()} responses, {bound} generated",
        "tokens_generated": Count(tokens.value, "it ran").json(),
    }


def phases_of(recipe: Recipe, graph: Graph) -> dict[str, tuple[Stage, Phase]]:
    """The phase that each step of training or of targets belongs to, the first that has it, by the step's folder."""
    arms = {arm.name: arm for arm in recipe.arms}
    found: dict[str, tuple[Stage, Phase]] = {}
    for stage in graph.stages:
        for step in (stage.training, stage.targets):
            if step is not None:
                phases = arms[stage.arm].phases
                found.setdefault(step.folder, (stage, phases[(stage.phase - 1) % len(phases)]))
    return found
