"""The early warning's readings in the figure of an RL phase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dereason.report import curves, data


def phase_of(folder: Path, readings: list[dict[str, Any]] | None) -> curves.PhaseCurves:
    """What the report makes of a phase of 200 steps, long enough to be smoothed."""
    work = folder / "steps" / "train-rl"
    work.mkdir(parents=True)
    rows = [{"step": step, "reward": step % 2, "seconds": step} for step in range(1, 201)]
    (work / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if readings is not None:
        lines = "".join(json.dumps(line) + "\n" for line in readings)
        (work / "early-warning.jsonl").write_text(lines + '{"step": 30, "pro')
    entry = {"arm": "a", "seed": 0, "phase": 1, "kind": "rl", "path": "steps/train-rl/metrics.jsonl"}
    curve = data._read_curve(folder, entry)
    assert not curve.missing
    arms = [{"name": "a", "phases": [{"index": 1, "kind": "rl"}]}]
    (found,) = curves.phases(type("Run", (), {"arms": arms, "curves": [curve]})())  # type: ignore[arg-type]
    return found


def titles(phase: curves.PhaseCurves) -> list[str]:
    assert phase.figure is not None
    return [note["text"] for note in phase.figure["layout"]["annotations"]]


def test_readings_are_drawn_as_they_were_read(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "probe/diversity": 0.5, "probe/pass_at_1": 0.25, "rollouts/diversity": None, "warning": None},
        {"step": 10, "rollouts/diversity": 0.4, "warning": None},
        {"step": 20, "probe/diversity": 0.3, "probe/pass_at_1": 0.5, "rollouts/diversity": 0.2, "warning": "RL ..."},
    ]
    phase = phase_of(tmp_path, lines)
    assert titles(phase) == [
        "mean reward",
        "diversity of correct responses, probe",
        "pass@1, probe",
        "diversity of correct rollouts",
    ]
    assert phase.figure is not None
    drawn = [(line["xaxis"], line["x"], line["y"]) for line in phase.figure["data"] if line["xaxis"] != "x"]
    assert drawn == [("x2", [0, 20], [0.5, 0.3]), ("x3", [0, 20], [0.25, 0.5]), ("x4", [10, 20], [0.4, 0.2])]
    assert phase.window == 11, "the reward is smoothed, what was read is not"
    assert any("asks the same problems" in remark for remark in phase.remarks)


def test_a_phase_without_readings_has_no_room_for_them(tmp_path: Path) -> None:
    phase = phase_of(tmp_path, None)
    assert titles(phase) == ["mean reward"]
    assert not any("Early warning" in remark for remark in phase.remarks)
