"""What an RL phase's early warning needs of rooms that training may not import: how alike responses are, and pass@k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dereason.analysis.settings import Trajectories
from dereason.evaluation.statistics import pass_at_k
from dereason.pipeline.store import Info
from dereason.problems.schema import write_table
from dereason.training.early_warning import PROBE_FOLDER, Measures, probe_table, readings

NAME = f"{__name__}:MEASURES"
"""Where processes that train find :data:`MEASURES`."""


def trajectories(responses: Sequence[str]) -> tuple[float, float]:
    """How different responses are, by the analysis's own similarity (chrF) and cut.

    Both are means over all pairs, so that the number of responses does not matter.

    Args:
        responses: two or more.

    Returns:
        one minus the mean similarity of two responses; the expected number of unique trajectories among two.
    """
    from dereason.analysis.trajectories import cluster, compare, rarefied

    settings, m = Trajectories(), len(responses)
    similarity = compare(responses, settings)
    mean = (similarity.sum() - np.trace(similarity)) / (m * (m - 1))
    unique = rarefied(cluster(similarity, settings.cut).sizes, m, 2)
    return float(1 - mean), float(unique)


MEASURES = Measures(trajectories, pass_at_k)


def facts(work: Path) -> Info:
    """Put the probe's responses of a finished phase into one table; returns the readings' share of its time."""
    lines, table = readings(work), probe_table(work)
    if table is not None:
        write_table(table, work / f"{PROBE_FOLDER}.parquet")
    return {"early_warning_share": lines[-1]["early_warning_share"]} if lines else {}
