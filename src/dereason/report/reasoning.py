"""Figures of how training reshaped reasoning: unique trajectories, pass@k, and rank curves with their fits."""

from __future__ import annotations

import html
import math
from typing import Any

from dereason.report import style
from dereason.report.findings import SIDES, Look, looks
from dereason.report.rows import ROW
from dereason.report.style import Figure
from dereason.report.text import estimate, figures, number, plain

BANDS = 6
"""With more models than this, bands would hide each other; the intervals are then in the tables alone."""
_RANKS = 80
"""So many points of a rank curve are drawn: the first twenty, the rest thinned evenly."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_NARROW = {"narrowest": 780}
"""The width in pixels down to which a window may narrow these figures."""

Series = dict[str, Any]
"""One line: ``model``, ``x``, ``y``, and where they were measured ``low`` and ``high``."""


def unique(found: dict[str, Any]) -> Figure:
    """Unique trajectories per problem of every model, as dots with intervals, one row a model.

    A panel for incorrect and one for correct responses; and, where that is defined, one each for equally many of them.
    """
    look = looks(found)
    rows = found["trajectories"]["unique"]
    panels = [(f"{side}, of {found['responses']}", _of_side(rows, side)) for side in SIDES]
    diversity = found["trajectories"]["diversity"]
    equal = [(f"of {found['side_responses']} {side}", _of_side(diversity, side)) for side in SIDES]
    panels += [panel for panel in equal if any(panel[1].values())]
    place = {name: at for at, name in enumerate(look)}
    plot = len(look) * ROW
    cells = style.grid(1, len(panels), 0.06, 0.0)
    data, axes, notes = [], {}, []
    for at, (title, values) in enumerate(panels):
        tag, (x_range, _) = style.suffix(at), cells[at]
        shown = [(name, value) for name, value in values.items() if value is not None]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [value["estimate"] for _, value in shown],
                "y": [place[name] for name, _ in shown],
                "xaxis": f"x{tag}",
                "yaxis": "y",
                "marker": {
                    "size": 10,
                    "color": [look[name].colour for name, _ in shown],
                    "symbol": [look[name].symbol for name, _ in shown],
                },
                "error_x": _bars([value for _, value in shown]),
                "hovertext": [f"{look[name].label}: {_said(value)}" for name, value in shown],
                "hoverinfo": "text",
            }
        )
        top = max([_top(value) for _, value in shown], default=1.0) or 1.0
        axes[f"xaxis{tag}"] = style.axis(
            "unique trajectories", domain=x_range, anchor="y", range=[-0.02 * top, 1.06 * top], nticks=5
        )
        notes.append(_heading(title, x_range[0], 1.0))
    axes["yaxis"] = style.axis(
        tickvals=list(place.values()),
        ticktext=[one.label for one in look.values()],
        range=[len(look) - 0.4, -0.6],
        showgrid=True,
        ticks="",
        domain=[0, 1],
    )
    margin = _margin(look) | {"l": _margin(look)["r"] - 10, "r": 20}
    return {
        "data": data,
        "layout": style.layout(
            plot + margin["t"] + margin["b"], margin=margin, meta=_NARROW, annotations=notes, **axes
        ),
    }


def by_responses(found: dict[str, Any]) -> Figure:
    """Expected unique trajectories against the number of responses drawn (rarefaction), a panel for each side."""
    rows = found["trajectories"]["by_responses"]
    panels = [
        (side, [_series(row, "m", "unique") for row in rows if row["side"] == side], _unique_axes("responses drawn"))
        for side in SIDES
    ]
    return _curves(found, panels)


def by_cut(found: dict[str, Any]) -> Figure:
    """Unique trajectories against the similarity at which clusters are cut, a panel for each side."""
    rows = found["trajectories"]["by_cut"]
    panels = [
        (
            side,
            [_series(row, "cut", "unique") for row in rows if row["side"] == side],
            _unique_axes("similarity of the cut"),
        )
        for side in SIDES
    ]
    figure = _curves(found, panels)
    cut = found["settings"]["trajectories"]["cut"]
    line = {"color": style.MUTED, "width": 1.2, "dash": "dot"}
    figure["layout"]["shapes"] = [
        {
            "type": "line",
            "xref": f"x{tag}",
            "yref": f"y{tag} domain",
            "x0": cut,
            "x1": cut,
            "y0": 0,
            "y1": 1,
            "line": line,
        }
        for tag in map(style.suffix, range(len(panels)))
    ]
    return figure


def pass_at_k(found: dict[str, Any]) -> Figure | None:
    """pass@k of every model against k on a binary logarithmic axis; None where nothing was measured."""
    rows = found["pass_at_k"]
    if not rows:
        return None
    ks = sorted({k for row in rows for k in row["k"]})
    x_axis = style.axis(
        "k, responses drawn (logarithmic)",
        type="log",
        tickvals=ks,
        ticktext=[str(k) for k in ks],
        showgrid=True,
        range=[math.log10(ks[0]) - 0.03, math.log10(ks[-1]) + 0.03],
    )
    y_axis = style.axis("problems solved by one of k", tickformat=".0%", rangemode="tozero")
    return _curves(found, [("pass@k", [_series(row, "k", "value") for row in rows], (x_axis, y_axis))], height=300)


def ranks(found: dict[str, Any]) -> Figure | None:
    """Rank curves of the three quantities on a logarithmic y axis with their fitted lines; None without graphs."""
    if found["graphs"] is None:
        return None
    look = looks(found)
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes = []
    links = "passages of links" if found["settings"]["graphs"]["weighted"] else "links"
    units = {"visits": "share of visits", "degree": links, "betweenness": "share of shortest paths"}
    cells = style.grid(1, len(units), 0.1, 0.0)
    named: set[str] = set()
    for at, (quantity, unit) in enumerate(units.items()):
        tag, (x_range, y_range) = style.suffix(at), cells[at]
        rows = [row for row in found["graphs"]["curves"] if row["quantity"] == quantity]
        values = [value for row in rows for value in row["value"] if value > 0]
        for row in rows:
            data += _ranked(row, look[row["model"]], tag, row["model"] not in named)
            named.add(row["model"])
        axes[f"xaxis{tag}"] = style.axis("rank", domain=x_range, anchor=f"y{tag}", nticks=5, rangemode="tozero")
        axes[f"yaxis{tag}"] = style.axis(unit, domain=y_range, anchor=f"x{tag}", type="log", **_decades(values))
        notes.append(_heading(quantity, x_range[0], 1.0))
    return _framed(data, axes, notes, look, 290)


def _decades(values: list[float]) -> dict[str, Any]:
    """Range and ticks of a logarithmic axis: powers of ten, and where there are few of them 2 and 5 times these."""
    low, high = (math.log10(min(values)) - 0.15, math.log10(max(values)) + 0.15) if values else (0.0, 1.0)
    powers = range(math.floor(low), math.ceil(high) + 1)
    step = math.ceil((high - low) / 6)
    if high - low > 2.2:
        ticks = {float(power): f"10{str(power).translate(_RAISED)}" for power in powers if power % step == 0}
    else:
        ticks = {math.log10(m) + power: figures(m * 10.0**power, 1) for power in powers for m in (1, 2, 5)}
    inside = {at: text for at, text in ticks.items() if low <= at <= high}
    return {"range": [low, high], "tickvals": [10**at for at in inside], "ticktext": list(inside.values())}


def _ranked(row: dict[str, Any], look: Look, tag: str, first: bool) -> list[dict[str, Any]]:
    """A rank curve as points and, where one was fitted, its line."""
    kept = [(rank, value) for rank, value in zip(row["rank"], row["value"], strict=True) if value > 0]
    step = max(1, math.ceil(len(kept[20:]) / (_RANKS - 20)))
    shown = kept[:20] + kept[20::step]
    common = {"type": "scatter", "xaxis": f"x{tag}", "yaxis": f"y{tag}", "name": look.label, "legendgroup": look.label}
    points = {
        **common,
        "mode": "markers",
        "x": [rank for rank, _ in shown],
        "y": [_rounded(value) for _, value in shown],
        "marker": {"size": 4.5, "color": look.colour, "symbol": look.symbol, "opacity": 0.55},
        "showlegend": False,
        "hovertemplate": "rank %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    }
    if row["alpha"] is None or row["beta"] is None or not kept:
        return [points | {"showlegend": first}]
    ends = [kept[0][0], kept[-1][0]]
    line = {
        **common,
        "mode": "lines",
        "x": ends,
        "y": [_rounded(10 ** max(-300.0, row["alpha"] - row["beta"] * rank)) for rank in ends],
        "line": {"color": look.colour, "width": 2, "dash": look.dash},
        "showlegend": first,
        "hoverinfo": "skip",
    }
    return [points, line]


def _curves(
    found: dict[str, Any],
    panels: list[tuple[str, list[Series], tuple[dict[str, Any], dict[str, Any]]]],
    height: int = 260,
) -> Figure:
    """Lines of all models, one or more panels beside each other, with bands where the models are few."""
    look = looks(found)
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes = []
    cells = style.grid(1, len(panels), 0.09, 0.0)
    named: set[str] = set()
    for at, (title, lines, (x_axis, y_axis)) in enumerate(panels):
        tag, (x_range, y_range) = style.suffix(at), cells[at]
        place = {"xaxis": f"x{tag}", "yaxis": f"y{tag}"}
        if len(look) <= BANDS:
            data += [_band(line, look[line["model"]].colour) | place for line in lines]
        for line in lines:
            data.append(_line(line, look[line["model"]], line["model"] not in named) | place)
            named.add(line["model"])
        axes[f"xaxis{tag}"] = x_axis | {"domain": x_range, "anchor": f"y{tag}"}
        axes[f"yaxis{tag}"] = y_axis | {"domain": y_range, "anchor": f"x{tag}"}
        notes.append(_heading(title, x_range[0], 1.0))
    return _framed(data, axes, notes, look, height)


def _framed(
    data: list[dict[str, Any]], axes: dict[str, Any], notes: list[dict[str, Any]], look: dict[str, Look], plot: int
) -> Figure:
    """The figure, with room for a legend of all models at the right."""
    plot, margin = max(plot, 19 * len(look) + 10), _margin(look)
    return {
        "data": data,
        "layout": style.layout(
            plot + margin["t"] + margin["b"],
            margin=margin,
            meta=_NARROW,
            annotations=notes,
            showlegend=True,
            legend={
                "x": 1.015,
                "y": 1,
                "xanchor": "left",
                "yanchor": "top",
                "itemclick": False,
                "itemdoubleclick": False,
                "tracegroupgap": 0,
                "font": {"size": 12},
            },
            **axes,
        ),
    }


def _margin(look: dict[str, Look]) -> dict[str, int]:
    """Margins with a right one that the longest label fits into, beside its line."""
    longest = max((len(html.unescape(one.label)) for one in look.values()), default=0)
    return {"l": 64, "r": 60 + 7 * max(longest, 8), "t": 34, "b": 52}


def _line(line: Series, look: Look, first: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": look.label,
        "legendgroup": look.label,
        "showlegend": first,
        "x": line["x"],
        "y": line["y"],
        "line": {"color": look.colour, "width": 2, "dash": look.dash},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 6.5},
        "hovertext": [f"{look.label}, {_hover(line, at)}" for at in range(len(line["x"]))],
        "hoverinfo": "text",
    }


def _band(line: Series, colour: str) -> dict[str, Any]:
    """The area between the limits of a line, where they are known."""
    known = [at for at in range(len(line["x"])) if line["low"][at] is not None and line["high"][at] is not None]
    there = [line["x"][at] for at in known]
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": there + there[::-1],
        "y": [line["high"][at] for at in known] + [line["low"][at] for at in reversed(known)],
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.13)",
        "line": {"width": 0},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _of_side(rows: list[dict[str, Any]], side: str) -> dict[str, Any]:
    return {row["model"]: row["unique"] for row in rows if row["side"] == side}


def _series(row: dict[str, Any], x: str, y: str) -> Series:
    return {"model": row["model"], "x": row[x], "y": row[y], "low": row["low"], "high": row["high"], "name": x}


def _hover(line: Series, at: int) -> str:
    limits = f"[{number(line['low'][at], 3)}, {number(line['high'][at], 3)}]"
    return plain(f"{line['name']} {line['x'][at]:g}: {number(line['y'][at], 3)} {limits}")


def _unique_axes(title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return style.axis(title, nticks=7), style.axis("unique trajectories per problem", rangemode="tozero", nticks=6)


def _bars(values: list[dict[str, Any]]) -> dict[str, Any]:
    def gap(value: dict[str, Any], side: str) -> float:
        limit = value[side]
        return 0.0 if limit is None else abs(limit - value["estimate"])

    return {
        "type": "data",
        "symmetric": False,
        "array": [gap(value, "high") for value in values],
        "arrayminus": [gap(value, "low") for value in values],
        "color": style.MUTED,
        "thickness": 1.5,
        "width": 4,
    }


def _top(value: dict[str, Any]) -> float:
    return float(max(value["estimate"], value["high"] or 0))


def _said(value: dict[str, Any]) -> str:
    return plain(f"{estimate(value)}, n = {value['n']} problems")


def _heading(title: str, x: float, y: float) -> dict[str, Any]:
    return style.note(
        f"<b>{plain(title)}</b>", x, y, xref="paper", yref="paper", xanchor="left", yanchor="bottom", yshift=6
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
