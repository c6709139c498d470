"""What the section on reasoning says besides its figures: verdicts, effects, tables, examples, and its limits."""

from __future__ import annotations

from typing import Any

from dereason.report.examples import clip
from dereason.report.findings import QUANTITIES, SIDES
from dereason.report.text import NONE, count

EFFECTS = {
    "incorrect": "unique incorrect",
    "correct": "unique correct",
    "diversity_incorrect": "unique among equally many incorrect",
    "diversity_correct": "unique among equally many correct",
    "visits": "decay of visits",
    "degree": "decay of degree",
    "betweenness": "decay of betweenness",
}
BANDS = ("hard", "medium", "easy")
FEW_PROBLEMS = 12
"""With fewer problems the page warns that the intervals are rough (ours)."""
FEW_RESPONSES = 32
"""With fewer responses per problem the page warns that most trajectories may be unseen (ours)."""
FEW_NODES = 15
"""With fewer nodes of a graph, on average, the page warns that rank curves and metrics rest on little (ours)."""
_PHASES = {"sft": "SFT", "rl": "RL", "joint": "joint training"}
_TOPOLOGY = {
    "edge_density": "edges there are, of those there could be",
    "clustering": "closed triangles, over those of random graphs",
    "assortativity": "whether nodes of like degree are linked (−1 to 1)",
    "modularity": "how well the graph falls into communities",
    "centralisation": "how far it hangs on one node (0 to 1)",
    "path_length": "mean shortest path, over that of random graphs",
    "global_efficiency": "mean of 1 / distance over all pairs of nodes",
    "algebraic_connectivity": "how hard it is to cut in two",
}
_GRAPHLETS = {
    "path": "four in a row",
    "star": "one linked with three",
    "cycle": "a ring of four",
    "paw": "a triangle with a tail",
    "diamond": "a ring with one diagonal",
    "clique": "all linked",
}

Info = dict[str, Any]


def phase(row: Info) -> str:
    """The phase between two models, in words; a dash where it was more than one or is not known."""
    return _PHASES.get(row["phase"], str(row["phase"])) if row["phase"] else NONE


def compared(found: Info) -> list[Info]:
    """The verdicts on all problems, one a comparison, each with its ``title``, ``phase`` and ``cells`` of effects."""
    return [_compared(found, row) for row in found["verdicts"] if row["band"] == "all"]


def by_band(found: Info) -> list[Info]:
    """The comparisons, each with its verdicts by difficulty band as ``rows``, bands without problems left out."""
    out = []
    for whole in compared(found):
        rows = [
            _compared(found, row)
            for band in BANDS
            for row in found["verdicts"]
            if (row["before"], row["after"], row["band"]) == (whole["before"], whole["after"], band)
            and row["n_problems"]
        ]
        if rows:
            out.append(whole | {"rows": rows})
    return out


def _compared(found: Info, row: Info) -> Info:
    label = {model["name"]: model["label"] for model in found["models"]}
    cells = [_effect(found, name, row["effects"].get(name), row["n_problems"]) for name in EFFECTS]
    title = f"{label[row['before']]} → {label[row['after']]}"
    because = row["because"][:1].upper() + row["because"][1:]
    return {**row, "title": title, "phase": phase(row), "cells": cells, "because": because}


def _effect(found: Info, name: str, value: Info | None, n: int) -> Info:
    """A ratio for a table: which way it goes where its interval leaves 1 out, why it is missing where it is."""
    if value is None:
        return {"value": None, "why": _missing(found, name), "way": "", "n": None}
    return {"value": value, "why": "", "way": _way(value), "n": value["n"] if value["n"] != n else None}


def _way(value: Info) -> str:
    """Which way a ratio goes, empty where its interval holds 1 or is not known."""
    return "" if not excludes(value, 1.0) else "▲" if value["estimate"] > 1 else "▼"


def _missing(found: Info, name: str) -> str:
    if name in QUANTITIES:
        return "no graphs" if found["graphs"] is None else "no curve to fit"
    if name.startswith("diversity"):
        return "no problem has enough"
    return "none before"


def excludes(value: Info | None, number: float) -> bool:
    """Whether an interval is known and leaves a number out."""
    return (
        value is not None and None not in (value["low"], value["high"]) and not value["low"] <= number <= value["high"]
    )


def limits(found: Info) -> list[str]:
    """What cannot be concluded from these findings, a sentence each."""
    n, m, c = len(found["problems"]), found["responses"], found["side_responses"]
    out = []
    if n < FEW_PROBLEMS:
        out.append(f"{_of(n, 'problem')}: too few for intervals that hold their level. Trust large effects at most.")
    small = [f"{name} ({count(size)})" for name, size in found["bands"].items() if 0 < size < FEW_PROBLEMS]
    if small and n >= FEW_PROBLEMS:
        out.append(f"By difficulty there are few problems: {', '.join(small)}. Intervals over so few are rough.")
    if m < FEW_RESPONSES:
        out.append(
            f"{_of(m, 'response')} per problem and model: rare trajectories are seldom among them, and no model "
            f"can have more than {count(m)}, so models with many look more alike than they are."
        )
    equal = [row["unique"] for row in found["trajectories"]["diversity"] if row["side"] == "correct"]
    known = min((one["n"] if one else 0 for one in equal), default=0)
    if not known:
        few = f"No problem has {count(c)} correct responses of every model: not enough"
        out.append(
            f"{few} correct responses to compare diversity among equally many of them. A change of unique correct "
            "trajectories may then be a change of accuracy alone."
        )
    elif known < min(n, FEW_PROBLEMS):
        out.append(
            f"Diversity among {count(c)} correct responses rests on the {_of(known, 'problem')} that all models have."
        )
    if found["graphs"] is not None and found["graphs"]["nodes"]["mean"] < FEW_NODES:
        out.append(
            f"Graphs have {count(found['graphs']['nodes']['mean'])} nodes on average: too few for curves and metrics "
            "of graphs to be more than a hint."
        )
    if found["graphs"] is None:
        out.append(
            "No reasoning graphs were built, so all that is said here is about whole responses, not their steps."
        )
    errors = sum(model["verdicts"].get("error", 0) for model in found["models"])
    if errors:
        out.append(f"{_of(errors, 'response')} on which the verifier failed {'is' if errors == 1 else 'are'} left out.")
    out += [str(warning) for warning in found["warnings"]]
    if found["comparisons"]:
        out.append(
            "Intervals cover the choice of problems, not the spread between training seeds: only models of several "
            "seeds tell what a phase does from what its seed did."
        )
    return out


