"""Figures of the held-out results: accuracy with verdict shares, paired differences, accuracy by domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dereason.report import style
from dereason.report.data import VERDICTS, Run
from dereason.report.rows import ROW, categories, headings, split, stack
from dereason.report.style import Figure
from dereason.report.text import NONE, count, interval, percent, plain, points, points_interval, stage

_MAX_DOMAINS = 40
_COLS = 3


def accuracy(run: Run) -> list[Figure]:
    """Accuracy with its interval and the shares of the verdicts by row; several figures for many arms."""
    blocks = []
    for arm in run.arms:
        name, seeds, rows = arm["name"], run.seeds(arm["name"]), []
        for stage_name in run.stages(name):
            for seed in seeds:
                row = run.result(name, seed, stage_name)
                if row is not None:
                    label = stage(stage_name) + (f", seed {seed}" if len(seeds) > 1 else "")
                    rows.append((plain(label, 30), row, style.phase_colour(run.kind(name, stage_name))))
        if rows:
            blocks.append((name, rows))
    results = [row for _, rows in blocks for _, row, _ in rows]
    top = max(
        (max(row["high"] or 0, row["accuracy"] or 0, row["answered_accuracy"] or 0) for row in results),
        default=0,
    )
    return [_accuracy(part, top) for part in split(blocks)]


def _accuracy(blocks: list[tuple[str, list[Any]]], top: float) -> Figure:
    rows, labels, heads, position = stack(blocks)
    hover = [plain(_hover(row)) for _, row, _ in rows]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "strict accuracy",
            "x": [row["strict"]["accuracy"] for _, row, _ in rows],
            "y": [at for at, _, _ in rows],
            "marker": {"symbol": "line-ns-open", "size": 12, "color": style.INK, "line": {"width": 1.8}},
            "hoverinfo": "skip",
            "legend": "legend",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "correct of answered",
            "x": [row["answered_accuracy"] for _, row, _ in rows],
            "y": [at for at, _, _ in rows],
            "marker": {"symbol": "diamond-open", "size": 8, "color": style.MUTED, "line": {"width": 1.3}},
            "hoverinfo": "skip",
            "legend": "legend",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "accuracy",
            "x": [row["accuracy"] for _, row, _ in rows],
            "y": [at for at, _, _ in rows],
            "marker": {"size": 10, "color": [colour for _, _, colour in rows]},
            "error_x": _bars([row for _, row, _ in rows], "accuracy"),
            "hovertext": hover,
            "hoverinfo": "text",
            "legend": "legend",
        },
    ]
    for verdict in VERDICTS:
        shares = [_share(row["verdicts"], verdict) for _, row, _ in rows]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": verdict,
                "x": shares,
                "y": [at for at, _, _ in rows],
                "width": 0.72,
                "xaxis": "x2",
                "marker": {
                    "color": style.VERDICT_COLOURS[verdict],
                    "line": {"color": "#ffffff", "width": 0.8},
                },
                "text": [f"{100 * share:.0f}" if share >= 0.05 else "" for share in shares],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "constraintext": "none",
                "textfont": {"size": 11.5, "color": style.VERDICT_INK[verdict]},
                "hovertext": hover,
                "hoverinfo": "text",
                "legend": "legend2",
            }
        )
    notes = headings(heads)
    notes += [
        style.note(
            f"{percent(row['accuracy'])} {interval(row['low'], row['high'])}",
            0.575,
            at,
            xref="paper",
            yref="y",
            xanchor="right",
            font={"size": 12, "color": style.INK},
        )
        for at, row, _ in rows
    ]
    legend = {"orientation": "h", "yanchor": "bottom", "itemclick": False}
    bottom, above = 52, 62
    plot = position * ROW
    height = plot + bottom + above
    legends = {  # one above the other: side by side they meet in a narrow window
        "legend": {**legend, "x": 0, "y": 1 + 22 / plot, "xanchor": "left", "traceorder": "reversed"},
        "legend2": {**legend, "x": 1, "y": 1, "xanchor": "right", "traceorder": "normal"},
    }
    return {
        "data": data,
        "layout": style.layout(
            height,
            margin={"l": 150, "r": 24, "t": above, "b": bottom},
            barmode="stack",
            showlegend=True,
            annotations=notes,
            xaxis=style.axis(
                "accuracy on held-out problems",
                domain=[0, 0.40],
                range=[-0.015 * top, min(1.02, max(0.05, top * 1.06))],
                tickformat=".0%",
            ),
            xaxis2=style.axis(
                "share of responses",
                domain=[0.6, 1],
                range=[0, 1],
                tickvals=[0, 0.25, 0.5, 0.75, 1],
                tickformat=".0%",
                showgrid=False,
            ),
            yaxis=categories(labels, position),
            **legends,
        ),
    }


def comparisons(run: Run) -> list[dict[str, Any]]:
    """The summary's comparisons in reading order: arm, one stage after the other, then over several, seed."""
    names = [arm["name"] for arm in run.arms]
    rows = [row for row in run.summary["comparisons"] if row["arm"] in names]
    return sorted(
        rows,
        key=lambda row: (
            names.index(row["arm"]),
            _order(run, row, "to") - _order(run, row, "from") > 1,
            _order(run, row, "to"),
            _order(run, row, "from"),
            row["seed"],
        ),
    )


