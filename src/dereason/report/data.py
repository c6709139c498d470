"""What the page shows, loaded from a run directory: ``summary.json``, ``recipe.yaml``, listed artifacts.

Large tables (samples, targets) stay on disk: :func:`columns` and :func:`matching` read only what is shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from dereason.errors import DereasonError
from dereason.report import contract, findings

SCHEMA_VERSION = 4
VERDICTS = ("correct", "wrong", "unparsable", "truncated", "error")

_AGAIN = "finish the run with `dereason run` (finished steps are not repeated), then write the report again"
_TOP = (
    "name", "description", "finished", "seconds", "model", "prompt", "problems", "profile", "arms", "results",
    "comparisons", "arm_comparisons", "budgets", "steps", "tokens", "peak_memory_bytes", "environment", "warnings",
    "artifacts",
)  # fmt: skip
_INSIDE: dict[str, tuple[str, ...]] = {
    "model": ("name", "identity", "note", "parameters"),
    "prompt": ("template_hash", "system", "suffix", "example"),
    "problems": ("train", "test", "reading"),
    "tokens": ("generated", "trained"),
    "environment": ("python", "platform", "cpu", "cores", "memory_bytes", "device", "gpu", "versions"),
    "artifacts": ("train_problems", "test_problems", "profiles", "routes", "targets", "curves", "samples"),
    "profile": ("k", "sampling", "spearman", "verdicts", "strict", "confusion", "warnings"),
}
_EACH: dict[str, tuple[str, ...]] = {
    "arms": ("name", "policy", "sets", "phases", "rounds"),
    "results": (
        "arm", "seed", "stage", "phase", "accuracy", "low", "high", "level", "strict", "n_problems", "n_samples",
        "verdicts", "found_by", "confusion", "rollouts", "answered_accuracy", "mean_tokens", "by_domain",
    ),
    "comparisons": (
        "arm", "seed", "from", "to", "difference", "low", "high", "level", "strict", "n_problems",
        "problems_left_out",
    ),
    "arm_comparisons": (
        "seed", "from", "to", "stage_from", "stage_to", "difference", "low", "high", "level", "strict", "n_problems",
        "problems_left_out",
    ),
    "budgets": ("arm", "seed", "problems", "tokens_trained", "tokens_generated", "tokens_of_targets", "flops"),
    "steps": ("name", "key", "seconds", "cached", "path"),
}  # fmt: skip
_PHASE = ("index", "kind", "round", "sets", "targets")
_ROUND = ("seed", "round", "sets", "pass_rate")
_TARGETS = ("n", "accepted", "notes", "confusion", "sources")
_SOURCE = (
    "style", "sets", "problems", "candidates", "accepted", "targets", "covered", "uncovered", "by_origin", "bridge",
    "asked",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The training log of one phase: ``rows`` as logged, or ``missing`` saying why there are none.

    ``readings`` are the lines of its early warning, where it has one.
    """

    arm: str
    seed: int
    phase: int
    kind: str
    path: str
    rows: list[dict[str, Any]]
    missing: str
    readings: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Built:
    """What a phase's targets step left behind: paths of its tables, relative to the run directory."""

    seed: int
    targets: str
    candidates: str
    coverage: str


@dataclass(frozen=True)
class Run:
    """One run as the page needs it; table paths are relative to ``folder``."""

    folder: Path
    summary: dict[str, Any]
    recipe: str | None
    profiles: pl.DataFrame | None
    routes: dict[str, pl.DataFrame]
    built: dict[tuple[str, int], list[Built]]
    """By arm and phase, a seed each; the summary's facts are those of the first."""
    samples: dict[tuple[str, int, str], str]
    curves: list[Curve]
    reasoning: dict[str, Any] | None
    """The findings of the analysis of reasoning, None where the run has none."""
    reasoning_path: str

    @property
    def arms(self) -> list[dict[str, Any]]:
        """The arms in the recipe's order."""
        return list(self.summary["arms"])

    def seeds(self, arm: str) -> list[int]:
        """The seeds of one arm that have results, rising."""
        return sorted({row["seed"] for row in self.summary["results"] if row["arm"] == arm})

    def stages(self, arm: str) -> list[str]:
        """The evaluated stages of one arm in the order of its phases."""
        rows = [row for row in self.summary["results"] if row["arm"] == arm]
        order = sorted({(row["phase"], row["stage"]) for row in rows})
        return [stage for _, stage in order]

    def result(self, arm: str, seed: int, stage: str) -> dict[str, Any] | None:
        """The result of one stage, or None where it was not evaluated."""
        for row in self.summary["results"]:
            if (row["arm"], row["seed"], row["stage"]) == (arm, seed, stage):
                return dict(row)
        return None

    def kind(self, arm: str, stage: str) -> str:
        """The kind of the phase that made a stage: ``sft``, ``rl``, ``joint``, or ``base`` where none did."""
        phase = max(r["phase"] for r in self.summary["results"] if (r["arm"], r["stage"]) == (arm, stage))
        kinds = {p["index"]: p["kind"] for a in self.arms if a["name"] == arm for p in a["phases"]}
        return str(kinds.get(phase, "base"))


