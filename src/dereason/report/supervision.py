"""What the SFT phases imitated: the facts of every targets step as rows of tables.

A step that several arms or phases share is shown once, under all their names. With several seeds a phase may have a
step for each; the facts and tables shown are those of the seed that the run lists first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from dereason.report.data import Built, Run, columns
from dereason.report.text import signed

_REASONS = 6
"""So many reasons are shown, the most frequent; what is left is added up."""
_IDS = 3
ORIGINS = ("human", "reference", "teacher", "self", "bridge", "diagnosis", "repair", "new_trace")
"""In reading order."""


@dataclass(frozen=True)
class Build:
    """One targets step.

    Attributes:
        title: the phases that trained on it, such as ``dereason: 1-sft``.
        short: the same with names of arms cut, for figures.
        paths: its tables, and the seed that they are from.
        facts: its entry in the summary.
        sets: the sets of the phase that is listed first.
        seeds: whether other seeds have steps of their own.
    """

    title: str
    short: str
    paths: Built
    facts: dict[str, Any]
    sets: list[str]
    seeds: bool


def builds(run: Run) -> list[Build]:
    """The targets steps in the order of arms and phases."""
    names: dict[str, dict[str, list[str]]] = {}
    found: dict[str, Build] = {}
    for arm in run.arms:
        for phase in arm["phases"]:
            listed = run.built.get((arm["name"], phase["index"]))
            if not phase["targets"] or not listed:
                continue
            first = listed[0]
            label = f"{phase['index']}-{phase['kind']}"
            names.setdefault(first.targets, {}).setdefault(label, []).append(arm["name"])
            several = len({paths.targets for paths in listed}) > 1
            found.setdefault(first.targets, Build("", "", first, phase["targets"], phase["sets"], several))
    out = []
    for path, build in found.items():
        seed = build.paths.seed if build.seeds else None
        out.append(replace(build, title=_title(names[path], seed), short=_title(names[path], seed, 32)))
    return out


def _title(phases: dict[str, list[str]], seed: int | None, limit: int = 0) -> str:
    """The phases by arm; with a limit names of arms are cut to so many characters, so that the phase stays legible."""
    parts = []
    for label, arms in phases.items():
        whose = ", ".join(arms)
        parts.append(f"{whose[: limit - 1]}…: {label}" if limit and len(whose) > limit else f"{whose}: {label}")
    title = "; ".join(parts)
    return title if seed is None else f"{title}, seed {seed}"


def _whose(build: Build, source: dict[str, Any]) -> str:
    """The sets that a source covers; critique without named sets takes failures wherever they are."""
    if source["sets"] is None and source["style"] == "critique":
        return "failed in RL"
    return ", ".join(build.sets if source["sets"] is None else source["sets"])


def order(origin: str) -> tuple[int, str]:
    """A sort key that puts origins in reading order, unknown ones last."""
    return (ORIGINS.index(origin) if origin in ORIGINS else len(ORIGINS), origin)


def perplexity(nll: float | None) -> float | None:
    """The exponential of a mean negative log-likelihood per token; None where that is None or has no finite one."""
    return None if nll is None or not nll < 700 else math.exp(nll)


def imitated(build: Build) -> list[dict[str, Any]]:
    """One entry for each source (an entry of ``targets`` in the recipe) with a row for each origin.

    A source that nothing came from has one row of its own numbers, whose origin is empty.
    """
    out = []
    for source in build.facts["sources"]:
        rows = [
            {"origin": origin, "perplexity": perplexity(found["nll"]), **found}
            for origin, found in sorted(source["by_origin"].items(), key=lambda item: order(item[0]))
        ]
        if not rows:
            same = {key: source[key] for key in ("candidates", "accepted", "targets")}
            rows = [{"origin": "", **same, "tokens": None, "nll": None, "perplexity": None}]
        out.append({**source, "whose": _whose(build, source), "rows": rows})
    return out


def covered(run: Run, build: Build) -> tuple[int, int]:
    """How many problems have at least one target from any source, and how many were asked for."""
    table = columns(run.folder, build.paths.coverage, ["problem_id", "targets"])
    totals = table.group_by("problem_id").agg(pl.col("targets").sum())
    return int((totals["targets"] > 0).sum()), totals.height


def uncovered(run: Run, build: Build) -> list[dict[str, Any]]:
    """For each source that left problems without a target: how many, and its reasons with counts.

    The first problems of a reason, in order of id, are named where no other source has the same style (the coverage
    table knows a source by its style).
    """
    table = columns(run.folder, build.paths.coverage, ["problem_id", "style", "targets", "reason"])
    table = table.filter(pl.col("targets") == 0).sort("problem_id")
    styles = [source["style"] for source in build.facts["sources"]]
    out = []
    for source in build.facts["sources"]:
        if not source["uncovered"]:
            continue
        mine = table.filter(pl.col("style") == source["style"]) if styles.count(source["style"]) == 1 else table.clear()
        reasons = []
        for why, n in top(source["uncovered"]):
            ids = mine.filter(pl.col("reason") == why)["problem_id"].to_list()
            reasons.append({"why": why, "n": n, "ids": ids[:_IDS], "more": max(0, len(ids) - _IDS)})
        missing = sum(source["uncovered"].values())
        out.append({**source, "whose": _whose(build, source), "missing": missing, "reasons": reasons})
    return out


def refused(run: Run, build: Build) -> list[tuple[str, int]]:
    """Why candidates that the verifier found correct were not accepted, with counts, the most frequent first."""
    table = columns(run.folder, build.paths.candidates, ["origin", "raw", "accepted", "verdict", "reason"])
    return top({f"{origin}: {why}": n for (origin, why), n in refusals(table).items()})


def refusals(candidates: pl.DataFrame) -> dict[tuple[str, str], int]:
    """By origin and cause: how many candidates, raw traces aside, are correct and were not accepted."""
    # "rewrite by M, refused (CAUSE)": the cause is what can be counted; any other reason up to its first colon.
    cause = pl.coalesce(
        pl.col("reason").str.extract(r"(?s), refused \((.*)\)"),
        pl.col("reason").str.extract(r", not verified \((\w+)\)"),
        pl.col("reason").str.extract(r"(?s)^(.*?)(?:[:;] |$)"),
        pl.lit("no reason given"),
    )
    left = candidates.filter(~pl.col("raw") & ~pl.col("accepted") & (pl.col("verdict") == "correct"))
    found = left.group_by("origin", cause.alias("cause")).len()
    return {(origin, why): n for origin, why, n in found.sort("origin", "cause").rows()}


def top(counts: dict[str, int], most: int = _REASONS) -> list[tuple[str, int]]:
    """The most frequent entries, the rest added up as ``others``."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept, rest = ordered[:most], ordered[most:]
    return [*kept, (f"{len(rest)} other reasons", sum(n for _, n in rest))] if len(rest) > 1 else ordered


