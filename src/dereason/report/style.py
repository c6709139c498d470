"""Colours, fonts and the parts of a plotly layout that every figure shares.

Verdicts, sets and phases keep one colour each on the whole page. The hues are Okabe and Ito's, which stay
apart under the common kinds of colour blindness; where two could still be confused, a marker or a label
differs too. Figures are plain dictionaries in plotly's JSON form: building them needs no import of plotly.
"""

from __future__ import annotations

from typing import Any

from dereason.report.text import plain

Figure = dict[str, Any]

WIDTH = 1060
"""Figure width in CSS pixels; the style sheet scales figures to the paper by ``zoom``."""

INK, MUTED, FAINT = "#1f2933", "#5f6b7a", "#e4e7eb"
ACCENT = "#0a5c8f"

VERDICT_COLOURS = {
    "correct": "#009e73",
    "wrong": "#d55e00",
    "unparsable": "#f0b429",
    "truncated": "#a3adb9",
    "error": "#1f2933",
}
VERDICT_INK = {
    "correct": "#ffffff",
    "wrong": "#ffffff",
    "unparsable": INK,
    "truncated": INK,
    "error": "#ffffff",
}

_SETS = {
    "sft": "#0072b2",
    "rl": "#b4569b",
    "joint": "#4d7c2b",
    "simple": "#56b4e9",
    "medium": "#e69f00",
    "hard": "#8c3b2e",
    "drop": "#c3cad3",
}
_OTHER_SETS = ["#8c6d31", "#6b4fa1", "#2f8f9d", "#b8860b", "#5b7f95"]
_PALE_SETS = {"simple", "medium", "drop"}
_PHASES = {"base": "#7b8794", "sft": "#0072b2", "rl": "#b4569b", "joint": "#4d7c2b"}
SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "x"]
SEED_LINES = [
    ("#0a5c8f", "solid"),
    ("#1f2933", "dot"),
    ("#6aa9d4", "dash"),
    ("#7b8794", "dashdot"),
    ("#003d66", "longdash"),
]

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def set_colours(names: list[str]) -> dict[str, str]:
    """A colour for every set of a run: the known sets keep theirs, others get a free one in order."""
    others = [name for name in names if name not in _SETS]
    extra = {name: _OTHER_SETS[i % len(_OTHER_SETS)] for i, name in enumerate(others)}
    return {name: _SETS.get(name) or extra[name] for name in names}


def set_ink(name: str) -> str:
    """The colour of text on a set's colour."""
    return INK if name in _PALE_SETS else "#ffffff"


def phase_colour(kind: str) -> str:
    """The colour of what a phase of this kind produced."""
    return _PHASES.get(kind, ACCENT)


def layout(height: int, **more: Any) -> dict[str, Any]:
    """The layout that every figure starts from; ``height`` in CSS pixels."""
    return {
        "width": WIDTH,
        "height": height,
        "font": {"family": _FONT, "size": 12.5, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"size": 12.5, "color": INK}},
        "dragmode": False,
        "showlegend": False,
        "bargap": 0.0,
        **more,
    }


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """One axis: faint grid, no zero line, no zooming; ``title`` is shown as it is, never as markup."""
    return {
        "title": {"text": plain(title), "font": {"size": 12.5, "color": MUTED}, "standoff": 8},
        "gridcolor": FAINT,
        "zeroline": False,
        "fixedrange": True,
        "tickfont": {"size": 12, "color": INK},
        **more,
    }


def note(text: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    """A text annotation without an arrow; ``text`` must already be safe for plotly (:func:`plain`)."""
    return {"text": text, "x": x, "y": y, "showarrow": False, "font": {"size": 12.5, "color": INK}, **more}


def suffix(index: int) -> str:
    """Plotly's name for the axes of panel ``index``: '' for the first, then '2', '3', ..."""
    return "" if index == 0 else str(index + 1)


def grid(rows: int, cols: int, gap_x: float, gap_y: float) -> list[tuple[list[float], list[float]]]:
    """The x and y domains of a grid of panels, row by row from the top; gaps as shares of the figure."""
    width = (1 - gap_x * (cols - 1)) / cols
    height = (1 - gap_y * (rows - 1)) / rows
    cells = []
    for row in range(rows):
        top = 1 - row * (height + gap_y)
        for col in range(cols):
            left = col * (width + gap_x)
            cells.append(([left, left + width], [max(0.0, top - height), top]))
    return cells
