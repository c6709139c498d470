"""Everything that the section on reasoning shows, put together from the findings of an analysis."""

from __future__ import annotations

from typing import Any

from dereason.report import graph_pictures, reasoning
from dereason.report import reasoning_words as words
from dereason.report.findings import QUANTITIES, SIDES
from dereason.report.text import level


def section(found: dict[str, Any], path: str) -> dict[str, Any]:
    """What the template needs, figures under keys that begin with ``figure_``.

    Args:
        found: the findings, as :func:`dereason.report.findings.load` gives them.
        path: where they are, as the page names it.
    """
    by_responses, by_cut = found["trajectories"]["by_responses"], found["trajectories"]["by_cut"]
    bands = len(found["models"]) <= reasoning.BANDS
    said = f"bands are {level(found['level'])} bootstrap intervals over problems"
    note = f" The {said}." if bands else f" The intervals ({level(found['level'])}) are in the tables."
    return {
        "found": found,
        "path": path,
        "level": level(found["level"]),
        "by_chance": round(1 / (1 - found["level"])),
        "effects": list(words.EFFECTS.values()),
        "quantities": QUANTITIES,
        "sides": SIDES,
        "compared": words.compared(found),
        "by_band": words.by_band(found),
        "limits": words.limits(found),
        "trajectories": words.trajectories(found),
        "bands_note": note,
        "grids": [
            (
                f"The curve over responses as a table ({level(found['level'])} intervals)",
                words.grid(found, by_responses, "m", "unique"),
            ),
            (
                f"The curve over the cut as a table ({level(found['level'])} intervals)",
                words.grid(found, by_cut, "cut", "unique"),
            ),
        ],
        "pass_grid": words.grid(found, found["pass_at_k"], "k", "value"),
        "decay": words.decay(found),
        "topology": words.topology(found),
        "graphlets": words.graphlets(found),
        "pictures": graph_pictures.pictures(found),
        "examples": words.examples(found),
        "figure_unique": reasoning.unique(found),
        "figure_by_responses": reasoning.by_responses(found),
        "figure_by_cut": reasoning.by_cut(found),
        "figure_pass": reasoning.pass_at_k(found),
        "figure_ranks": reasoning.ranks(found),
    }