def bridges(build: Build) -> list[dict[str, Any]]:
    """The sources that rewrote traces, each with its ``reading``: what the paired difference says, in words."""
    return [
        {**source, **source["bridge"], "whose": _whose(build, source), "reading": rewriting(source["bridge"])}
        for source in build.facts["sources"]
        if source["bridge"]
    ]


def rewriting(bridge: dict[str, Any]) -> str:
    """What the paired difference of likelihoods (rewrite minus raw trace) says, as a sentence."""
    gap, n = bridge["difference"], bridge["n"]
    if gap is None or gap["nll"] is None:
        return "No raw trace and rewrite of the same problem were both measured, so nothing can be said."
    size = f"{signed(gap['nll'], 3)} nats per token"
    if gap["low"] is None or gap["high"] is None:
        return f"Rewrite minus raw trace: {size}, n = {n} problems: too few for an interval."
    if gap["high"] < 0:
        said = "the chosen rewrites are likelier under the student than the traces that they came from"
    elif gap["low"] > 0:
        said = "the chosen rewrites are less likely under the student than the traces that they came from"
    else:
        said = "not distinguishable from zero"
    limits = f"[{signed(gap['low'], 3)}, {signed(gap['high'], 3)}]"
    return f"Rewrite minus raw trace, paired: {size} {limits} ({100 * gap['level']:g} %, n = {n} problems): {said}."


def asked(build: Build) -> list[dict[str, Any]]:
    """What every source asked of models, one row a call."""
    return [
        {"style": source["style"], "sets": source["sets"], **call}
        for source in build.facts["sources"]
        for call in source["asked"]
    ]


def spent(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum over rows of :func:`asked`; the price is null where no row has one, and of the known ones else."""
    keys = ("responses", "prompt_tokens", "tokens", "stored")
    prices = [row["price"] for row in rows if row["price"] is not None]
    return {key: sum(row[key] or 0 for row in rows) for key in keys} | {"price": sum(prices) if prices else None}
