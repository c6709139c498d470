"""Figures of difficulty: what the judge and the pass rate say, by set, and whether the two agree."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import polars as pl

from dereason.report import style
from dereason.report.data import Run
from dereason.report.style import Figure
from dereason.report.text import count, number, percent, plain

MAX_POINTS = 1500
"""More problems than this are thinned in the scatter plot, evenly along the order of problem ids."""
_MAX_VALUES = 16
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)


def set_names(run: Run) -> list[str]:
    """The sets of all arms and rounds: sft, rl, joint, the three tiers, other sets in order of appearance, drop."""
    seen = [name for arm in run.arms for sets in (arm, *arm["rounds"]) for name in sets["sets"]]
    seen += [name for table in run.routes.values() for name in table["set"].unique(maintain_order=True).to_list()]
    known = ["sft", "rl", "joint", "simple", "medium", "hard"]
    others = [name for name in dict.fromkeys(seen) if name not in (*known, "drop")]
    return [name for name in (*known, *others, "drop") if name in seen]


def histograms(run: Run) -> Figure | None:
    """Judge expectation and pass rate of every arm's sets, stacked; None where nothing was measured."""
    if run.profiles is None:
        return None
    measures = [name for name in ("judge_expectation", "pass_rate") if _values(run.profiles, name)]
    arms = [arm["name"] for arm in run.arms if arm["name"] in run.routes]
    if not measures or not arms:
        return None
    colours = style.set_colours(set_names(run))
    plot = len(arms) * 150 + (len(arms) - 1) * 64
    cells = style.grid(len(arms), len(measures), 0.08, 64 / plot)
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes: list[dict[str, Any]] = []
    named: set[str] = set()
    for row, arm in enumerate(arms):
        table = run.routes[arm].join(run.profiles, on="problem_id", how="left", maintain_order="left")
        for col, measure in enumerate(measures):
            index = row * len(measures) + col
            tag = style.suffix(index)
            centres, width, look = _bins(run.profiles, measure)
            for name in set_names(run):
                values = _values(table.filter(pl.col("set") == name), measure)
                if not values:
                    continue
                counts = Counter(_bin(value, centres, width) for value in values)
                heights = [counts.get(at, 0) for at in range(len(centres))]
                data.append(
                    {
                        "type": "bar",
                        "name": plain(name),
                        "legendgroup": plain(name),
                        "showlegend": name not in named,
                        "x": centres,
                        "y": heights,
                        "width": width * (0.62 if look == "values" else 0.94),
                        "xaxis": f"x{tag}",
                        "yaxis": f"y{tag}",
                        "marker": {"color": colours[name]},
                        "hovertext": [
                            plain(f"{name}: {count(h)} problems near {_value(measure, c)}")
                            for c, h in zip(centres, heights, strict=True)
                        ],
                        "hoverinfo": "text",
                    }
                )
                named.add(name)
            x_range, y_range = cells[index]
            last = row == len(arms) - 1
            title = (
                "judge expectation (1 = recall, 5 = long reasoning)" if measure == "judge_expectation" else "pass rate"
            )
            more: dict[str, Any] = {}
            if measure == "pass_rate":
                edge = 0.6 * width if look == "values" else 0.0
                more = {"tickformat": ".0%", "range": [-edge, 1 + edge], **_fractions(centres, look)}
            else:
                more = {"range": [centres[0] - width, centres[-1] + width]}
            axes[f"xaxis{tag}"] = style.axis(
                title if last else "",
                domain=x_range,
                anchor=f"y{tag}",
                showgrid=False,
                ticks="outside",
                tickcolor=style.FAINT,
                **more,
            )
            axes[f"yaxis{tag}"] = style.axis(
                "problems" if col == 0 else "", domain=y_range, anchor=f"x{tag}", rangemode="tozero", nticks=5
            )
            if col == 0:
                notes.append(
                    style.note(
                        f"<b>{plain(arm, 60)}</b>",
                        x_range[0],
                        y_range[1],
                        xref="paper",
                        yref="paper",
                        xanchor="left",
                        yanchor="bottom",
                        yshift=4,
                    )
                )
    margin = {"l": 66, "r": 14, "t": 62, "b": 52}
    return {
        "data": data,
        "layout": style.layout(
            plot + margin["t"] + margin["b"],
            margin=margin,
            barmode="stack",
            showlegend=True,
            legend={
                "orientation": "h",
                "x": 0,
                "y": 1 + 28 / plot,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            annotations=notes,
            **axes,
        ),
    }


def agreement(run: Run) -> tuple[Figure, int, int] | None:
    """Judge expectation against pass rate, one point a problem.

    Returns:
        The figure, the number of problems with both measures, and the number drawn; None if there are none.
    """
    if run.profiles is None:
        return None
    both = run.profiles.drop_nulls(["judge_expectation", "pass_rate"]).sort("problem_id")
    if both.is_empty():
        return None
    stride = -(-both.height // MAX_POINTS)
    drawn = both.gather_every(stride)
    values = sorted(set(both["pass_rate"].to_list()))
    spacing = min((b - a for a, b in pairwise(values)), default=0.25)
    centres, _, look = _bins(run.profiles, "pass_rate")
    spread = 0.55 * min(spacing, 0.25)
    # Steps of the golden ratio fill an interval evenly and are the same in every run.
    jitter = [((0.618034 * i) % 1 - 0.5) * spread for i in range(drawn.height)]
    judge, rate = drawn["judge_expectation"].to_list(), drawn["pass_rate"].to_list()
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "one problem",
            "x": judge,
            "y": [a + b for a, b in zip(rate, jitter, strict=True)],
            "marker": {"size": 5, "color": style.ACCENT, "opacity": 0.32},
            "hovertext": [
                plain(f"{problem}: judge {number(x)}, pass rate {c} of {n}")
                for problem, x, c, n in drawn.select("problem_id", "judge_expectation", "correct", "n").iter_rows()
            ],
            "hoverinfo": "text",
        }
    ]
    if len(values) <= _MAX_VALUES:
        groups = (
            both.group_by("pass_rate")
            .agg(
                pl.col("judge_expectation").median().alias("mid"),
                pl.col("judge_expectation").quantile(0.25, "linear").alias("low"),
                pl.col("judge_expectation").quantile(0.75, "linear").alias("high"),
            )
            .sort("pass_rate")
            .to_dicts()
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "median and middle half at each pass rate",
                "x": [g["mid"] for g in groups],
                "y": [g["pass_rate"] for g in groups],
                "marker": {"size": 9, "symbol": "diamond", "color": style.INK},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [g["high"] - g["mid"] for g in groups],
                    "arrayminus": [g["mid"] - g["low"] for g in groups],
                    "color": style.INK,
                    "thickness": 2.2,
                    "width": 0,
                },
                "hoverinfo": "skip",
            }
        )
    margin = {"l": 66, "r": 14, "t": 34, "b": 52}
    figure = {
        "data": data,
        "layout": style.layout(
            340,
            margin=margin,
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "itemclick": False},
            xaxis=style.axis("judge expectation (1 = recall, 5 = long reasoning)"),
            yaxis=style.axis(
                "pass rate",
                tickformat=".0%",
                range=[-0.5 * spread - 0.05, 1.05 + 0.5 * spread],
                **_fractions(centres, look),
            ),
        ),
    }
    return figure, both.height, drawn.height