def arm_comparisons(run: Run) -> list[dict[str, Any]]:
    """The summary's comparisons of the last stages of two arms in reading order: arms as listed, seed."""
    names = [arm["name"] for arm in run.arms]
    rows = [row for row in run.summary["arm_comparisons"] if row["from"] in names and row["to"] in names]
    return sorted(rows, key=lambda row: (names.index(row["from"]), names.index(row["to"]), row["seed"]))


def shared_base(run: Run) -> dict[str, Any] | None:
    """The result of the base model where one evaluation serves all arms and seeds, else None.

    It does if every arm and seed has it with the same numbers and from no more than one sample table; with
    one arm and one seed nothing is shared.
    """
    keys = [(arm["name"], seed) for arm in run.arms for seed in run.seeds(arm["name"])]
    found = [run.result(arm, seed, "base") for arm, seed in keys]
    rows = [{k: v for k, v in row.items() if k not in ("arm", "seed")} for row in found if row is not None]
    paths = {path for (_, _, name), path in run.samples.items() if name == "base"}
    same = len(rows) == len(keys) > 1 and len(paths) <= 1 and all(row == rows[0] for row in rows)
    return rows[0] if same else None


def differences(run: Run) -> list[Figure]:
    """Paired differences between stages with their intervals; several figures for many arms."""
    found = comparisons(run)
    many = len({row["seed"] for row in found}) > 1
    blocks: dict[str, list[Any]] = {}
    for row in found:
        label = f"{row['from']} → {row['to']}" + (f", seed {row['seed']}" if many else "")
        blocks.setdefault(row["arm"], []).append((plain(label, 34), row, style.ACCENT))
    low = min([0.0, *(row["low"] for row in found)])
    high = max([0.0, *(row["high"] for row in found)])
    return [_differences(part, low, high) for part in split(list(blocks.items()))]


def _differences(blocks: list[tuple[str, list[Any]]], low: float, high: float) -> Figure:
    rows, labels, heads, position = stack(blocks)
    values = [f"{points(row['difference'])} {points_interval(row['low'], row['high'])}" for _, row, _ in rows]
    data = {
        "type": "scatter",
        "mode": "markers",
        "x": [row["difference"] for _, row, _ in rows],
        "y": [at for at, _, _ in rows],
        "marker": {
            "size": 10,
            "color": [style.ACCENT if excludes_zero(row) else "#ffffff" for _, row, _ in rows],
            "line": {"color": style.ACCENT, "width": 1.8},
        },
        "error_x": _bars([row for _, row, _ in rows], "difference"),
        "hovertext": [
            plain(f"{value}, n = {count(row['n_problems'])}") for value, (_, row, _) in zip(values, rows, strict=True)
        ],
        "hoverinfo": "text",
    }
    pad = 0.06 * max(high - low, 0.02)
    notes = headings(heads)
    notes += [
        style.note(value, 1, at, xref="paper", yref="y", xanchor="right", font={"size": 12, "color": style.INK})
        for value, (at, _, _) in zip(values, rows, strict=True)
    ]
    ticks = _point_ticks(low - pad, high + pad)
    return {
        "data": [data],
        "layout": style.layout(
            position * ROW + 66,
            margin={"l": 170, "r": 14, "t": 10, "b": 56},
            annotations=notes,
            xaxis={
                **style.axis(
                    "difference in accuracy, percentage points",
                    domain=[0, 0.82],
                    range=[low - pad, high + pad],
                    tickvals=ticks,
                    ticktext=[points(tick, 0) for tick in ticks],
                ),
                "zeroline": True,
                "zerolinecolor": style.MUTED,
                "zerolinewidth": 1.5,
            },
            yaxis=categories(labels, position),
        ),
    }


def domains(run: Run) -> list[Figure]:
    """Accuracy by domain, a panel per arm, a marker per stage and seed; none above 40 domains."""
    arms = [arm["name"] for arm in run.arms if run.seeds(arm["name"])]
    sizes: dict[str, int] = {}
    top = 0.05
    for row in run.summary["results"]:
        for domain, value in row["by_domain"].items():
            sizes[domain] = max(sizes.get(domain, 0), value["n_problems"])
            top = max(top, value["high"] or 0)
    if not sizes or len(sizes) > _MAX_DOMAINS:
        return []
    return [_domains(run, arms[i : i + _COLS], sizes, top) for i in range(0, len(arms), _COLS)]


