"""What the verifier said, by kind of answer: one block of rows for each set of judged responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dereason.report.data import Run
from dereason.report.supervision import builds
from dereason.report.text import stage


@dataclass(frozen=True)
class Block:
    """One set of responses: ``kinds`` maps a kind to its verdict counts and ``n`` (errors left out)."""

    title: str
    kinds: dict[str, dict[str, int]]
    errors: dict[str, int]
    rules: dict[str, int]


def blocks(run: Run, rows: list[dict[str, Any]]) -> list[Block]:
    """Evaluations in the order of the results' table, then rollouts, profile and what was drawn for targets.

    Args:
        run: the run.
        rows: the rows of the results' table, each with its ``group`` and its ``seeds``.
    """
    out = [_block(f"evaluation: {_whose(row)}", row["confusion"]) for row in rows]
    out += [_block(f"rollouts: {_whose(row)}", row["rollouts"]) for row in rows if row["rollouts"]]
    profile = run.summary["profile"]
    if profile and profile["confusion"]:
        out.append(_block("profile: responses of the untrained model", profile["confusion"]))
    for build in builds(run):
        if build.facts["confusion"]:
            out.append(_block(f"responses drawn for the targets of {build.title}", build.facts["confusion"]))
    return [block for block in out if block.kinds]


def _whose(row: dict[str, Any]) -> str:
    seed = "" if row["seeds"] == "all" else f", seed {row['seeds']}"
    return f"{row['group']}, {stage(row['stage'])}{seed}"


def _block(title: str, table: dict[str, Any]) -> Block:
    return Block(title, table["kinds"], table["errors"], table["rules"])
