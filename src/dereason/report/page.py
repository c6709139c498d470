"""The page: figures and tables put into one HTML file that needs nothing else.

Everything that came from data or models is escaped: Jinja's autoescape for HTML, ``text.plain`` for plotly
(which reads a subset of HTML), ``\\u003c`` for JSON inside a script element. A content security policy allows
the two scripts of the page by their hashes and no network, so a slip could neither run nor fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dereason.report import (
    curves,
    data,
    difficulty,
    examples,
    findings,
    headline,
    likelihood,
    reasoning_section,
    results,
    rounds,
    style,
    supervision,
    text,
    traces,
)
from dereason.report import verdicts as verdict_tables
from dereason.report.data import VERDICTS, Run

if TYPE_CHECKING:
    import jinja2

_DRAW = """\
document.querySelectorAll("script[data-figure]").forEach(function (source) {
  var figure = JSON.parse(source.textContent);
  var target = document.getElementById(source.getAttribute("data-figure"));
  // A window too narrow for the figure gets a narrower one, down to where its texts would run into each other.
  var narrowest = (figure.layout.meta || {}).narrowest || 900;
  figure.layout.width = Math.min(figure.layout.width, Math.max(target.parentNode.clientWidth, narrowest));
  target.style.setProperty("--drawn", figure.layout.width);
  var options = {displayModeBar: false, responsive: false, showTips: false, doubleClick: false};
  Plotly.newPlot(target, figure.data, figure.layout, options);
});
"""


def write(run_dir: Path) -> Path:
    """Write ``run_dir/report.html``; see :func:`dereason.report.write_report`."""
    return save(run_dir / "report.html", render(data.load(run_dir)))


def write_analysis(folder: Path) -> Path:
    """Write ``folder/analysis.html``; see :func:`dereason.report.write_analysis`."""
    section = reasoning_section.section(findings.load(folder / findings.FILE), findings.FILE)
    return save(folder / "analysis.html", _render("analysis.html.j2", reasoning=_drawn(section)))


def save(path: Path, page: str) -> Path:
    """Write a page by atomic rename."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as handle:
        # JSON can carry lone surrogates, which UTF-8 cannot.
        handle.write(page.encode("utf-8", errors="replace"))
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
    return path


def render(run: Run) -> str:
    """The whole page about a run as HTML."""
    summary = run.summary
    spread = difficulty.agreement(run)
    built = supervision.builds(run)
    compared = likelihood.before_after(run, built)
    rows = _result_rows(run)
    return _render(
        "template.html.j2",
        run=run,
        s=summary,
        sentences=headline.sentences(run),
        level=_level(summary),
        set_names=difficulty.set_names(run),
        set_colours=style.set_colours(difficulty.set_names(run)),
        figures_accuracy=[_json(figure) for figure in results.accuracy(run)],
        figures_differences=[_json(figure) for figure in results.differences(run)],
        figures_domains=[_json(figure) for figure in results.domains(run)],
        figure_histograms=_json(difficulty.histograms(run)),
        figure_agreement=_json(spread[0]) if spread else None,
        agreement_n=spread[1:] if spread else (0, 0),
        rows=rows,
        verdict_blocks=verdict_tables.blocks(run, rows),
        shared_base=results.shared_base(run) is not None,
        many_seeds=len({row["seed"] for row in summary["results"]}) > 1,
        comparisons=results.comparisons(run),
        arm_comparisons=results.arm_comparisons(run),
        domain_rows=_domain_rows(run),
        figures_rounds=[_json(figure) for figure in rounds.figures(run)],
        round_rows=rounds.rows(run) if rounds.moved(run) else [],
        builds=[_build(run, build) for build in built],
        figures_likelihood=[_json(figure) for figure in likelihood.strips(run, built)],
        figure_bridge=_json(compared) if compared else None,
        phases=[(phase, _json(phase.figure)) for phase in curves.phases(run)],
        problems=examples.problems(run),
        responses=examples.responses(run),
        reasoning=_drawn(reasoning_section.section(run.reasoning, run.reasoning_path)) if run.reasoning else None,
    )


