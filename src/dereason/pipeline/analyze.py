"""``dereason analyze``: the analysis of samples in files, ours or anybody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from dereason.analysis.comparison import Comparison
from dereason.errors import DereasonError
from dereason.pipeline.actions import Context
from dereason.pipeline.jobs import AnalyzeJob
from dereason.pipeline.pool import pool_of
from dereason.pipeline.progress import Screen
from dereason.pipeline.reasoning import analysis_key, check_analysis, do_analyse
from dereason.pipeline.responses import given, judge, read_samples
from dereason.pipeline.single import run_single
from dereason.pipeline.store import Info

PHASES = ("sft", "rl", "joint")
_ROOMS = (
    "problems",
    "verify",
    "evaluation",
    "analysis",
    "pipeline/analyze.py",
    "pipeline/pool.py",
    "pipeline/reasoning.py",
    "pipeline/responses.py",
)


def analyze(
    samples: Sequence[str],
    job: AnalyzeJob,
    out: Path,
    *,
    problems: Path | None = None,
    screen: Screen | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Info:
    """Analyse samples of one model or several on the same problems: ``findings.json``, its tables, ``analysis.html``.

    Args:
        samples: files as ``PATH`` or ``NAME=PATH``.
        job: settings.
        out: output folder.
        problems: problems that the samples answer, with their answers: for the verdicts that are missing, and for the
            questions that the page shows.
        screen: where progress is shown; None shows none.
        overwrite: replace an output that came from other settings or files.
        restart: discard what an unfinished call left.

    Returns:
        ``step.json``; its ``info`` holds the short of the findings.

    Raises:
        DereasonError: a row cannot be used, the models share no problem or have one response only, ``job`` names a
            model that there is not, or a library or embedding is missing.
    """
    if not samples:
        raise DereasonError("there are no samples to analyse", "name a file of samples")
    check_analysis(job.analysis)
    files = [given(text) for text in samples]

    def action(work: Path, ctx: Context) -> Info:
        pool = None if problems is None else pool_of(problems, job.problems, ctx)
        ids = None if pool is None else set(pool["id"])
        found = read_samples(files, pool=job.pool, problems=ids, fields=job.samples)
        found = in_order(found, job.base)
        comparisons = comparisons_of(list(found), job.compare)
        missing = sum(table["verdict"].null_count() for table in found.values())
        if missing:
            assert pool is not None  # else the reader has refused the row
            ctx.label = "verdicts"
            found = judge(found, pool, ctx.verifier, ctx.progress())
            ctx.screen.end(ctx.label, f"{missing:,} responses judged")
            ctx.label = "analyze"
        return do_analyse(work, found, pool, comparisons, job.analysis, ctx) | {"judged": missing}

    paths = {f"samples {at}" + (f", {f.name}" if f.name else ""): f.path for at, f in enumerate(files, 1)}
    paths |= {"problems": problems} if problems else {}
    key = {"analysis": analysis_key(job.analysis)}
    return run_single(
        "analyze",
        job,
        paths,
        out,
        action,
        screen=screen,
        overwrite=overwrite,
        restart=restart,
        rooms=_ROOMS,
        instead=key,
    )


def comparisons_of(models: Sequence[str], asked: Sequence[str]) -> list[Comparison]:
    """What is compared: ``BEFORE:AFTER`` or ``BEFORE:AFTER:PHASE``; where nothing is asked, each model with the base.

    Args:
        models: their names, the base first; a name may hold colons.
        asked: as a user writes them.

    Raises:
        DereasonError: a text that is none, or names no model.
    """
    if not asked:
        return [Comparison(models[0], name) for name in models[1:]]
    return [_comparison(models, text) for text in asked]


def _comparison(models: Sequence[str], text: str) -> Comparison:
    for phase in (None, *PHASES):
        names = text if phase is None else text.removesuffix(f":{phase}")
        if phase is not None and names == text:
            continue
        for before in models:
            after = names.removeprefix(f"{before}:")
            if after != names and after in models and after != before:
                return Comparison(before, after, phase)
    raise DereasonError(
        f"--compare {text}: not BEFORE:AFTER or BEFORE:AFTER:PHASE of two of the models",
        f"models are {', '.join(models)}; phases {', '.join(PHASES)}",
    )


def in_order(samples: Mapping[str, pl.DataFrame], base: str | None) -> dict[str, pl.DataFrame]:
    """The models with the base first, else as they are.

    Raises:
        DereasonError: the base is none of them.
    """
    if base is None:
        return dict(samples)
    if base not in samples:
        raise DereasonError(f"--base {base}: no sample is of that model", f"models are {', '.join(samples)}")
    return {base: samples[base]} | {name: table for name, table in samples.items() if name != base}
