"""The findings of an analysis, read from ``findings.json`` and checked, and how each of its models looks in figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dereason.errors import DereasonError
from dereason.report import contract, style
from dereason.report.text import plain

FILE = "findings.json"
SCHEMA_VERSION = 1
QUANTITIES = ("visits", "degree", "betweenness")
SIDES = ("incorrect", "correct")

_AGAIN = "run the analysis again (finished problems are not repeated), then write the page again"
_TOP = (
    "settings", "provenance", "level", "responses", "side_responses", "problems", "bands", "models", "comparisons",
    "trajectories", "graphs", "pass_at_k", "verdicts", "warnings",
)  # fmt: skip
_CURVE = ("value", "low", "high")
_ROWS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("problems",): ("id", "question", "band"),
    ("models",): ("name", "label", "n_problems", "n_samples", "verdicts", "base"),
    ("comparisons",): ("before", "after", "phase"),
    ("pass_at_k",): ("model", "k", *_CURVE),
    ("verdicts",): ("before", "after", "phase", "band", "n_problems", "verdict", "because", "effects"),
    ("trajectories", "unique"): ("model", "side", "unique", "per_response"),
    ("trajectories", "by_responses"): ("model", "side", "m", "unique", "low", "high"),
    ("trajectories", "by_cut"): ("model", "side", "cut", "unique", "low", "high"),
    ("trajectories", "diversity"): ("model", "side", "unique"),
    ("trajectories", "examples"): ("problem", "model", "side", "clusters", "more"),
    ("graphs", "curves"): ("model", "quantity", "rank", "value", "alpha", "beta"),
    ("graphs", "visits"): ("model", "visits"),
    ("graphs", "decay"): ("model", "quantity", "beta", "r2", "ratio", "ratio_otherwise"),
    ("graphs", "topology"): ("model", "metric", "value", "difference"),
    ("graphs", "graphlets"): ("model", "graphlet", "share", "difference"),
    ("graphs", "pictures"): ("problem", "nodes", "models"),
}
_NAMES = ("model", "before", "after")
_LABEL = 30
_FREE = ["#d55e00", "#009e73", "#e69f00", "#1f2933", "#56b4e9", "#8c3b2e", "#6b4fa1", "#8c6d31"]
_PHASE_COLOURS = [style.phase_colour(kind) for kind in ("base", "sft", "rl", "joint")]
_DASHES = ["solid", "dash", "dot", "dashdot", "longdash"]


@dataclass(frozen=True)
class Look:
    """One model in the figures: a colour, a symbol and a dash, and its label cut to fit, safe for plotly."""

    colour: str
    symbol: str
    dash: str
    label: str


def load(path: Path) -> dict[str, Any]:
    """Read and check a ``findings.json``.

    Raises:
        DereasonError: the file is missing, unreadable, of an unknown version or incomplete, or a row names a model
            that is not listed.
    """
    found = contract.read_json(
        path, SCHEMA_VERSION, _AGAIN, "write the page with the version of dereason that made the analysis"
    )
    _need(path, "it", found, _TOP)
    _need(path, "trajectories", found["trajectories"], [key[1] for key in _ROWS if key[0] == "trajectories"])
    if found["graphs"] is not None:
        inside = [key[1] for key in _ROWS if key[0] == "graphs"]
        _need(path, "graphs", found["graphs"], ["nodes", "sentences", *inside])
    for keys, needed in _ROWS.items():
        for at, row in enumerate(_inside(found, keys)):
            _need(path, f"{'.'.join(keys)}[{at}]", row, needed)
    known = {model["name"] for model in found["models"]}
    for keys in _ROWS:
        for at, row in enumerate(_inside(found, keys)):
            for inner in [row, *(row["models"] if keys == ("graphs", "pictures") else [])]:
                wrong = [inner[name] for name in _NAMES if name in inner and inner[name] not in known]
                if wrong:
                    raise DereasonError(f"{path}: {'.'.join(keys)}[{at}] names an unlisted model {wrong[0]!r}", _AGAIN)
    return dict(found)


def _inside(found: dict[str, Any], keys: tuple[str, ...]) -> list[Any]:
    for key in keys:
        if found is None:
            return []
        found = found[key]
    return list(found)


def _need(path: Path, where: str, value: Any, keys: Iterable[str]) -> None:
    contract.need(path, where, value, keys, _AGAIN)


def looks(found: dict[str, Any]) -> dict[str, Look]:
    """How each model looks, by name in the order of the findings.

    The first model that a kind of phase made has the colour of that kind on the rest of the page; the base model is
    grey; the others take what is free. With more models than can be told apart by colour, those that the same phases
    made (in other arms, with other seeds) share one, and differ in symbol and dash.
    """
    chains = _chains(found)
    many = len(chains) > len(_FREE) + 1
    colours: dict[Any, str] = {}
    sizes: dict[str, int] = {}
    out: dict[str, Look] = {}
    for model, label in zip(found["models"], labels(found), strict=True):
        name = model["name"]
        group = chains[name] or name if many else name
        if group not in colours:
            own = style.phase_colour("base" if model["base"] else (chains[name] or ("",))[-1])
            taken = set(colours.values())
            free = [one for one in ([own] if own in _PHASE_COLOURS else []) + _FREE if one not in taken]
            colours[group] = free[0] if free else _FREE[len(colours) % len(_FREE)]
        colour = colours[group]
        at = sizes.setdefault(colour, len(out) if not many else 0)
        sizes[colour] = at + 1
        out[name] = Look(colour, style.SYMBOLS[at % len(style.SYMBOLS)], _DASHES[at % len(_DASHES)], plain(label))
    return out


def _chains(found: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The kinds of phases that made each model of the base, as far as the comparisons tell."""
    made = {row["after"]: (row["before"], row["phase"]) for row in reversed(found["comparisons"]) if row["phase"]}
    out = {}
    for model in found["models"]:
        chain: list[str] = []
        name = model["name"]
        while name in made and len(chain) < len(made):
            name, kind = made[name]
            chain.insert(0, kind)
        out[model["name"]] = tuple(chain)
    return out


def labels(found: dict[str, Any], limit: int = _LABEL) -> list[str]:
    """The models' labels, long ones cut in the middle: arms differ at the front, stages and seeds at the end.

    Labels that are the same after that get their number in front.
    """
    whole = [" ".join(str(model["label"]).split()) for model in found["models"]]
    short = [_middle(label, limit) for label in whole]
    return [
        _middle(f"{at}: {label}", limit) if short.count(_middle(label, limit)) > 1 else _middle(label, limit)
        for at, label in enumerate(whole, start=1)
    ]


def _middle(label: str, limit: int) -> str:
    if len(label) <= limit:
        return label
    head = (limit - 1) // 2
    return f"{label[:head]}…{label[head + 1 - limit :]}"
