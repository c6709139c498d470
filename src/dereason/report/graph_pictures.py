"""Pictures of reasoning graphs: the geometry of one small drawing a model, with the same nodes at the same places.

Drawn as SVG in the page itself, so that they need no script and a pointer on a node shows its sentence.
"""

from __future__ import annotations

import math
from typing import Any

from dereason.report.findings import Look, looks

WIDTH, HEIGHT = 320, 270
"""Of one drawing, in its own units."""
_PAD = 24
_SMALL, _LARGE = 4.0, 17.0
"""Radii of a node without visits and of the most visited one."""
_INSIDE = (8.5, 11.0)
"""From this radius on a number of one figure, or of two, fits inside its node."""
_APART = 40.0
"""Nodes are pushed apart until they are at least so far from each other, where there is room."""

Point = tuple[float, float]


def pictures(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a pictured problem: ``nodes`` (number, label) and a drawing for each model.

    A drawing has ``circles`` (x, y, r, number, where the number stands, visits, label) and ``arrows`` (path, head,
    width, title), the thin ones first. Radii and widths have one scale for all models of a problem and grow with the
    root of visits and counts.
    """
    if found["graphs"] is None:
        return []
    look = looks(found)
    label = {model["name"]: model["label"] for model in found["models"]}
    question = {problem["id"]: problem["question"] for problem in found["problems"]}
    out = []
    for picture in found["graphs"]["pictures"]:
        places = spread([(node["x"], node["y"]) for node in picture["nodes"]])
        most = max((v for model in picture["models"] for v in model["visits"]), default=0)
        heaviest = max((count for model in picture["models"] for _, _, count in model["edges"]), default=0)
        drawings = [
            {
                "label": label[model["model"]],
                "shown": model["shown"],
                **_drawing(model, places, picture["nodes"], look[model["model"]], most, heaviest),
            }
            for model in picture["models"]
        ]
        nodes = [{"number": at, "label": node["label"]} for at, node in enumerate(picture["nodes"], start=1)]
        text = question.get(picture["problem"], "")
        out.append({"problem": picture["problem"], "question": text, "nodes": nodes, "drawings": drawings})
    return out


def _drawing(
    model: dict[str, Any], places: list[Point], nodes: list[dict[str, Any]], look: Look, most: int, heaviest: int
) -> dict[str, Any]:
    radii = [_radius(visits, most) for visits in model["visits"]]
    circles = [
        {
            "x": _round(x),
            "y": _round(y),
            "r": _round(radius),
            "number": number,
            "inside": radius >= _INSIDE[number > 9],
            "left": x + radius > WIDTH - 24,
            "visits": visits,
            "label": node["label"],
        }
        for number, ((x, y), radius, visits, node) in enumerate(
            zip(places, radii, model["visits"], nodes, strict=True), start=1
        )
    ]
    arrows = [
        arrow(places[a], places[b], radii[a], radii[b], math.sqrt(count / heaviest))
        | {"title": f"{a + 1} → {b + 1}: {count} times", "count": count}
        for a, b, count in model["edges"]
        if a != b
    ]
    return {"circles": circles, "arrows": sorted(arrows, key=lambda one: one["count"]), "colour": look.colour}


def _radius(visits: int, most: int) -> float:
    return _SMALL + (_LARGE - _SMALL) * math.sqrt(visits / most) if most else _SMALL


def arrow(a: Point, b: Point, radius_a: float, radius_b: float, weight: float) -> dict[str, Any]:
    """A bent arrow from the rim of one node to the rim of another.

    It bends to one side of its direction, so that the arrow back has a line of its own.

    Args:
        a, b: the centres.
        radius_a, radius_b: of the nodes.
        weight: 0..1, how strong it is.
    """
    across, down = b[0] - a[0], b[1] - a[1]
    bend = (
        (a[0] + b[0]) / 2 - 0.16 * down,
        (a[1] + b[1]) / 2 + 0.16 * across,
    )
    width = 0.7 + 4.3 * weight
    head = min(5.0 + 1.3 * width, 0.45 * math.hypot(across, down))
    start = _towards(a, bend, radius_a)
    tip = _towards(b, bend, radius_b + 1)
    neck = _towards(b, bend, radius_b + 1 + head)
    side = ((neck[1] - tip[1]) * 0.42, (tip[0] - neck[0]) * 0.42)
    corners = [tip, (neck[0] + side[0], neck[1] + side[1]), (neck[0] - side[0], neck[1] - side[1])]
    return {
        "path": f"M{_pair(start)} Q{_pair(bend)} {_pair(neck)}",
        "head": " ".join(_pair(corner) for corner in corners),
        "width": _round(width),
        "opacity": _round(0.3 + 0.55 * weight, 2),
    }


def spread(places: list[Point]) -> list[Point]:
    """Places fitted into a drawing, near ones pushed apart."""
    if not places:
        return []
    fitted = list(zip(_fit([x for x, _ in places], WIDTH), _fit([y for _, y in places], HEIGHT), strict=True))
    for _ in range(200):
        moved = False
        for i in range(len(fitted)):
            for j in range(i):
                moved = _push(fitted, i, j) or moved
        if not moved:
            break
    return fitted


def _push(places: list[Point], i: int, j: int) -> bool:
    across, down = places[i][0] - places[j][0], places[i][1] - places[j][1]
    distance = math.hypot(across, down)
    if distance >= _APART - 0.5:
        return False
    if distance < 1e-6:  # the same spot: any direction will do, but not the same for all pairs
        across, down, distance = math.cos(i + 2 * j), math.sin(i + 2 * j), 1.0
    step = (_APART - min(distance, _APART)) / 2 / distance
    places[i] = _clamp(places[i][0] + step * across, places[i][1] + step * down)
    places[j] = _clamp(places[j][0] - step * across, places[j][1] - step * down)
    return True


def _clamp(x: float, y: float) -> Point:
    return min(max(x, _PAD), WIDTH - _PAD), min(max(y, _PAD), HEIGHT - _PAD)


def _fit(values: list[float], size: int) -> list[float]:
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return [size / 2] * len(values)
    return [_PAD + (size - 2 * _PAD) * (value - low) / (high - low) for value in values]


def _towards(start: Point, end: Point, distance: float) -> Point:
    across, down = end[0] - start[0], end[1] - start[1]
    length = math.hypot(across, down) or 1.0
    return start[0] + across * distance / length, start[1] + down * distance / length


def _pair(point: Point) -> str:
    return f"{_round(point[0])},{_round(point[1])}"


def _round(value: float, digits: int = 1) -> float:
    return round(value, digits)