def environment() -> jinja2.Environment:
    """Templates, and what every page has: words for numbers."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        text.percent,
        text.points,
        text.interval,
        text.points_interval,
        text.number,
        text.count,
        text.money,
        text.signed,
        text.duration,
        text.size,
        text.big,
        text.stage,
        text.moment,
        text.estimate,
        text.ratio,
        text.shorten,
        headline.answered,
    ):
        made.globals[function.__name__] = function
    made.globals["percent_level"] = text.level
    return made


def _render(template: str, **context: Any) -> str:
    """A page with figures from its template, with colours and the two scripts."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    # The HTML parser turns CR LF into LF before it hashes a script.
    library = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    pages = environment()
    pages.globals["perplexity"] = supervision.perplexity
    pages.globals["reading"] = lambda row: headline.verdict([row])
    return pages.get_template(template).render(
        verdicts=VERDICTS,
        verdict_colours=style.VERDICT_COLOURS,
        as_json=lambda value: json.dumps(value, ensure_ascii=False),
        library=Markup(library),
        draw=Markup(_DRAW),
        hashes=[_hash(library), _hash(_DRAW)],
        **context,
    )


def _drawn(section: dict[str, Any]) -> dict[str, Any]:
    """The section on reasoning with its figures as JSON."""
    return {key: _json(value) if key.startswith("figure_") else value for key, value in section.items()}


def _build(run: Run, build: supervision.Build) -> dict[str, Any]:
    """What the section on supervision shows of one targets step."""
    asked = supervision.asked(build)
    return {
        "title": build.title,
        "facts": build.facts,
        "paths": build.paths,
        "sources": supervision.imitated(build),
        "covered": supervision.covered(run, build),
        "uncovered": supervision.uncovered(run, build),
        "notes": supervision.top(build.facts["notes"]),
        "refused": supervision.refused(run, build),
        "bridges": supervision.bridges(build),
        "rewrites": traces.rewrites(run, build),
        "critiques": traces.critiques(run, build),
        "asked": asked,
        "spent": supervision.spent(asked),
    }


def _template(name: str) -> str:
    return resources.files("dereason.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _json(figure: style.Figure | None) -> Any:
    """A figure as JSON that is safe inside a script element, marked so that it is not escaped again."""
    if figure is None:
        return None
    from markupsafe import Markup

    dumped = json.dumps(_clean(figure), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        dumped = dumped.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(dumped)


def _clean(value: Any) -> Any:
    """The same structure with values that are not finite as null, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _level(summary: dict[str, Any]) -> str:
    """The confidence level of all intervals, or all levels where they differ."""
    rows = [*summary["results"], *summary["comparisons"], *summary["arm_comparisons"]]
    levels = sorted({row["level"] for row in rows})
    return ", ".join(text.level(value) for value in levels) or text.NONE


def _result_rows(run: Run) -> list[dict[str, Any]]:
    """Results in reading order (arm, stage, seed), each with its ``group`` and its ``seeds`` as text.

    A base evaluation that all arms and seeds share comes first and once.
    """
    out = []
    shared = results.shared_base(run)
    if shared is not None:
        seeds = sorted({row["seed"] for row in run.summary["results"]})
        whose = " and ".join(what for what, n in (("arms", len(run.arms)), ("seeds", len(seeds))) if n > 1)
        group = f"one evaluation of the base model, shared by all {whose}"
        out.append({**shared, "group": group, "seeds": str(seeds[0]) if len(seeds) == 1 else "all"})
    return out + [
        {**row, "group": row["arm"], "seeds": str(row["seed"])}
        for arm in run.arms
        for stage in run.stages(arm["name"])
        if shared is None or stage != "base"
        for seed in run.seeds(arm["name"])
        if (row := run.result(arm["name"], seed, stage)) is not None
    ]


def _domain_rows(run: Run) -> list[dict[str, Any]]:
    """For each arm and seed: its stages, and for each domain n and one value a stage (None where absent)."""
    out = []
    for arm in run.arms:
        stages = run.stages(arm["name"])
        for seed in run.seeds(arm["name"]):
            found = {stage: (run.result(arm["name"], seed, stage) or {}).get("by_domain", {}) for stage in stages}
            sizes: dict[str, int] = {}
            for table in found.values():
                for domain, value in table.items():
                    sizes[domain] = max(sizes.get(domain, 0), value["n_problems"])
            domains = [
                {"name": name, "n": sizes[name], "cells": [found[stage].get(name) for stage in stages]}
                for name in sorted(sizes, key=lambda name: (-sizes[name], name))
            ]
            out.append({"arm": arm["name"], "seed": seed, "stages": stages, "domains": domains})
    return out
