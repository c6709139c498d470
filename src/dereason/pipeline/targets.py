"""The step that builds what an SFT phase imitates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings
from dereason.pipeline.actions import Context, select_set
from dereason.pipeline.store import SCRATCH, Info
from dereason.problems.schema import read_table, write_table
from dereason.supervision.build import build_targets
from dereason.supervision.desk import Desk
from dereason.supervision.settings import CritiqueTargets, Targets, asked_models
from dereason.verify.confusion import confusion


def do_targets(
    work: Path,
    problems: pl.DataFrame,
    routes: pl.DataFrame | None,
    sets: Sequence[str],
    entries: Sequence[Targets],
    *,
    student: tuple[ModelSettings, str | None],
    attempts: Path | None,
    rollouts: Path | None,
    ctx: Context,
    may_be_empty: bool = False,
) -> Info:
    """Write targets, candidates, coverage and samples (all that was drawn), each as ``.parquet``.

    Args:
        work: the step's folder.
        problems: PROBLEM table, the whole pool.
        routes: ROUTE table; None takes every problem for every entry.
        sets: the phase's routed sets.
        entries: what is imitated.
        student: the model that the phase will train, and its name where a phase made it.
        attempts: the profile's responses of that model, a SAMPLE table; None where there are none.
        rollouts: the rollouts of the RL phase before, a SAMPLE table; None where there is none.
        ctx: what steps share.
        may_be_empty: whether no target at all is allowed (in later rounds).

    Raises:
        DereasonError: no target came out.
    """

    def pool(entry: Targets) -> pl.DataFrame:
        named = entry.sets()
        if routes is None or (named is None and isinstance(entry, CritiqueTargets)):
            return problems  # a failure is a failure, whichever set it is in by now
        return select_set(problems, routes, named or sets, may_be_empty=True)

    pools = [(entry, pool(entry)) for entry in entries]
    if routes is not None and not may_be_empty and all(members.is_empty() for _, members in pools):
        select_set(problems, routes, sets)  # says which sets there are
    desk = Desk(
        prompt=ctx.prompt,
        verifier=ctx.verifier,
        store=work / "asked",
        load=ctx.model,
        student=student,
        progress=lambda words: ctx.screen.step(f"{ctx.label}: {words}"),
        say=ctx.screen.say,
    )
    built = build_targets(
        desk,
        pools,
        attempts=None if attempts is None else read_table("sample", attempts),
        rollouts=None if rollouts is None else read_table("sample", rollouts),
    )
    write_table(built.candidates, work / "candidates.parquet")
    write_table(built.coverage, work / "coverage.parquet")
    write_table(built.samples, work / "samples.parquet")
    targets = built.targets
    if targets.is_empty() and not may_be_empty:
        reasons = built.coverage["reason"].drop_nulls().value_counts(sort=True).rows()
        why = f" ({reasons[0][1]} of {built.coverage.height}: {reasons[0][0]})" if reasons else ""
        raise DereasonError(f"no problem got a target{why}", _mend(entries))
    write_table(targets, work / "targets.parquet")
    notes = dict(targets.group_by("note").len().sort("len", "note", descending=[True, False]).iter_rows())
    asked = built.coverage.group_by("problem_id").agg(pl.col("targets").sum())
    without = int((asked["targets"] == 0).sum())
    words = f"{targets.height} targets for {asked.height - without} of {asked.height} problems"
    warnings = [
        f"no problem was routed to {' or '.join(entry.sets() or sets)}: the targets of style {entry.style} are none"
        for entry, members in pools
        if members.is_empty()
    ]
    if without * 2 > asked.height:
        warnings.append(f"{without} of {asked.height} problems got no target: coverage.parquet and the report say why")
    answers = built.samples.filter(pl.col("purpose") != "diagnosis")  # a diagnosis answers no problem
    return {
        SCRATCH: ["asked"],
        "n": targets.height,
        "built": built.candidates.filter(~pl.col("raw")).height,
        "accepted": int(targets["accepted"].sum()),
        "origins": dict(targets.group_by("origin").len().sort("origin").iter_rows()),
        "notes": dict(list(notes.items())[:10]),
        "sources": built.sources,
        "tokens_generated": int(built.samples["tokens"].sum()),
        "warnings": warnings,
        "words": words + (f" ({next(iter(notes))})" if len(notes) == 1 else ""),
    } | ({"confusion": confusion(answers)} if answers.height else {})


def _mend(entries: Sequence[Targets]) -> str:
    """What to do where no target came out."""
    styles = {entry.style for entry in entries}
    ways = ["targets.keep=all"] if styles & {"teacher", "solution", "steps", "answer"} else []
    ways += ["a larger targets.n"] if styles & {"teacher", "self", "bridge", "critique"} else []
    ways += ["another teacher or critic"] if styles & {"teacher", "bridge", "critique"} else []
    stored = any(model.backend == "api" for entry in entries for model in asked_models(entry))
    kept = "; what endpoints answered is kept and is not asked for again" if stored else ""
    return f"set {', or '.join([*ways, 'another targets.style'])}{kept}"
