"""How likely the student finds what it is to imitate: each origin's targets, and traces before and after Bridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from dereason.report import style
from dereason.report.data import Run, columns
from dereason.report.rows import ROW, categories, headings, split, stack
from dereason.report.style import Figure
from dereason.report.supervision import Build, order
from dereason.report.text import count, number, plain

MAX_POINTS = 240
"""More values than this in a row are thinned, evenly along their order, so that their distribution stays."""


@dataclass(frozen=True)
class Values:
    """The measured likelihoods of one row: ``nll`` rising in nats per token, and of how many texts."""

    nll: list[float]
    of: int


def strips(run: Run, built: list[Build]) -> list[Figure]:
    """One row for each origin of each step, a point a target; none where no likelihood was measured."""
    blocks = [(build.short, rows) for build in built if (rows := _rows(run, build))]
    values = [value for _, rows in blocks for _, row, _ in rows for value in row.nll]
    return [_strips(part, max(values)) for part in split(blocks)] if values else []


def _rows(run: Run, build: Build) -> list[tuple[str, Values, str]]:
    targets = columns(run.folder, build.paths.targets, ["origin", "nll"])
    traces = columns(run.folder, build.paths.candidates, ["raw", "nll"]).filter("raw").drop_nulls()
    tables = [
        (str(origin), targets.filter(pl.col("origin") == origin), style.ACCENT)
        for origin in sorted(targets["origin"].unique(), key=order)
    ]
    tables.append(("raw traces, not imitated", traces, style.MUTED))
    rows = []
    for label, table, colour in tables:
        found = sorted(float(value) for value in table["nll"].drop_nulls().drop_nans().to_list())
        if found:
            rows.append((plain(label, 30), Values(found, table.height), colour))
    return rows


def _strips(blocks: list[tuple[str, list[Any]]], top: float) -> Figure:
    rows, labels, heads, position = stack(blocks)
    data: list[dict[str, Any]] = []
    for at, row, colour in rows:
        drawn = row.nll[:: -(-len(row.nll) // MAX_POINTS)]
        # Steps of the golden ratio fill the row evenly and are the same in every run.
        spread = [at + ((0.618034 * i) % 1 - 0.5) * 0.62 for i in range(len(drawn))]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": drawn,
                "y": spread,
                "marker": {"size": 5, "color": colour, "opacity": 0.4},
                "hovertemplate": "%{x:.3f} nats per token<extra></extra>",
                "showlegend": False,
            }
        )
    middle = [(at, _quantile(row.nll, 0.25), _quantile(row.nll, 0.5), _quantile(row.nll, 0.75)) for at, row, _ in rows]
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "median and middle half",
            "x": [mid for _, _, mid, _ in middle],
            "y": [at for at, *_ in middle],
            "marker": {"size": 9, "symbol": "diamond", "color": style.INK},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [high - mid for _, _, mid, high in middle],
                "arrayminus": [mid - low for _, low, mid, _ in middle],
                "color": style.INK,
                "thickness": 2.2,
                "width": 0,
            },
            "hoverinfo": "skip",
        }
    )
    notes = headings(heads)
    for (at, low, mid, high), (_, row, _) in zip(middle, rows, strict=True):
        measured = count(row.of) if len(row.nll) == row.of else f"{count(len(row.nll))} of {count(row.of)}"
        said = f"{number(mid)} [{number(low)}, {number(high)}], n = {measured}"
        notes.append(
            style.note(said, 1, at, xref="paper", yref="y", xanchor="right", font={"size": 12, "color": style.INK})
        )
    return {
        "data": data,
        "layout": style.layout(
            position * (ROW + 3) + 80,
            margin={"l": 190, "r": 14, "t": 30, "b": 50},
            annotations=notes,
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemclick": False},
            xaxis=style.axis(
                "negative log-likelihood under the student, nats per token",
                domain=[0, 0.74],
                range=[-0.02 * top, 1.03 * top],
            ),
            yaxis=categories(labels, position),
        ),
    }


def _quantile(ordered: list[float], q: float) -> float:
    """By linear interpolation, as numpy's default."""
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def pairs(run: Run, build: Build) -> pl.DataFrame:
    """The problems with a chosen rewrite and a raw trace, in order of id.

    Returns:
        ``problem_id`` and, each with the suffixes ``_raw`` and ``_new``, ``response``, ``tokens``, ``nll``,
        ``verdict``, ``model`` and ``origin``. Of several raw traces of a problem the one that was measured counts,
        else the accepted one, else the first.
    """
    kept = ["response", "tokens", "nll", "verdict", "model", "origin"]
    table = columns(run.folder, build.paths.candidates, ["problem_id", "index", "raw", "accepted", "chosen", *kept])
    raw = table.filter("raw").sort("problem_id", pl.col("nll").is_null(), ~pl.col("accepted"), "index")
    new = table.filter((pl.col("origin") == "bridge") & pl.col("chosen") & ~pl.col("raw")).sort("problem_id", "index")
    raw, new = (
        part.unique("problem_id", keep="first", maintain_order=True).select(
            "problem_id", *(pl.col(name).alias(f"{name}_{tag}") for name in kept)
        )
        for part, tag in ((raw, "raw"), (new, "new"))
    )
    return raw.join(new, on="problem_id", how="inner").sort("problem_id")