def _values(table: pl.DataFrame, measure: str) -> list[float]:
    return [float(value) for value in table[measure].drop_nulls().drop_nans().to_list()]


def _bins(profiles: pl.DataFrame, measure: str) -> tuple[list[float], float, str]:
    """Bin centres, bin width, and ``values`` where every possible pass rate has its own bar."""
    if measure == "pass_rate":
        sizes = set(profiles.filter(pl.col("n") > 0)["n"].to_list())
        if len(sizes) == 1 and max(sizes) <= _MAX_VALUES:
            k = int(max(sizes))
            return [c / k for c in range(k + 1)], 1 / k, "values"
        return [0.05 + 0.1 * i for i in range(10)], 0.1, "bins"
    values = _values(profiles, measure)
    low, high = min(values), max(values)
    step = next((s for s in _STEPS if (high - low) / s <= 30), _STEPS[-1])
    first = int(low / step)
    return [step * (first + i + 0.5) for i in range(int(high / step) - first + 1)], step, "bins"


def _fractions(centres: list[float], look: str) -> dict[str, Any]:
    """Axis ticks 0/k, 1/k, ... k/k where the pass rate takes so few values; else nothing."""
    k = len(centres) - 1
    if look != "values" or k > 8:
        return {}
    return {"tickvals": centres, "ticktext": [f"{c}/{k}" for c in range(k + 1)]}


def _bin(value: float, centres: list[float], width: float) -> int:
    # The small number keeps c/k and multiples of the width in their own bin whatever their rounding.
    at = math.floor((value - centres[0]) / width + 0.5 + 1e-9)
    return max(0, min(at, len(centres) - 1))


def _value(measure: str, value: float) -> str:
    return percent(value, 0) if measure == "pass_rate" else number(value)
