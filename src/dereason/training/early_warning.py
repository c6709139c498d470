"""Early warning in an RL phase: whether correct responses become alike while pass@k stands still.

RL that squeezes raises pass@1 by repeating the few ways of solving that it rewards first (arXiv 2509.21128 measures
that after training). A *reading* looks for it while training still runs. It has two parts:

- ``rollouts``: the phase's own rollouts since the reading before. They cost nothing to draw, and are of other problems
  each time.
- ``probe``: responses to the same problems each time, drawn for the purpose by the same random numbers, so that only
  the policy differs between two readings.

Here are the settings, what is computed of given samples, and the sentence that warns; all of it pure.
:mod:`~dereason.training.readings` takes the readings. How alike responses are is measured by :class:`Measures`, which
the caller of a phase passes in. The design and its numbers are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field

from dereason.problems.schema import SAMPLE
from dereason.settings import Settings
from dereason.training.watch import read_line

FILE = "early-warning.jsonl"
"""The readings of a phase, in its folder."""
PROBE_FOLDER = "early-warning"
"""There, the probe's responses while the phase trains."""
VALUES = ("pass_at_1", "pass_at_k", "diversity", "unique_of_two")
PARTS = ("rollouts", "probe")


class EarlyWarning(Settings):
    """Readings of how alike an RL phase's correct responses become; they change nothing of what is learned."""

    every: int = Field(default=10, gt=0, le=25)
    """Optimiser steps between readings of the phase's own rollouts."""
    problems: int | None = Field(default=None, ge=0)
    """Problems of the probe, drawn at random from the phase's set; null takes an eighth of `prompts_per_generation`, at
    least 4; 0 leaves the probe out."""
    samples: int = Field(default=8, gt=1)
    """Responses to each problem of the probe."""
    k: int | None = Field(default=None, gt=1)
    """k of pass@k; null takes half of `group_size` (at least 2): a rollout that could not be judged does not cost its
    group."""
    groups: int = Field(default=64, gt=0)
    """Most groups of rollouts whose responses are compared with each other in a reading, drawn at random."""
    share: float = Field(default=0.03, gt=0, le=1)
    """Share of the phase's time that readings may take: a probe that would go beyond it is left out, except at the
    beginning and at the end. 1 takes every probe."""
    fall: float = Field(default=0.2, gt=0, lt=1)
    """Share of its first value by which diversity or entropy has to fall before a reading warns."""

    def probe_problems(self, prompts_per_generation: int) -> int:
        """How many problems the probe has, where the set is large enough."""
        return max(4, prompts_per_generation // 8) if self.problems is None else self.problems

    def k_of(self, group_size: int) -> int:
        """k of pass@k."""
        return max(2, group_size // 2) if self.k is None else self.k


@dataclass(frozen=True)
class Measures:
    """What the readings need of later rooms.

    Attributes:
        trajectories: of two responses or more: their diversity (one minus the mean similarity of two of them), and the
            expected number of unique trajectories among two of them, 1 to 2.
        pass_at_k: (n, correct, k) -> the unbiased estimate of the chance that one of k is correct.
    """

    trajectories: Callable[[Sequence[str]], tuple[float, float]]
    pass_at_k: Callable[[int, int, int], float]


Values = Mapping[str, Mapping[str, float]]
"""Name of a value -> problem -> the mean over the problem's groups."""


def problem_values(samples: pl.DataFrame, k: int, groups: int, measures: Measures, stream: Sequence[int]) -> Values:
    """What groups of samples say of each problem; a group is the samples of one problem at one step.

    Guided samples and those that nothing is known of (``right`` is null) do not count. A group gives pass@1 where a
    sample was judged, pass@k where k were, and diversity where two are right.

    Args:
        samples: table of :func:`~dereason.training.rollouts.judged_frame`, or the columns of it that are read.
        k: of pass@k.
        groups: most groups whose responses are compared.
        measures: see :class:`Measures`.
        stream: seed of the choice among more groups.
    """
    of_groups = (
        _judged(samples)
        .group_by("problem_id", "step", maintain_order=True)
        .agg(n=pl.len(), responses=pl.col("response").filter(pl.col("right")))
        .sort("step", "problem_id")
    )
    several = [i for i, responses in enumerate(of_groups["responses"].to_list()) if len(responses) > 1]
    compared = set(np.random.default_rng(stream).permutation(several)[:groups].tolist())
    found: dict[str, dict[str, list[float]]] = {name: {} for name in VALUES}
    for i, (problem, _, n, responses) in enumerate(of_groups.iter_rows()):
        mine = {"pass_at_1": len(responses) / n}
        if n >= k:
            mine["pass_at_k"] = measures.pass_at_k(n, len(responses), k)
        if i in compared:
            mine["diversity"], mine["unique_of_two"] = measures.trajectories(responses)
        for name, value in mine.items():
            found[name].setdefault(problem, []).append(value)
    return {name: {problem: fmean(v) for problem, v in of.items()} for name, of in found.items()}


def _judged(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.filter(pl.col("right").is_not_null() & (pl.col("purpose") != "guided"))


def summary(part: str, samples: pl.DataFrame, values: Values, entropy: float | None) -> dict[str, float | None]:
    """A part of a reading as its line of the file has it: means over problems, their standard errors, and n.

    Args:
        part: ``rollouts`` or ``probe``.
        samples: that it was computed from.
        values: of :func:`problem_values`.
        entropy: of the policy, nats per token.
    """
    line: dict[str, float | None] = {"samples": _judged(samples).height, "entropy": entropy}
    for name in VALUES:
        numbers = list(values[name].values())
        line[name] = fmean(numbers) if numbers else None
        line[f"{name}_error"] = stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
        line[f"{name}_problems"] = len(numbers)
    return {f"{part}/{name}": value for name, value in line.items()}


@dataclass(frozen=True)
class Change:
    """A value at two readings, and the standard error of their difference."""

    before: float
    after: float
    error: float

    @property
    def rose(self) -> bool:
        """Whether it rose by more than its error."""
        return self.after - self.before > self.error

    def fell(self, share: float) -> bool:
        """Whether it fell by more than a share of what it was, and by more than twice its error."""
        return self.before - self.after > max(share * self.before, 2 * self.error)


def paired(before: Mapping[str, float], after: Mapping[str, float]) -> Change | None:
    """The change on the problems that both readings have a value for; None for fewer than two of them."""
    shared = sorted(before.keys() & after.keys())
    if len(shared) < 2:
        return None
    differences = [after[problem] - before[problem] for problem in shared]
    error = stdev(differences) / math.sqrt(len(shared))
    return Change(fmean(before[p] for p in shared), fmean(after[p] for p in shared), error)


def unpaired(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> Change | None:
    """The change between two lines of the file; None where one of them lacks the value or its error."""
    numbers = [line.get(key) for line in (before, after) for key in (name, f"{name}_error")]
    known: list[float] = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return None
    return Change(known[0], known[2], math.hypot(known[1], known[3]))


def squeezing(changes: Mapping[str, Change | None], fall: float) -> list[str]:
    """Which of diversity and entropy fell, where pass@1 rose and pass@k did not; empty where there is nothing to say.

    Args:
        changes: of ``pass_at_1``, ``pass_at_k``, ``diversity`` and ``entropy`` since the first reading.
        fall: see :class:`EarlyWarning`.
    """
    one, several = changes["pass_at_1"], changes["pass_at_k"]
    if one is None or several is None or not one.rose or several.rose:
        return []
    return [name for name in ("diversity", "entropy") if (change := changes[name]) is not None and change.fell(fall)]


_NAMES = {"diversity": "the diversity of correct trajectories", "entropy": "entropy"}
_WHERE = {"rollouts": "the phase's rollouts", "probe": "the probe"}


def sentence(part: str, steps: tuple[int, int], k: int, changes: Mapping[str, Change | None], fallen: list[str]) -> str:
    """The warning in full.

    Args:
        part: that it is about.
        steps: of the first reading and of this one.
        k: of pass@k.
        changes: see :func:`squeezing`.
        fallen: what :func:`squeezing` found.
    """
    falls = " and ".join(
        f"{_NAMES[name]} fell from {change.before:.3g} to {change.after:.3g} "
        f"(-{100 * (1 - change.after / change.before):.0f} %)"
        for name in fallen
        if (change := changes[name]) is not None
    )
    one, several = changes["pass_at_1"], changes["pass_at_k"]
    assert one is not None  # squeezing() found something
    assert several is not None
    return (
        f"RL is squeezing: between steps {steps[0]} and {steps[1]} {falls}, while pass@1 rose from "
        f"{100 * one.before:.1f} to {100 * one.after:.1f} % and pass@{k} did not ({100 * several.before:.1f} to "
        f"{100 * several.after:.1f} %), measured on {_WHERE[part]}; a lower learning rate, kl, entropy_bonus or fewer "
        "steps would keep more of it"
    )


def brief(changes: Mapping[str, Change | None], fallen: list[str]) -> str:
    """The warning for a progress line."""
    found = [change for name in fallen if (change := changes[name]) is not None]
    falls = [f"{name} -{100 * (1 - c.after / c.before):.0f} %" for name, c in zip(fallen, found, strict=True)]
    return f"RL is squeezing: {', '.join(falls)}"


def readings(work: Path) -> list[dict[str, Any]]:
    """The lines of a phase's :data:`FILE`; none where it took no readings."""
    path = work / FILE
    found = map(read_line, path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    return [line for line in found if line]


def probe_table(work: Path) -> pl.DataFrame | None:
    """All responses to a phase's probe as a SAMPLE table, in step order; None where it drew none."""
    files = sorted((work / PROBE_FOLDER).glob("step-*.parquet"))
    return pl.concat([pl.read_parquet(f, columns=list(SAMPLE)) for f in files]) if files else None


def reading_warnings(work: Path, settings: EarlyWarning | None) -> list[str]:
    """What a finished phase's readings leave to be said: that RL squeezes, and that they took too long."""
    lines = readings(work)
    if not lines or settings is None:
        return []
    said = [line for line in lines if line["warning"]]
    words = []
    if said:
        later = "" if said[-1] is lines[-1] else f" (the last reading, of step {lines[-1]['step']}, no longer says so)"
        words.append(said[-1]["warning"] + later)
    share = lines[-1]["early_warning_share"]
    if share > settings.share:
        words.append(
            f"the early warning took {100 * share:.1f} % of the phase's time, more than early_warning.share: in so "
            "short a phase lower early_warning.problems or early_warning.samples"
        )
    return words