def _of(n: int, what: str) -> str:
    return f"{count(n)} {what}{'s' * (n != 1)}"


def trajectories(found: Info) -> list[Info]:
    """One row a model: unique trajectories of each side, per response of that side, and among equally many of them."""
    sides = {(row["model"], row["side"]): row for row in found["trajectories"]["unique"]}
    diversity = {(row["model"], row["side"]): row["unique"] for row in found["trajectories"]["diversity"]}
    empty = {"unique": None, "per_response": None}
    return [
        {
            "label": model["label"],
            "sides": [sides.get((model["name"], side), empty) for side in SIDES],
            "diversity": [diversity.get((model["name"], side)) for side in SIDES],
        }
        for model in found["models"]
    ]


def grid(found: Info, rows: list[Info], x: str, y: str, most: int = 9) -> Info:
    """A curve of every model as a table: at most so many of its places, the last one always among them."""
    label = {model["name"]: model["label"] for model in found["models"]}
    places = sorted({place for row in rows for place in row[x]})
    step = max(1, -(-len(places) // most))
    kept = sorted({*places[::-1][::step]})
    lines = []
    for row in rows:
        at = {place: i for i, place in enumerate(row[x])}
        cells = [
            {"estimate": row[y][at[p]], "low": row["low"][at[p]], "high": row["high"][at[p]]} if p in at else None
            for p in kept
        ]
        lines.append({"label": label[row["model"]], "side": row.get("side", ""), "cells": cells})
    return {"places": kept, "rows": lines}


def decay(found: Info) -> list[Info]:
    """One row a model: its visits, and a cell for each quantity.

    A cell has the decay ``beta``, the ``r2`` of its lines and its ``ratio`` to the base model's, with equally many
    visits and (``ratio_otherwise``) responses, or the reverse.
    """
    graphs = found["graphs"]
    if graphs is None:
        return []
    rows = {(row["model"], row["quantity"]): row for row in graphs["decay"]}
    visits = {row["model"]: row["visits"] for row in graphs["visits"]}
    empty = {"beta": None, "r2": None, "ratio": None, "ratio_otherwise": None}
    n = len(found["problems"])
    out = []
    for model in found["models"]:
        cells = []
        for quantity in QUANTITIES:
            row = rows.get((model["name"], quantity), empty)
            ratios = {key: _effect(found, quantity, row[key], n) for key in ("ratio", "ratio_otherwise")}
            cells.append({"beta": row["beta"], "r2": row["r2"], **ratios})
        out.append({**model, "visits": visits.get(model["name"]), "cells": cells})
    return out


def topology(found: Info) -> list[Info]:
    """One block a metric, with a row a model: its ``value`` and its ``difference`` to the base model's."""
    return _blocks(found, "topology", "metric", "value", _TOPOLOGY)


def graphlets(found: Info) -> list[Info]:
    """One block a graphlet, with a row a model: its ``share`` and its ``difference`` to the base model's."""
    return _blocks(found, "graphlets", "graphlet", "share", _GRAPHLETS)


def _blocks(found: Info, table: str, key: str, value: str, words: dict[str, str]) -> list[Info]:
    if found["graphs"] is None:
        return []
    model = {one["name"]: one for one in found["models"]}
    blocks: dict[str, list[Info]] = {}
    for row in found["graphs"][table]:
        of = model[row["model"]]
        shown = {"label": of["label"], "base": of["base"], "value": row[value], "difference": row["difference"]}
        blocks.setdefault(row[key], []).append(shown | {"marked": excludes(row["difference"], 0.0)})
    known = [name for name in words if name in blocks]
    return [
        {"name": name.replace("_", " "), "words": words.get(name, ""), "rows": blocks[name]}
        for name in [*known, *(name for name in blocks if name not in words)]
    ]


def examples(found: Info) -> list[Info]:
    """One entry a problem with examples: its question, and a block for each model and side in their order."""
    out = []
    rows = found["trajectories"]["examples"]
    for problem in found["problems"]:
        blocks = [
            {
                "label": model["label"],
                "side": side,
                "clusters": [{**one, "shown": clip(one["response"])} for one in row["clusters"]],
                "more": row["more"],
            }
            for model in found["models"]
            for side in SIDES
            for row in rows
            if (row["problem"], row["model"], row["side"]) == (problem["id"], model["name"], side)
        ]
        if blocks:
            out.append({"problem": problem, "question": clip(problem["question"]), "blocks": blocks})
    return out