def _domains(run: Run, arms: list[str], sizes: dict[str, int], top: float) -> Figure:
    names = sorted(sizes, key=lambda domain: (-sizes[domain], domain))
    marks = max(len(run.stages(arm)) * len(run.seeds(arm)) for arm in arms)
    plot = len(names) * max(36, 9 * marks + 14)
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes: list[dict[str, Any]] = []
    stripes: list[dict[str, Any]] = []
    shown: set[str] = set()
    for index, (arm, (x_range, _)) in enumerate(zip(arms, style.grid(1, len(arms), 0.055, 0), strict=True)):
        tag = style.suffix(index)
        seeds = run.seeds(arm)
        kinds = [(name, run.kind(arm, name), seed) for name in run.stages(arm) for seed in seeds]
        for slot, (stage_name, kind, seed) in enumerate(kinds):
            result = run.result(arm, seed, stage_name)
            if result is None:
                continue
            offset = 0.0 if len(kinds) == 1 else (slot / (len(kinds) - 1) - 0.5) * 0.58
            label, colour = stage(stage_name), style.phase_colour(kind)
            found = [
                (at, name, result["by_domain"][name]) for at, name in enumerate(names) if name in result["by_domain"]
            ]
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain(label),
                    "legendgroup": plain(label),
                    "showlegend": label not in shown,
                    "x": [value["accuracy"] for _, _, value in found],
                    "y": [at + offset for at, _, _ in found],
                    "xaxis": f"x{tag}",
                    "yaxis": f"y{tag}",
                    "marker": {"size": 7, "color": colour, "symbol": style.SYMBOLS[slot // len(seeds) % 7]},
                    "error_x": {
                        **_bars([value for _, _, value in found], "accuracy"),
                        "thickness": 1.3,
                        "color": colour,
                    },
                    "hovertext": [
                        plain(
                            f"{name}, {label}, seed {seed}: {percent(value['accuracy'])} "
                            f"{interval(value['low'], value['high'])}, n = {count(value['n_problems'])}"
                        )
                        for _, name, value in found
                    ],
                    "hoverinfo": "text",
                }
            )
            shown.add(label)
        labels = [(at, f"{plain(name, 20)} (n={count(sizes[name])})") for at, name in enumerate(names)]
        axes[f"xaxis{tag}"] = style.axis(
            "accuracy",
            domain=x_range,
            anchor=f"y{tag}",
            tickformat=".0%",
            range=[-0.012 * top, min(1.02, top * 1.04)],
        )
        axes[f"yaxis{tag}"] = {
            **categories(labels if index == 0 else [(at, "") for at, _ in labels], len(names)),
            "anchor": f"x{tag}",
        }
        notes.append(
            style.note(
                f"<b>{plain(arm, 40)}</b>",
                x_range[0],
                1,
                xref="paper",
                yref="paper",
                xanchor="left",
                yanchor="bottom",
            )
        )
        stripes += [
            {
                "type": "rect",
                "xref": f"x{tag} domain",
                "yref": f"y{tag}",
                "x0": 0,
                "x1": 1,
                "y0": at - 0.5,
                "y1": at + 0.5,
                "fillcolor": "#f5f7fa",
                "line": {"width": 0},
                "layer": "below",
            }
            for at in range(0, len(names), 2)
        ]
    margin = {"l": 190, "r": 24, "t": 58, "b": 48}
    return {
        "data": data,
        "layout": style.layout(
            plot + margin["t"] + margin["b"],
            margin=margin,
            annotations=notes,
            shapes=stripes,
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1 + 26 / plot, "yanchor": "bottom", "itemclick": False},
            **axes,
        ),
    }


def excludes_zero(row: dict[str, Any]) -> bool:
    """Whether the interval of a comparison leaves zero out; touching zero does not."""
    return bool(row["low"] > 0 or row["high"] < 0)


def _order(run: Run, row: dict[str, Any], key: str) -> int:
    stages = run.stages(row["arm"])
    return stages.index(row[key]) if row[key] in stages else len(stages)


def _share(verdicts: dict[str, int], verdict: str) -> float:
    total = sum(verdicts.values())
    return verdicts.get(verdict, 0) / total if total else 0.0


def _hover(row: dict[str, Any]) -> str:
    verdicts = ", ".join(f"{count(row['verdicts'].get(v, 0))} {v}" for v in VERDICTS)
    answered = percent(row["answered_accuracy"]) if row["answered_accuracy"] is not None else NONE
    strict = f"strict {percent(row['strict']['accuracy'])} {interval(row['strict']['low'], row['strict']['high'])}"
    return (
        f"{percent(row['accuracy'])} {interval(row['low'], row['high'])}; {strict}; of answered {answered}; {verdicts}"
    )


def _bars(rows: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [_gap(row["high"], row[key]) for row in rows],
        "arrayminus": [_gap(row[key], row["low"]) for row in rows],
        "color": style.INK,
        "thickness": 1.5,
        "width": 0,
    }


def _gap(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else upper - lower


def _point_ticks(low: float, high: float) -> list[float]:
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        if (high - low) / step <= 10:
            break
    first, last = -int(-low / step), int(high / step)
    return [round(step * i, 4) for i in range(first, last + 1)]
