"""Running a recipe: every step that is not finished, then the summary and the report."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dereason.errors import DereasonError
from dereason.lm.load import check_model
from dereason.lm.local.context import fetch_config
from dereason.memory import peak_bytes
from dereason.pipeline.actions import Context
from dereason.pipeline.build import build
from dereason.pipeline.contexts import asks_of, check_contexts, pools_in
from dereason.pipeline.dates import settled_date
from dereason.pipeline.differences import differences, say_differences
from dereason.pipeline.environment import environment
from dereason.pipeline.estimates import Estimates, refuse
from dereason.pipeline.graph import Graph
from dereason.pipeline.plan import phases_of
from dereason.pipeline.progress import Screen
from dereason.pipeline.reasoning import check_analysis
from dereason.pipeline.recipe import Arm, Recipe, resolved_yaml, set_names
from dereason.pipeline.store import Info, Log, Step, digest, execute, finished, locked, read_json, write_json
from dereason.pipeline.summary import summarise
from dereason.training.adapters import check_adapter
from dereason.training.joint.settings import Joint, check_processes_of
from dereason.training.launch import check_launch
from dereason.training.rl import RL, check_set_size
from dereason.verify.verifier import Verifier


def run_recipe(recipe: Recipe, run_dir: Path, base: Path, screen: Screen | None = None) -> Info:
    """Run a recipe in a run directory; finished steps are kept, an interrupted one is continued.

    Args:
        recipe: what to run.
        run_dir: the run directory, made where it is missing.
        base: folder that relative paths in the recipe start from.
        screen: where progress is shown; None shows none.

    Returns:
        The content of ``summary.json``.

    Raises:
        DereasonError: whatever stops the run; finished steps stay.
    """
    screen = screen or Screen(quiet=True)
    device = check_model(recipe.model)
    for model in recipe.models():
        check_model(model)  # a GPU that is not there is refused before any work
        fetch_config(model)
    check_launch(recipe.launch, device)
    if recipe.analysis is not None:
        check_analysis(recipe.analysis)
    for phase in (p for arm in recipe.arms for p in arm.phases):
        check_adapter(phase.adapter, recipe.model)
        if isinstance(phase, RL):
            phase.vllm.check(phase.rollouts, device)
        if isinstance(phase, Joint):
            check_processes_of(phase, recipe.launch.processes)
    check_contexts(asks_of(recipe))
    recipe = recipe.model_copy(update={"prompt": settled_date(recipe.prompt, recipe.models(), run_dir)})
    verifier = Verifier(recipe.verifier)
    calls = run_dir / "calls"
    ctx = Context(prompt=recipe.prompt, screen=screen, verifier=verifier, launch=recipe.launch, calls=calls)
    graph = build(recipe, base, ctx)
    with verifier, locked(run_dir):
        (run_dir / "steps").mkdir(exist_ok=True)
        log = Log(run_dir / "log.jsonl")
        (run_dir / "recipe.yaml").write_text(resolved_yaml(recipe, base), encoding="utf-8")
        _manifest(recipe, graph, run_dir, device)
        log.event("run-start", recipe=recipe.name, recipe_hash=digest(recipe.model_dump(mode="json")))
        folders = [(s, run_dir / "steps" / s.folder) for s in graph.steps()]
        say_differences(folders, screen, log)
        cached = _steps(recipe, graph, run_dir, ctx, log)
        peak = _peak_memory(run_dir)
        summary = summarise(recipe, graph, run_dir, cached, peak)
        # once more: a branch on the hub may have moved meanwhile, and the environment is that of this process alone
        summary["warnings"] += [d.words() for d in differences(folders)]
        write_json(run_dir / "summary.json", summary)

        from dereason.report import write_report

        write_report(run_dir)
        log.event("run-end", seconds=summary["seconds"], peak_memory_bytes=peak)
    return summary


def _steps(recipe: Recipe, graph: Graph, run_dir: Path, ctx: Context, log: Log) -> dict[str, bool]:
    cached: dict[str, bool] = {}
    steps = run_dir / "steps"
    routed: dict[str, list[Arm]] = {}
    for arm in recipe.arms:
        routed.setdefault(graph.first_round(arm.name).route.folder, []).append(arm)
    planned = list(graph.steps())
    for step in planned:
        ctx.label = step.label
        try:
            inputs = {role: steps / s.folder for role, s in step.inputs.items()}
            record, was_there = execute(steps / step.folder, step, inputs, log)
        finally:
            ctx.screen.stop()
        cached[step.folder] = was_there
        if step is graph.problems:
            _check_room(recipe, graph, planned, steps)
        for arm in routed.get(step.folder, []):
            _check_sets(arm, record["info"])
        how = "cached" if was_there else f"{record['seconds']:.0f} s"
        ctx.screen.end(step.label, f"{how:>7}  {record['info'].get('words', '')}")
        ctx.screen.confusion(record["info"].get("confusion"))
        for note in record["info"].get("reading", []):
            ctx.screen.say(f"  {note}")
        for warning in record["info"].get("warnings", []):
            ctx.screen.say(f"  warning: {warning}", style="yellow")
    ctx.release()
    return cached


def _check_room(recipe: Recipe, graph: Graph, planned: Sequence[Step], steps: Path) -> None:
    """Once the problems are there, refuse prompts that a model has no context for, and steps without the memory.

    An estimate is right within a fifth: what it finds a little too large is tried.
    """
    folder = steps / graph.problems.folder
    estimates, phases = Estimates(recipe, pools_in(folder)), phases_of(recipe, graph)
    check_contexts(asks_of(recipe), estimates.prompts.longest)
    for step in planned:
        folder = steps / step.folder
        if finished(folder) is None:
            found = phases.get(folder.name)
            info = estimates.of(step.kind, None if found is None else found[1])
            if info is not None:
                refuse(step.label, info, spare=1.2)


def _check_sets(arm: Arm, info: Info) -> None:
    """Once an arm is routed, refuse sets that one of its phases could not use: before anything is trained.

    In later rounds a phase without problems is skipped: hours of work lie before it.
    """
    for phase in arm.phases:
        names = set_names(phase)
        size = sum(info["sets"].get(name, 0) for name in names)
        if size == 0:
            filled = ", ".join(f"{name} ({count})" for name, count in info["sets"].items())
            wanted = " or ".join(map(repr, names))
            raise DereasonError(
                f"arm {arm.name}: no problem was routed to the set {wanted} (sets: {filled})",
                "use the quantile policy, or another threshold",
            )
        if isinstance(phase, RL):
            check_set_size(size, phase)


def _manifest(recipe: Recipe, graph: Graph, run_dir: Path, device: str) -> None:
    """``manifest.json``: versions, seeds and hashes; no secrets, no user names."""
    value = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe_hash": digest(recipe.model_dump(mode="json")),
        "seeds": recipe.seeds,
        "date": recipe.prompt.date,
        "max_positions": {m.name: m.max_positions for m in (recipe.model, *recipe.models()) if m.max_positions},
        "environment": environment(device),
        "commits": {str(r): commit for s in graph.steps() for r in s.repositories if (commit := r.commit())},
        "steps": {s.folder: {"label": s.label, "inputs": [i.folder for i in s.inputs.values()]} for s in graph.steps()},
    }
    path = run_dir / "manifest.json"
    earlier: list[Info] = read_json(path)["runs"] if path.is_file() else []
    write_json(path, {"schema_version": 1, "runs": [*earlier, value]})


def _peak_memory(run_dir: Path) -> int:
    """The largest peak of all runs of this directory: a run that finds all steps cached needs little."""
    path = run_dir / "summary.json"
    before = 0
    if path.is_file():
        with contextlib.suppress(DereasonError):  # unreadable: it is about to be written again
            before = int(read_json(path).get("peak_memory_bytes", 0))
    return max(before, peak_bytes())