def load(folder: Path) -> Run:
    """Read and check a run directory.

    Raises:
        DereasonError: the summary is missing, unreadable, of an unknown version or incomplete, or a table
            that it lists is missing. A training log may be missing or empty: the page then says so.
    """
    summary = _read_summary(folder / "summary.json")
    artifacts = summary["artifacts"]
    for name in ("train_problems", "test_problems"):
        _present(folder, artifacts[name], name)
    built: dict[tuple[str, int], list[Built]] = {}
    for t in artifacts["targets"]:
        paths = Built(t["seed"], t["path"], t["candidates"], t["coverage"])
        built.setdefault((t["arm"], t["phase"]), []).append(paths)
        for what in ("path", "candidates", "coverage"):
            _present(folder, t[what], "targets")
    samples = {(s["arm"], s["seed"], s["stage"]): s["path"] for s in artifacts["samples"]}
    for path in samples.values():
        _present(folder, path, "samples")
    profiles = None
    if artifacts["profiles"] is not None:
        profiles = columns(
            folder,
            artifacts["profiles"],
            ["problem_id", "n", "correct", "pass_rate", "judge_expectation"],
        )
    routes = {arm: columns(folder, path, ["problem_id", "set", "reason"]) for arm, path in artifacts["routes"].items()}
    curves = [_read_curve(folder, entry) for entry in artifacts["curves"]]
    recipe = folder / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else None
    reasoning, path = _reasoning(folder, summary)
    return Run(folder, summary, text, profiles, routes, built, samples, curves, reasoning, path)


def _reasoning(folder: Path, summary: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The findings of the step that the summary names under ``reasoning``, and their path; none where it names none."""
    step = summary.get("reasoning")
    if step is None:
        return None, ""
    _need(folder / "summary.json", "reasoning", step, ("path",))
    path = f"{step['path']}/{findings.FILE}"
    return findings.load(_present(folder, path, "reasoning")), path


def columns(folder: Path, path: str, names: list[str]) -> pl.DataFrame:
    """Some columns of a listed Parquet table.

    Raises:
        DereasonError: the file is missing or unreadable, or lacks a column.
    """
    return _collect(_scan(folder, path).select(names), path)


def matching(folder: Path, path: str, column: str, values: list[str]) -> list[dict[str, Any]]:
    """The rows of a listed Parquet table whose ``column`` is one of ``values``, every column read.

    Raises:
        DereasonError: the file is missing or unreadable, or lacks the column.
    """
    return _collect(_scan(folder, path).filter(pl.col(column).is_in(values)), path).to_dicts()


def _scan(folder: Path, path: str) -> pl.LazyFrame:
    return pl.scan_parquet(_present(folder, path, "table"))


def _collect(frame: pl.LazyFrame, path: str) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as exc:
        raise DereasonError(f"{path}: not a readable table ({exc})", _AGAIN) from exc


def _inside(folder: Path, path: Any, what: str) -> Path:
    parts = PurePosixPath(str(path))
    if not isinstance(path, str) or parts.is_absolute() or ".." in parts.parts:
        raise DereasonError(
            f"{folder / 'summary.json'}: the artifact path {path!r} ({what}) is not inside the run directory",
            "list paths relative to the run directory",
        )
    return folder / parts


def _present(folder: Path, path: Any, what: str) -> Path:
    """The path of a listed artifact, checked: inside the run directory, and there."""
    full = _inside(folder, path, what)
    if not full.is_file():
        raise DereasonError(f"{full}: listed in summary.json ({what}) but not there", _AGAIN)
    return full


def _read_summary(path: Path) -> dict[str, Any]:
    summary = contract.read_json(
        path, SCHEMA_VERSION, _AGAIN, "write the report with the version of dereason that made the run"
    )
    _need(path, "it", summary, _TOP)
    for name, keys in _INSIDE.items():
        if name != "profile" or summary[name] is not None:
            _need(path, name, summary[name], keys)
    for name, keys in _EACH.items():
        for index, row in enumerate(summary[name]):
            _need(path, f"{name}[{index}]", row, keys)
    for at, arm in enumerate(summary["arms"]):
        _need_arm(path, f"arms[{at}]", arm)
    for at, row in enumerate(summary["artifacts"]["targets"]):
        _need(path, f"artifacts.targets[{at}]", row, ("arm", "seed", "phase", "path", "candidates", "coverage"))
    return dict(summary)


def _need_arm(path: Path, where: str, arm: dict[str, Any]) -> None:
    for index, row in enumerate(arm["rounds"]):
        _need(path, f"{where}.rounds[{index}]", row, _ROUND)
    for index, phase in enumerate(arm["phases"]):
        inside = f"{where}.phases[{index}]"
        _need(path, inside, phase, _PHASE)
        if phase["targets"] is not None:
            _need(path, f"{inside}.targets", phase["targets"], _TARGETS)
            for at, source in enumerate(phase["targets"]["sources"]):
                _need(path, f"{inside}.targets.sources[{at}]", source, _SOURCE)


def _need(path: Path, where: str, value: Any, keys: tuple[str, ...]) -> None:
    contract.need(path, where, value, keys, _AGAIN)


def _read_curve(folder: Path, entry: dict[str, Any]) -> Curve:
    head = {key: entry[key] for key in ("arm", "seed", "phase", "kind", "path")}
    path = _inside(folder, entry["path"], "curves")
    if not path.is_file():
        return Curve(**head, rows=[], missing=f"{entry['path']} is not there")
    rows, broken = _logged(path)
    beside = path.with_name("early-warning.jsonl")
    readings = _logged(beside)[0] if beside.is_file() else []
    missing = "" if rows else f"{entry['path']} holds no logged step"
    if broken:
        missing = f"{entry['path']} has {broken} unreadable line{'s' * (broken > 1)}, left out"
    return Curve(**head, rows=rows, missing=missing, readings=readings)


def _logged(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a log that have a step, and how many lines could not be read."""
    rows, broken = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows, broken
