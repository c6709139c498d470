"""How the sets and the pass rate move from round to round, as the model that profiles the pool learns."""

from __future__ import annotations

from typing import Any

from dereason.report import style
from dereason.report.data import Run
from dereason.report.difficulty import set_names
from dereason.report.rows import ROW, categories, headings, split, stack
from dereason.report.style import Figure
from dereason.report.text import count, percent, plain


def moved(run: Run) -> bool:
    """Whether any arm has more than one round; with one, the sets shown elsewhere say everything."""
    return any(row["round"] > 1 for arm in run.arms for row in arm["rounds"])


def rows(run: Run) -> list[dict[str, Any]]:
    """The rounds of every arm in order of round and seed, each with its ``label``.

    A round that is the same for all seeds (the first, where the base model was profiled once) is one row.
    """
    out = []
    for arm in run.arms:
        seeds = list(dict.fromkeys(row["seed"] for row in arm["rounds"]))
        for number in sorted({row["round"] for row in arm["rounds"]}):
            mine = [row for row in arm["rounds"] if row["round"] == number]
            mine.sort(key=lambda row: seeds.index(row["seed"]))
            same = all(_numbers(row) == _numbers(mine[0]) for row in mine)
            for row in mine[:1] if same and len(mine) == len(seeds) else mine:
                whose = "" if len(seeds) == 1 else ", all seeds" if same else f", seed {row['seed']}"
                out.append({**row, "arm": arm["name"], "label": f"round {number}{whose}"})
    return out


def _numbers(row: dict[str, Any]) -> tuple[Any, Any]:
    return row["sets"], row["pass_rate"]


def figures(run: Run) -> list[Figure]:
    """Mean pass rate of the pool and sizes of its sets by round; several figures for many arms; none for one round."""
    if not moved(run):
        return []
    blocks: dict[str, list[Any]] = {}
    for row in rows(run):
        blocks.setdefault(row["arm"], []).append((plain(row["label"], 30), row, style.ACCENT))
    whole = max(_size(row) for block in blocks.values() for _, row, _ in block)
    shown = [one for block in blocks.values() for _, row, _ in block for one in (row, *row["sets"].values())]
    highest = max([0.05, *(one.get("pass_rate", one.get("mean_pass_rate")) or 0 for one in shown)])
    return [_figure(part, set_names(run), whole, highest) for part in split(list(blocks.items()))]


def _size(row: dict[str, Any]) -> int:
    return sum(found["n"] for found in row["sets"].values())


def _figure(blocks: list[tuple[str, list[Any]]], names: list[str], whole: int, highest: float) -> Figure:
    placed, labels, heads, position = stack(blocks)
    colours = style.set_colours(names)
    at = [place for place, _, _ in placed]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean pass rate of the pool",
            "x": [row["pass_rate"] for _, row, _ in placed],
            "y": at,
            "marker": {"size": 11, "symbol": "diamond", "color": style.INK},
            "hovertext": [plain(percent(row["pass_rate"])) for _, row, _ in placed],
            "hoverinfo": "text",
            "legend": "legend",
        }
    ]
    for name in names:
        found = [row["sets"].get(name) for _, row, _ in placed]
        sizes = [one["n"] if one else 0 for one in found]
        if not any(sizes):
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(name),
                "x": [one["mean_pass_rate"] if one else None for one in found],
                "y": at,
                "marker": {"size": 8, "color": colours[name]},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(name),
                "x": sizes,
                "y": at,
                "width": 0.72,
                "xaxis": "x2",
                "marker": {"color": colours[name], "line": {"color": "#ffffff", "width": 0.8}},
                "text": [count(size) if size >= 0.05 * whole else "" for size in sizes],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "constraintext": "none",
                "textfont": {"size": 11.5, "color": style.set_ink(name)},
                "hovertext": [
                    plain(f"{name}: {count(one['n'])} problems, mean pass rate {percent(one['mean_pass_rate'])}")
                    if one
                    else ""
                    for one in found
                ],
                "hoverinfo": "text",
                "legend": "legend2",
            }
        )
    notes = headings(heads)
    notes += [
        style.note(percent(row["pass_rate"]), 0.50, place, xref="paper", yref="y", xanchor="right")
        for place, row, _ in placed
    ]
    legend = {"orientation": "h", "y": 1, "yanchor": "bottom", "itemclick": False}
    legends = {
        "legend": {**legend, "x": 0, "xanchor": "left"},
        "legend2": {**legend, "x": 1, "xanchor": "right", "traceorder": "normal"},
    }
    return {
        "data": data,
        "layout": style.layout(
            position * ROW + 92,
            margin={"l": 150, "r": 24, "t": 40, "b": 52},
            barmode="stack",
            showlegend=True,
            annotations=notes,
            xaxis=style.axis(
                "mean pass rate",
                domain=[0, 0.4],
                range=[-0.015 * highest, min(1.02, 1.06 * highest)],
                tickformat=".0%",
            ),
            xaxis2=style.axis("problems", domain=[0.54, 1], range=[0, whole], showgrid=False),
            yaxis=categories(labels, position),
            **legends,
        ),
    }