def before_after(run: Run, built: list[Build]) -> Figure | None:
    """Raw trace against chosen rewrite, one point a problem: likelihood and length; None without any such pair."""
    found = [(build.short, pairs(run, build)) for build in built]
    measures = [
        (key, title)
        for key, title in (("nll", "nats per token under the student"), ("tokens", "length, tokens"))
        if any(not table.drop_nulls([f"{key}_raw", f"{key}_new"]).is_empty() for _, table in found)
    ]
    if not measures:
        return None
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    cells = style.grid(1, 2, 0.12, 0)
    named: set[str] = set()
    for panel, (key, title) in enumerate(measures):
        tag, highest = style.suffix(panel), 0.0
        for turn, (name, table) in enumerate(found):
            both = table.drop_nulls([f"{key}_raw", f"{key}_new"])
            if both.is_empty():
                continue
            x, y = both[f"{key}_raw"].to_list(), both[f"{key}_new"].to_list()
            highest = max(highest, *x, *y)
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain(name),
                    "legendgroup": plain(name),
                    "showlegend": name not in named,
                    "x": x,
                    "y": y,
                    "xaxis": f"x{tag}",
                    "yaxis": f"y{tag}",
                    "marker": {
                        "size": 7,
                        "symbol": style.SYMBOLS[turn % len(style.SYMBOLS)],
                        "color": style.SEED_LINES[turn % len(style.SEED_LINES)][0],
                        "opacity": 0.6,
                    },
                    "hovertext": [
                        plain(f"{problem}: {number(a)} → {number(b)}" if key == "nll" else f"{problem}: {a} → {b}")
                        for problem, a, b in zip(both["problem_id"].to_list(), x, y, strict=True)
                    ],
                    "hoverinfo": "text",
                }
            )
            named.add(name)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [0, highest * 1.05],
                "y": [0, highest * 1.05],
                "xaxis": f"x{tag}",
                "yaxis": f"y{tag}",
                "line": {"color": style.MUTED, "width": 1, "dash": "dot"},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
        span = [-0.02 * highest, 1.05 * highest]
        axes[f"xaxis{tag}"] = style.axis(f"raw trace: {title}", domain=cells[panel][0], anchor=f"y{tag}", range=span)
        axes[f"yaxis{tag}"] = style.axis("chosen rewrite", anchor=f"x{tag}", range=span)
    return {
        "data": data,
        "layout": style.layout(
            400,
            margin={"l": 66, "r": 14, "t": 40, "b": 52},
            showlegend=len(named) > 1,
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False},
            **axes,
        ),
    }
