"""The analysis as a whole: samples of several models on the same problems in, findings out.

folder/findings.json           every number, documented in docs/reference/findings.md
folder/trajectories.parquet    problem_id, model, index, side, cluster: which responses are one trajectory
folder/measures.parquet        problem_id, model, measure, value: what the intervals are made of
folder/parts/                  one problem each: a second call goes on where the first was interrupted
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dereason.analysis import aggregate
from dereason.analysis.comparison import Comparison, Info, Progress
from dereason.analysis.parts import Responses, Scale, Work, work_on
from dereason.analysis.settings import Analysis, Steps
from dereason.analysis.stepping import common_nodes, embed
from dereason.errors import DereasonError
from dereason.problems.schema import Verdict, write_table

if TYPE_CHECKING:
    from dereason.analysis.embeddings import Embedder

SCHEMA_VERSION = 1
_LEAST_OF_SIDE = 4


@dataclass(frozen=True)
class Gathered:
    """The responses that are compared.

    Attributes:
        problems: ids, in the order of the first model's samples.
        responses: model -> problem -> responses with a verdict.
        scale: what all are compared at.
        warnings: what was left out, in words.
    """

    problems: list[str]
    responses: dict[str, dict[str, Responses]]
    scale: Scale
    warnings: list[str]


def analyse(
    samples: Mapping[str, pl.DataFrame],
    problems: pl.DataFrame | None,
    comparisons: Sequence[Comparison],
    settings: Analysis,
    work: Path,
    progress: Progress,
) -> Info:
    """Analyse samples and write ``work/findings.json`` and its tables.

    Args:
        samples: model -> SAMPLE table, the base first; one model alone is described and compared with nothing.
        problems: PROBLEM table for the questions that the report shows, or None.
        comparisons: what is judged; both names of each are in ``samples``.
        settings: of the analysis.
        work: an existing folder.
        progress: told of finished problems.

    Returns:
        The findings, as written.

    Raises:
        DereasonError: no problem has two responses with a verdict of every model, or a comparison names no model.
    """
    for pair in comparisons:
        for name in (pair.before, pair.after):
            if name not in samples:
                raise DereasonError(
                    f"the comparison {pair.before}:{pair.after} names {name!r}, which has no samples",
                    f"name one of {', '.join(samples)}",
                )
    gathered = gather(samples, settings)
    parts, provenance = _parts(gathered, settings, work / "parts", progress)
    findings = {
        "schema_version": SCHEMA_VERSION,
        "settings": settings.model_dump(mode="json", exclude={"workers"}),
        "provenance": provenance,
        "level": settings.level,
        "responses": gathered.scale.m,
        "side_responses": gathered.scale.c,
        "warnings": gathered.warnings,
        **aggregate.findings(
            {name: aggregate.count_verdicts(table) for name, table in samples.items()},
            gathered.scale,
            gathered.problems,
            parts,
            _questions(problems),
            comparisons,
            settings,
        ),
    }
    write_table(_labels(gathered.problems, parts), work / "trajectories.parquet")
    write_table(aggregate.measures(gathered.problems, parts), work / "measures.parquet")
    part = work / "findings.json.part"
    part.write_text(json.dumps(findings, ensure_ascii=False, allow_nan=False), encoding="utf-8", errors="replace")
    part.replace(work / "findings.json")
    return findings


def gather(samples: Mapping[str, pl.DataFrame], settings: Analysis) -> Gathered:
    """The responses that can be compared: on problems that every model has answered often enough.

    Raises:
        DereasonError: there are none.
    """
    if not samples:
        raise DereasonError("there are no samples to analyse", "name a file of samples")
    found: dict[str, dict[str, Responses]] = {}
    for name, table in samples.items():
        judged = table.filter(pl.col("verdict") != Verdict.ERROR.value).sort("problem_id", "index", maintain_order=True)
        found[name] = {
            str(key[0]): Responses(
                tuple(rows["response"]),
                tuple(rows["verdict"] == Verdict.CORRECT.value),
                tuple(rows["index"]),
            )
            for key, rows in judged.group_by("problem_id", maintain_order=True)
        }
    least = settings.responses or 2
    every = list(dict.fromkeys(p for table in samples.values() for p in table["problem_id"]))
    shared = [p for p in every if all(p in by and len(by[p].texts) >= least for by in found.values())]
    if not shared:
        raise DereasonError(
            f"none of {len(every)} problems has {least} responses with a verdict from each of {', '.join(samples)}",
            "give samples of the same problems, several for each"
            if len(samples) > 1
            else "give several responses for each problem; with one per model, pool the models (--pool)",
        )
    counts = {(name, p): len(by[p].texts) for name, by in found.items() for p in shared}
    name, problem = fewest = min(counts, key=lambda at: counts[at])
    m = settings.responses or counts[fewest]
    warnings = []
    usual = int(np.median(list(counts.values())))
    if settings.responses is None and 2 * m < usual:
        warnings.append(
            f"everything is compared at {m} responses, for {name} has no more to {problem}; most have {usual}: with "
            f"analysis.responses={usual} such problems are left out instead"
        )
    if left := len(every) - len(shared):
        warnings.append(
            f"{left} of {len(every)} problems left out: not every model has {least} judged responses to them"
        )
    of_side = settings.side_responses or max(_LEAST_OF_SIDE, m // 8)
    return Gathered(shared, found, Scale(m, min(m, of_side)), warnings)


def _parts(gathered: Gathered, settings: Analysis, folder: Path, progress: Progress) -> tuple[list[Info], Info]:
    """What is found on each problem, from disk where it is there; and what it was made with."""
    from dereason.analysis.embeddings import load_embedder

    folder.mkdir(exist_ok=True)
    jobs = [
        Work(p, {name: by[p] for name, by in gathered.responses.items()}, gathered.scale, settings)
        for p in gathered.problems
    ]
    embedder = None if settings.steps is None else load_embedder(settings.steps.embedding)
    provenance: Info = {"embedding": embedder and embedder.name}
    digests = [_digest([provenance, *_about(job)]) for job in jobs]
    if settings.steps is not None and settings.steps.scope == "all":
        digests = [_digest([own, digests]) for own in digests]  # the nodes come from all problems
    paths = [folder / f"{digest}.json" for digest in digests]
    missing = [at for at, path in enumerate(paths) if not path.is_file()]
    if settings.steps is not None and embedder is not None and missing:
        jobs = _stepped(jobs, missing, settings.steps, embedder, folder, progress)
    words = "problems analysed"
    done = len(jobs) - len(missing)
    progress(done, len(jobs), words)
    for at, result in zip(missing, _spread([jobs[at] for at in missing], settings.workers), strict=True):
        part = paths[at].with_suffix(".part")
        part.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8", errors="replace")
        part.replace(paths[at])
        done += 1
        progress(done, len(jobs), words)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths], provenance


def _stepped(
    jobs: Sequence[Work],
    missing: Sequence[int],
    settings: Steps,
    embedder: Embedder,
    folder: Path,
    progress: Progress,
) -> list[Work]:
    """The jobs with what they need to number their steps: all of them where problems share nodes, else the missing."""
    wanted = range(len(jobs)) if settings.scope == "all" else missing
    sentences = {jobs[at].problem: jobs[at].sentences() for at in wanted}
    vectors = embed(sentences, embedder, folder, progress)
    if settings.scope == "problem":
        return [replace(job, vectors=vectors.get(job.problem)) for job in jobs]
    node_of, shared = common_nodes(sentences, vectors, settings, jobs[0].settings.seed)
    # Each with its own sentences only: a job is sent to another process.
    own = [{s: node_of[s] for steps in sentences[job.problem].values() for r in steps for s in r} for job in jobs]
    return [replace(job, nodes=(mine, shared)) for job, mine in zip(jobs, own, strict=True)]


def _spread(jobs: Sequence[Work], workers: int | None) -> Iterator[Info]:
    """The findings of each job, in order, as they come."""
    from joblib import Parallel, cpu_count, delayed

    processes = min(workers or cpu_count(), len(jobs))
    if processes <= 1:
        yield from map(work_on, jobs)
        return
    # Largest last would leave cores idle at the end; problems are alike in size, so the order is kept.
    yield from Parallel(n_jobs=processes, return_as="generator")(delayed(work_on)(job) for job in jobs)


def _about(job: Work) -> list[Any]:
    """What decides a part: the responses, what they are compared at, and the settings of what is computed."""
    settings = job.settings.model_dump(mode="json", exclude={"workers", "resamples", "level"})
    responses = {name: [r.texts, r.correct, r.index] for name, r in job.responses.items()}
    return [job.problem, settings, job.scale.m, job.scale.c, responses]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _questions(problems: pl.DataFrame | None) -> dict[str, str]:
    return {} if problems is None else dict(problems.select("id", "question").iter_rows())


def _labels(problems: Sequence[str], parts: Sequence[Info]) -> pl.DataFrame:
    rows = [
        (id, model, index, side, label)
        for id, part in zip(problems, parts, strict=True)
        for model, found in part["models"].items()
        for side, group in found["trajectories"].items()
        for index, label in zip(group["index"], group["labels"], strict=True)
    ]
    names = {"problem_id": pl.String, "model": pl.String, "index": pl.Int32, "side": pl.String, "cluster": pl.Int32}
    return pl.DataFrame(rows, schema=names, orient="row")
