"""Learning curves: small multiples for each phase, a line per seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dereason.report import style
from dereason.report.data import Curve, Run
from dereason.report.style import Figure
from dereason.report.text import plain

_COLS = 3
_SMOOTH_ABOVE = 80
"""Longer logs are shown raw and faint under a centred moving average over a twentieth of their steps."""

# What each kind of phase shows: the logged key, the panel's title, and whether it is a share, shown in percent.
_COST: list[tuple[str, str, bool]] = [
    ("grad_norm", "gradient norm", False),
    ("tokens_per_second", "tokens per second", False),
    ("memory_gib", "peak memory of a step, GiB", False),
]
_READINGS: list[tuple[str, str, bool]] = [
    ("probe/diversity", "diversity of correct responses, probe", False),
    ("probe/pass_at_1", "pass@1, probe", True),
    ("probe/pass_at_k", "pass@k, probe", True),
    ("probe/entropy", "entropy, probe, nats per token", False),
    ("rollouts/diversity", "diversity of correct rollouts", False),
    ("rollouts/pass_at_k", "pass@k, rollouts", True),
]
"""Of the early warning."""
_RULES: list[tuple[str, str, bool]] = [
    ("how/tag", "answers in a tag", True),
    ("how/boxed", "answers in a box", True),
    ("how/final_answer", "answers stated as the final one", True),
    ("how/hash", "answers behind ####", True),
    ("how/letter", "concluding letters", True),
    ("how/number", "last numbers, unmarked", True),
    ("how/alone", "answers standing alone, unmarked", True),
    ("how/response", "read whole by a check", True),
    ("how/none", "no answer", True),
]
"""Shares of the rollouts by the rule that found their answer."""
_PANELS: dict[str, list[tuple[str, str, bool]]] = {
    "sft": [
        ("loss", "loss, nats per token", False),
        ("token_accuracy", "token accuracy", True),
        ("entropy", "entropy, nats per token", False),
        *_COST,
    ],
    "rl": [
        ("reward", "mean reward", False),
        ("mixed_groups", "mixed groups", True),
        ("signal_groups", "groups with a gradient", True),
        ("lenient", "right by any answer (lenient)", True),
        ("strict", "right by a marked answer (strict)", True),
        ("gap", "lenient less strict", True),
        ("unmarked", "answers without a mark", True),
        *_RULES,
        ("several_answers", "several different marked answers", True),
        ("at_limit", "responses at the length limit", True),
        ("correct", "correct responses", True),
        ("wrong", "wrong responses", True),
        ("unparsable", "unparsable responses", True),
        ("truncated", "truncated responses", True),
        ("completion_length", "response length, tokens", False),
        ("entropy", "entropy, nats per token", False),
        ("clip_share", "clipped tokens", True),
        ("kl", "KL to the start, nats per token", False),
        *_READINGS,
        *_COST,
        ("error", "responses that the verifier failed on", True),
        ("judge/undecided", "responses that the judge model left undecided", True),
        ("dropped_groups", "groups dropped for their flat reward", True),
        ("unfilled_groups", "flat groups after the last draw", True),
        ("resting_problems", "problems at rest", True),
        ("sampler_gap", "log-probability gap to the sampler", False),
    ],
}
_PANELS["joint"] = [
    ("demonstration_nll", "nll of demonstrations, nats per token", False),
    ("demonstrations", "demonstrations in the step", False),
    ("gain", "cooperative gain (BRIDGE)", False),
    ("lambda", "lambda (BRIDGE)", False),
    ("gal", "pairwise loss (DYPO)", False),
    *_PANELS["rl"],
]
_READ = {key for key, _, _ in _READINGS}
_ABOUT_READINGS = (
    "Early warning: diversity is one minus the mean similarity (chrF) of two correct responses to a problem. The probe "
    "asks the same problems at each reading; rollouts are those since the reading before. Readings are not smoothed."
)
_RARE = {"error", "kl", "clip_share", "unmarked", "several_answers", "at_limit", *(key for key, _, _ in _RULES)}
"""Panels that are left out where they would show a line at zero."""
_ASKED = {"sft": ["loss"], "rl": ["reward", "mixed_groups", "completion_length", "entropy"], "joint": ["reward"]}


@dataclass(frozen=True)
class PhaseCurves:
    """One phase of one arm: the figure, or None with the reason in ``remarks``."""

    arm: str
    phase: int
    kind: str
    seeds: list[int]
    window: int
    figure: Figure | None
    remarks: list[str]


def phases(run: Run) -> list[PhaseCurves]:
    """Every phase of every arm in order, with a figure where something was logged."""
    limits = _limits(run)
    out = []
    for arm in run.arms:
        for phase in arm["phases"]:
            found = [c for c in run.curves if (c.arm, c.phase) == (arm["name"], phase["index"])]
            found.sort(key=lambda curve: curve.seed)
            out.append(_phase(arm["name"], phase["index"], phase["kind"], found, limits))
    return out


def _phase(
    arm: str, index: int, kind: str, found: list[Curve], limits: dict[tuple[str, str], tuple[float, float]]
) -> PhaseCurves:
    remarks = [f"Seed {c.seed}: {c.missing}." for c in found if c.missing]
    if not found:
        remarks.append("No training log is listed for this phase.")
    logged = [c for c in found if c.rows]
    wanted = _PANELS[kind]
    panels = [p for p in wanted if any(any(v) if p[0] in _RARE else v for c in logged for v in [series(c, p[0])[1]])]
    absent = [key for key in _ASKED.get(kind, []) if logged and key not in {p[0] for p in panels}]
    if absent:
        remarks.append(f"The log has no {', '.join(absent)}.")
    if any(curve.readings for curve in logged):
        remarks.append(_ABOUT_READINGS)
    window = max([1, *(_window(c) for c in logged)])
    seeds = [c.seed for c in logged]
    if not panels:
        return PhaseCurves(arm, index, kind, seeds, 1, None, remarks)
    rows = -(-len(panels) // _COLS)
    plot = rows * 150 + (rows - 1) * 70
    cells = style.grid(rows, _COLS, 0.075, 70 / plot)
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes = []
    for at, (key, title, share) in enumerate(panels):
        tag = style.suffix(at)
        x_range, y_range = cells[at]
        for turn, curve in enumerate(logged):
            data += _lines(curve, key, tag, turn, at == 0 and len(logged) > 1)
        low, high = limits[kind, key]
        axes[f"xaxis{tag}"] = style.axis(
            "optimiser step" if at >= len(panels) - _COLS else "",
            domain=x_range,
            anchor=f"y{tag}",
            nticks=6,
            showgrid=False,
            ticks="outside",
            tickcolor=style.FAINT,
        )
        axes[f"yaxis{tag}"] = style.axis(
            domain=y_range,
            anchor=f"x{tag}",
            nticks=5,
            range=_range(low, high, share),
            tickformat=".0%" if share else "",
        )
        notes.append(
            style.note(
                plain(title),
                x_range[0],
                y_range[1],
                xref="paper",
                yref="paper",
                xanchor="left",
                yanchor="bottom",
                yshift=4,
                font={"size": 12.5, "color": style.MUTED},
            )
        )
    many = len(logged) > 1
    margin = {"l": 58, "r": 14, "t": 56 if many else 30, "b": 50}
    figure = {
        "data": data,
        "layout": style.layout(
            plot + margin["t"] + margin["b"],
            margin=margin,
            annotations=notes,
            showlegend=many,
            legend={"orientation": "h", "x": 0, "y": 1 + 24 / plot, "yanchor": "bottom", "itemclick": False},
            **axes,
        ),
    }
    return PhaseCurves(arm, index, kind, seeds, window, figure, remarks)


def series(curve: Curve, key: str) -> tuple[list[int], list[float]]:
    """The steps at which a key was logged or read, and its finite values."""
    steps, values = [], []
    for row in (*curve.rows, *curve.readings):
        found = row.get(key)
        if isinstance(found, int | float) and math.isfinite(found):
            steps.append(int(row["step"]))
            values.append(float(found))
    return steps, values


def moving_average(values: list[float], window: int) -> list[float]:
    """The mean of the ``window`` values around each; at the ends, of those that there are."""
    half = window // 2
    out = []
    for i in range(len(values)):
        part = values[max(0, i - half) : i + half + 1]
        out.append(sum(part) / len(part))
    return out


def _window(curve: Curve) -> int:
    return len(curve.rows) // 20 // 2 * 2 + 1 if len(curve.rows) > _SMOOTH_ABOVE else 1


def _lines(curve: Curve, key: str, tag: str, turn: int, legend: bool) -> list[dict[str, Any]]:
    steps, values = series(curve, key)
    colour, dash = style.SEED_LINES[turn % len(style.SEED_LINES)]
    window = 1 if key in _READ else _window(curve)
    common = {
        "type": "scatter",
        "mode": "lines" if len(steps) > 1 else "markers",
        "name": f"seed {curve.seed}",
        "legendgroup": f"seed {curve.seed}",
        "x": steps,
        "xaxis": f"x{tag}",
        "yaxis": f"y{tag}",
    }
    main = {
        **common,
        "y": moving_average(values, window),
        "line": {"color": colour, "width": 1.8, "dash": dash},
        "showlegend": legend,
        "hovertemplate": f"seed {curve.seed}, step %{{x}}: %{{y:.4g}}<extra></extra>",
    }
    if window == 1:
        return [main]
    raw = {
        **common,
        "y": values,
        "line": {"color": colour, "width": 0.8},
        "opacity": 0.3,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    return [raw, main]


def _limits(run: Run) -> dict[tuple[str, str], tuple[float, float]]:
    """One y range for each kind and key over all arms and seeds, so that panels can be compared."""
    kinds = {(arm["name"], phase["index"]): phase["kind"] for arm in run.arms for phase in arm["phases"]}
    limits: dict[tuple[str, str], tuple[float, float]] = {}
    for curve in run.curves:
        kind = kinds.get((curve.arm, curve.phase), curve.kind)
        for key, _, _ in _PANELS[kind]:
            _, values = series(curve, key)
            if values:
                low, high = limits.get((kind, key), (values[0], values[0]))
                limits[kind, key] = min(low, *values), max(high, *values)
    return limits


def _range(low: float, high: float, share: bool) -> list[float]:
    """An axis range with a margin, never so narrow that noise looks like a trend."""
    least = 0.1 if share else max(0.05 * abs(high), 1e-3)
    grow = max(0.0, least - (high - low)) / 2 + 0.07 * max(high - low, least)
    if share:  # no axis down to -5 %
        return [max(low - grow, -0.005), min(high + grow, 1.005)]
    return [low - grow, high + grow]
